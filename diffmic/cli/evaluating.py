"""``diffmic evaluate``."""

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError
from .loading import (
    DataArgument,
    Device,
    Group,
    ImageColumn,
    ImageFolder,
    LabelColumn,
    Levels,
    ModelArgument,
    chosen_part,
    load,
    read_data,
)


def evaluate(
    model: ModelArgument,
    data: DataArgument,
    split: Annotated[
        str | None, typer.Option(help="Split to evaluate; without it: test, or all images.")
    ] = None,
    format: Annotated[str, typer.Option(help="markdown or json.")] = "markdown",
    resamples: Annotated[
        int, typer.Option(min=0, help="Bootstrap resamples of the intervals; 0: no intervals.")
    ] = 1000,
    device: Device = "auto",
    group: Group = None,
    image: ImageColumn = "file",
    label: LabelColumn = "label",
    folder: ImageFolder = None,
    levels: Levels = "auto",
) -> None:
    """Measure a model on labelled images: prior, diffusion, and diffusion alone, with intervals.

    **Examples**

        diffmic evaluate my-model photos/
        diffmic evaluate my-model labels.csv --split test --group patient
        diffmic evaluate my-model labels.csv --format json | jq '.[] | select(.metric == "auc")'
    """
    if format not in ("markdown", "json"):
        raise InputError(f"--format is {format!r}; give markdown or json.")
    table = read_data(data, image=image, label=label, group=group, folder=folder, levels=levels)
    part = chosen_part(table, split)
    clf = load(model, device)
    report = clf.evaluate(part, groups=part.groups, n_bootstrap=resamples)
    if format == "json":
        typer.echo(json.dumps([_plain(row) for row in report.rows()], indent=1))
    else:
        typer.echo(f"{report.n_images} images of {Path(data).name}\n\n{report.to_markdown()}")


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row for JSON, which has no NaN."""
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}
