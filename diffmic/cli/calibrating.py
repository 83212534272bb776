"""``diffmic calibrate``."""

from pathlib import Path
from typing import Annotated

import typer

from .loading import (
    DataArgument,
    Device,
    Group,
    ImageColumn,
    ImageFolder,
    LabelColumn,
    Levels,
    ModelArgument,
    OutModel,
    chosen_part,
    load,
    read_data,
)


def calibrate(
    model: ModelArgument,
    data: DataArgument,
    out: OutModel,
    split: Annotated[str | None, typer.Option(help="Split to calibrate on.")] = None,
    aim: Annotated[str | None, typer.Option(help="Of thresholds: f1 or youden.")] = None,
    sensitivity: Annotated[
        float | None, typer.Option(min=0, max=1, help="Least sensitivity, for thresholds.")
    ] = None,
    specificity: Annotated[
        float | None, typer.Option(min=0, max=1, help="Least specificity, for thresholds.")
    ] = None,
    device: Device = "auto",
    group: Group = None,
    image: ImageColumn = "file",
    label: LabelColumn = "label",
    folder: ImageFolder = None,
    levels: Levels = "auto",
) -> None:
    """Refit the probabilities of a model on labelled images of your own, without training.

    The images must be others than those of the training. The model is saved anew in `--out`;
    the comparison by mean negative log-likelihood is cross-fitted.

    **Examples**

        diffmic calibrate diffmic-v2-aptos ours.csv --group patient --out ours
        diffmic calibrate my-model ours.csv --sensitivity 0.95 --out ours
    """
    from ..hub.target import save_target
    from .planning import changed

    save_target(out)
    table = read_data(data, image=image, label=label, group=group, folder=folder, levels=levels)
    if split is not None or table.splits is not None:
        table = chosen_part(table, split)
    table = changed(table, splits=None)
    clf = load(model, device)
    clf.calibrate(
        table, groups=table.groups, aim=aim, sensitivity=sensitivity, specificity=specificity
    )
    clf.save_pretrained(out)
    record = clf.recalibration_
    assert record is not None  # just made
    typer.echo(f"negative log-likelihood on {record.n_images} images of {Path(data).name}")
    for stage, after in record.nll_after.items():
        typer.echo(f"{stage.replace('_', ' ')}: {record.nll_before[stage]:.3f} → {after:.3f}")
    typer.echo(f"diffmic: saved {out}", err=True)
