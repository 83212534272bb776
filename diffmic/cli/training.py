"""``diffmic train``."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .loading import (
    DataArgument,
    Device,
    Group,
    ImageColumn,
    ImageFolder,
    LabelColumn,
    Levels,
    OutModel,
    RangeOption,
    SkipDamaged,
    inspected,
    name_of,
    read_data,
)
from .messages import say, show, watched

if TYPE_CHECKING:
    from ..classifier import DiffMICClassifier
    from ..datasets import Inspection
    from .planning import Parts

COMMAND_FILE, REPORT_FILE = "command.txt", "report.html"
_DEFAULT_BACKBONE = "tf_efficientnet_lite0"
_OF_ONE_RUN = ("data", "out", "checkpoint_dir", "resume", "dry_run", "estimate")


def train(
    context: typer.Context,
    data: DataArgument,
    out: OutModel,
    backbone: Annotated[str, typer.Option(help="Name of a timm model.")] = _DEFAULT_BACKBONE,
    from_scratch: Annotated[bool, typer.Option(help="No pretrained weights.")] = False,
    task: Annotated[str, typer.Option(help="auto, multiclass, multilabel or ordinal.")] = "auto",
    image_size: Annotated[
        int | None, typer.Option(min=1, help="Side in pixels; without it: that of most images.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="At most, in each stage.")] = 20,
    batch_size: Annotated[int, typer.Option(min=2, help="Images in a batch.")] = 32,
    learning_rate: Annotated[float, typer.Option(help="Peak, of stage one.")] = 1e-3,
    augment: Annotated[str, typer.Option(help="auto, rotations, … or none.")] = "auto",
    architecture: Annotated[str, typer.Option(help="default, zoom, paper-v2, …")] = "default",
    recipe: Annotated[str, typer.Option(help="default, paper-v2, …")] = "default",
    test: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share of a test part, if the data have none.")
    ] = 0.2,
    seed: Annotated[int, typer.Option(min=0, help="Of split and training.")] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read images.")] = 0,
    device: Device = "auto",
    skip_damaged: SkipDamaged = False,
    checkpoint_dir: Annotated[
        Path | None, typer.Option(help="Folder for checkpoints, to go on after a crash.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint, if there is one.")
    ] = False,
    time_limit: Annotated[
        float | None, typer.Option(help="Seconds within which the training ends.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan, and stop.")] = False,
    estimate: Annotated[
        bool, typer.Option(help="Measure a few batches, to estimate the time.")
    ] = True,
    group: Group = None,
    image: ImageColumn = "file",
    label: LabelColumn = "label",
    folder: ImageFolder = None,
    levels: Levels = "auto",
    value_range: RangeOption = None,
) -> None:
    """Train a model on your images, and report how good it is on a test part.

    The data are inspected first, and the plan that follows is shown. Images of one patient
    (`--group`) and copies stay in one part. The folder of the model then also holds report.html,
    with metrics, reliability, confusion and the worst mistakes, and command.txt, the command that
    trains it again.

    **Examples**

        diffmic train photos/ --out my-model
        diffmic train labels.csv --group patient --task ordinal --out my-model
        diffmic train pneumoniamnist_64.npz --out my-model --epochs 10 --dry-run
    """
    from ..classifier import DiffMICClassifier
    from ..hub.target import save_target
    from .planning import divided, duration, image_size_for, seconds_of_fit, without_damaged

    save_target(out)  # refused before the work
    table = read_data(data, image=image, label=label, group=group, folder=folder, levels=levels)
    found = inspected(table, value_range=value_range)
    typer.echo(f"{found}\n", err=True)
    table, kept = without_damaged(table, found, skip=skip_damaged)
    parts = divided(table, found.groups[kept], test=test, task=task, seed=seed)
    side = image_size or image_size_for(found, backbone)
    clf = DiffMICClassifier(
        backbone=backbone,
        pretrained=not from_scratch,
        architecture=architecture,
        recipe=recipe,
        task=task,
        image_size=side,
        max_epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        augment=None if augment == "none" else augment,
        value_range=value_range,
        random_state=seed,
        num_workers=workers,
        checkpoint_dir=checkpoint_dir,
        time_limit=time_limit,
        device=device,
        verbose=1 if watched() else 2,  # a bar, or lines that a file can hold
    )
    command = ["diffmic", "train", data, "--out", str(out)]
    for name, value in {**context.params, "image_size": side}.items():
        if name not in _OF_ONE_RUN and value is not None and value is not False:
            option = f"--{name.replace('_', '-')}"
            values = value if isinstance(value, tuple) else () if value is True else (value,)
            command += [option, *map(str, values)]
    plan = Plan(clf, parts, found, shlex.join(command))
    for name, text in plan.rows():
        typer.echo(f"{name:<12}{text}", err=True)
    seconds = seconds_of_fit(clf, parts.train) if estimate else None
    if seconds is not None:
        told = f"about {duration(seconds)} on this machine, if no stage stops early"
        typer.echo(f"{'time':<12}{told}", err=True)
    typer.echo("", err=True)
    if not dry_run:
        _fitted_and_saved(plan, name_of(data), out, resume=resume)


@dataclass(frozen=True)
class Plan:
    """What is to be trained: unfitted estimator, parts, findings, and the command."""

    clf: "DiffMICClassifier"
    parts: "Parts"
    found: "Inspection"
    command: str

    def rows(self) -> list[tuple[str, str]]:
        """The plan: a name and a text in each row."""
        clf, parts = self.clf, self.parts
        ranges = [f"{low:.5g} to {high:.5g} ({kind})" for kind, (_, low, high) in
                  self.found.pixels.items()]  # fmt: skip
        values = "; ".join(ranges)
        if clf.value_range is not None:
            low, high = clf.value_range
            values = f"black {low:g}, white {high:g}; as read: {values}"
        validation = f"{clf.validation_fraction:.0%} of the training part"
        if parts.validation is not None:
            validation = f"{len(parts.validation)} images"
        test = "none" if parts.test is None else f"{len(parts.test)} images"
        weights = "pretrained weights" if clf.pretrained else "random weights"
        grouped = []
        if (groups := parts.train.groups) is not None:
            grouped = [("groups", f"{len(set(groups.tolist()))} to learn from")]
        return [
            ("images", f"{len(parts.train)} to learn from; test: {test}; validation: {validation}"),
            ("split", parts.told),
            *grouped,
            ("classes", _classes(parts.train)),
            ("range", values),
            ("image size", f"{clf.image_size} × {clf.image_size} pixels"),
            ("backbone", f"{clf.backbone}, {weights}"),
            ("training", f"at most {clf.max_epochs} epochs a stage, batches of {clf.batch_size}"),
        ]


def _classes(table: Any) -> str:
    import numpy as np

    labels, names = np.asarray(table.labels), table.names or {}
    if labels.ndim == 2:
        counts = zip(table.label_names, (labels == 1).sum(axis=0).tolist(), strict=True)
        return "labels " + ", ".join(f"{name}: {count}" for name, count in counts)
    values, found = np.unique(labels, return_counts=True)
    pairs = zip(values.tolist(), found.tolist(), strict=True)
    return ", ".join(f"{names.get(value, value)}: {count}" for value, count in pairs)


def _fitted_and_saved(plan: Plan, name: str, out: Path, *, resume: bool) -> None:
    """Fit, save, evaluate on the test part, and write the report."""
    from ..hub import ModelCard

    clf, parts = plan.clf, plan.parts
    validation = parts.validation
    card = ModelCard(dataset=name, split=f"{parts.told}.")
    try:
        clf.fit(
            parts.train,
            groups=parts.train.groups if validation is None else None,
            validation_data=validation,
            resume=resume,
        )
    except BaseException:
        if "model_" in vars(clf):  # what was learnt is not lost
            clf.save_pretrained(out, card=card)
            say(f"what was learnt until then was saved in {str(out)!r}, without a report.")
        raise
    clf.save_pretrained(out, card=card)  # before the rest, which may fail
    (out.expanduser() / COMMAND_FILE).write_text(plan.command + "\n", encoding="utf-8")
    report = None
    if parts.test is not None:
        report = clf.evaluate(parts.test, groups=parts.test.groups)
        clf.save_pretrained(out, card=ModelCard(dataset=name, split=card.split, test_scores=report))
        show(f"{report.n_images} test images of {name}, one run\n\n{report.to_markdown()}\n")
    from .report import write_report

    file = out.expanduser() / REPORT_FILE
    pictures = write_report(file, clf, plan, report, name)
    if not pictures:
        say("the report has no pictures, which need matplotlib: pip install 'diffmic[plots]'.")
    say(f"saved {out}, with {REPORT_FILE} and {COMMAND_FILE}")
    say(f"to train it again: {plan.command}")
