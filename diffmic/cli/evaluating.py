"""``diffmic evaluate`` and ``diffmic calibrate``: a model on labelled images."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

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
    OutModel,
    SkipDamaged,
    chosen_part,
    inspected,
    load,
    name_of,
    read_data,
)
from .messages import say, show

if TYPE_CHECKING:
    from ..classifier import DiffMICClassifier
    from ..image_table import LabelledTable

_UNSEEN = (
    "The figures hold for new images only if the model was trained on none of these, and on no "
    "others of the same patients."
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
    skip_damaged: SkipDamaged = False,
    group: Group = None,
    image: ImageColumn = "file",
    label: LabelColumn = "label",
    folder: ImageFolder = None,
    levels: Levels = "auto",
) -> None:
    """Measure a model on labelled images: prior, diffusion, and diffusion alone, with intervals.

    The images must be others than those of the training, or the figures flatter. Those of its test
    part are in the folder of the model (README.md, report.html).

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
    part = _readable(part, clf, skip=skip_damaged)
    _point_out_known(clf, data, part)
    with _skipping_advised():
        report = clf.evaluate(part, groups=part.groups, n_bootstrap=resamples)
    if format == "json":
        typer.echo(json.dumps([_plain(row) for row in report.rows()], indent=1))
    else:
        heading = f"{report.n_images} images of {name_of(data)}"
        show(f"{heading}\n\n{report.to_markdown()}\n\n{_UNSEEN}")


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
    skip_damaged: SkipDamaged = False,
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
    clf = load(model, device)
    table = _readable(table, clf, skip=skip_damaged)
    _point_out_known(clf, data, table)
    table = changed(table, splits=None)
    with _skipping_advised():
        clf.calibrate(
            table, groups=table.groups, aim=aim, sensitivity=sensitivity, specificity=specificity
        )
    clf.save_pretrained(out)
    record = clf.recalibration_
    assert record is not None  # just made
    typer.echo(
        f"negative log-likelihood on {record.n_images} images of {name_of(data)}, before → after "
        "(smaller is better)"
    )
    for stage, after in record.nll_after.items():
        typer.echo(f"{stage.replace('_', ' ')}: {record.nll_before[stage]:.3f} → {after:.3f}")
    say(f"saved {out}")


def _readable(table: "LabelledTable", clf: "DiffMICClassifier", *, skip: bool) -> "LabelledTable":
    """The table, if asked for without the images that cannot be read, of which is told."""
    if not skip:
        return table
    from .planning import without_damaged

    found = inspected(table, value_range=clf.value_range)
    for reason in found.damaged.values():
        say(reason)
    kept, _ = without_damaged(table, found, skip=True)
    if not len(kept):
        raise InputError(f"None of the {len(table)} images can be read.")
    if found.damaged:
        say(f"{len(found.damaged)} of {len(table)} images cannot be read and are left out.")
    return kept


@contextmanager
def _skipping_advised() -> Iterator[None]:
    """Errors of a file's image with the option that leaves it out."""
    try:
        yield
    except InputError as reason:
        if str(reason).startswith("The file "):
            reason.add_note("--skip-damaged leaves out images that cannot be read.")
        raise


def _point_out_known(clf: "DiffMICClassifier", data: str, part: "LabelledTable") -> None:
    """Tell that the model may know images: it was trained on data of this name.

    No more than the name is kept of the images of a training. Splits of the data's own that are
    called test were left out of it.
    """
    if clf.card_.dataset != name_of(data):
        return
    from .planning import NAMES

    splits = set() if part.splits is None else {s.casefold() for s in part.splits.tolist()}
    if not splits or splits - NAMES["test"]:
        say(
            f"warning: the model was trained on data named {name_of(data)!r}. If these are the "
            "same, most of the images are those it learnt from, and measures on them flatter."
        )


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row for JSON, which has no NaN."""
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}
