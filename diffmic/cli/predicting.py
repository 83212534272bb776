"""``diffmic predict``."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from ..named_files import Named
from .loading import Device, ModelArgument, StageOption, image_files, load, stage_of
from .messages import NOT_ALL, say, watched
from .writing import format_of, writer

if TYPE_CHECKING:
    from ..classifier import DiffMICClassifier
    from ..estimator.rows import Asked
    from ..inference import Stage

_TOLD = 1000  # unreadable files that are kept to be named; more are counted


def predict(
    model: ModelArgument,
    images: Annotated[
        list[str],
        typer.Argument(
            help="Files, folders, patterns such as `'scans/**/*.dcm'`; `-` reads paths from "
            "standard input."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="File: .csv, .jsonl or .parquet. Without it: standard output."
        ),
    ] = None,
    format: Annotated[  # the name of the option
        str | None, typer.Option(help="csv, jsonl or parquet, whatever the suffix.")
    ] = None,
    stage: StageOption = None,
    prevalence: Annotated[
        str | None,
        typer.Option(
            help="Class shares where the images come from: healthy=0.9,ill=0.1; or 0.9,0.1 in the "
            "order of the classes."
        ),
    ] = None,
    abstain: Annotated[
        float | None,
        typer.Option(help="Share of the images, the least certain, that get no decision."),
    ] = None,
    sets: Annotated[
        float | None,
        typer.Option(
            help="Coverage, such as 0.9, of a set of classes (column set) for each image; the "
            "model must be conformalized."
        ),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images in a batch.")] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read images.")] = 0,
    device: Device = "auto",
) -> None:
    """Predict the class of images, with calibrated probabilities.

    A row for each image: file, predicted, and p_CLASS for each class. Several labels in
    the column predicted have semicolons between them (multi-label). Images are read in
    batches, however many there are. Files that cannot be read have no row; they are told
    at the end, and the exit code is then 3. With --abstain, predicted is empty where there is
    no decision; multi-label has these labels in the column undecided.

    **Examples**

        diffmic predict diffmic-v2-aptos eye.jpg
        diffmic predict my-model scans/ --out predictions.csv
        diffmic predict my-model scans/ --prevalence healthy=0.95,ill=0.05 --abstain 0.1
        find . -name '*.dcm' -print0 | diffmic predict my-model - --format jsonl | head
    """
    kind = format_of(out, format)
    clf = load(model, device)
    if batch_size is not None:
        clf.set_params(batch_size=batch_size)
    clf.set_params(num_workers=workers)
    asked = asked_of(clf, stage_of(clf, stage), prevalence, abstain, sets)
    columns = ["file", "predicted", *asked.columns(clf)]
    columns += [f"p_{name}" for name in clf.class_names_]
    rows_seen = out is None and sys.stdout.isatty()  # they show how far it is
    named = _counted(image_files(images), images, rows_seen=rows_seen)
    faults: list[Named] = []
    done = failed = 0
    with writer(out, kind, columns) as write:
        # Each call starts the workers anew, so with workers it is given more images.
        size = clf.batch_size * (16 if workers else 1)
        while chunk := list(islice(named, size)):
            found = predicted(clf, chunk, asked)
            rows = [shown(row) for row in found if isinstance(row, dict)]
            wrong = [fault for fault in found if isinstance(fault, Named)]
            faults += wrong[: _TOLD - len(faults)]
            done, failed = done + len(rows), failed + len(wrong)
            write(rows)
    for fault in faults:
        say(f"{fault.name}: {fault.fault}")
    if failed > len(faults):
        say(f"… and {failed - len(faults)} more.")
    made = f"{done} predictions were made{'' if out is None else f', and written to {out}'}."
    if failed:
        say(f"{failed} of {done + failed} could not be read; {made}")
        raise typer.Exit(NOT_ALL)
    if out is not None:
        say(made)


def asked_of(
    clf: "DiffMICClassifier",
    stage: "Stage",
    prevalence: str | None,
    abstain: float | None,
    coverage: float | None,
) -> "Asked":
    """What is asked for, checked before any image is read."""
    from ..estimator.doubt import check_abstention, conformal_scores
    from ..estimator.populations import prevalence_of
    from ..estimator.rows import Asked

    given = None if prevalence is None else shares_in(prevalence)
    if abstain is not None:
        check_abstention(clf.model_, stage, abstain)
    if coverage is not None:
        if given is not None:
            raise InputError("--sets holds for the class shares of its images: omit --prevalence.")
        conformal_scores(clf.model_, stage, coverage)
    shares = prevalence_of(clf.model_, given, clf.class_names_)
    return Asked(stage, shares, abstain, coverage)


def shares_in(text: str) -> dict[str, float] | list[float]:
    """Class shares in a text such as healthy=0.9,ill=0.1 or 0.9,0.1, or in JSON."""
    try:
        if text.lstrip()[:1] in ("[", "{"):
            found: dict[str, float] | list[float] = json.loads(text)
            return found
        parts = [part.rpartition("=") for part in text.split(",")]
        if all(part[1] for part in parts):
            named = {name.strip(): float(value) for name, _, value in parts}
            if len(named) == len(parts):
                return named
        elif not any(part[1] for part in parts):
            return [float(value) for _, _, value in parts]
    except ValueError:
        pass
    raise InputError(
        f"--prevalence is {text!r}; give a share for each class, such as healthy=0.9,ill=0.1 or "
        "0.9,0.1 (names with commas: in JSON)."
    )


def predicted(
    clf: "DiffMICClassifier", chunk: Sequence[Named], asked: "Asked"
) -> list[dict[str, Any] | Named]:
    """Row of each image of a chunk, or what is wrong with it, in their order."""
    from ..estimator.rows import rows_or_faults

    good = [named.name for named in chunk if not named.fault]
    found = iter(rows_or_faults(clf, good, good, asked))
    rows: list[dict[str, Any] | Named] = []
    for named in chunk:
        row = named.fault or next(found)
        rows.append(Named(named.name, row) if isinstance(row, str) else row)
    return rows


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """A row whose probabilities have seven digits, as people and text files want them."""
    return {k: float(f"{v:.7g}") if isinstance(v, float) else v for k, v in row.items()}


def _counted(
    named: Iterable[Named], arguments: Sequence[str], *, rows_seen: bool
) -> Iterator[Named]:
    """The files, with progress where it can be seen; a list on standard input has no known end."""
    if not watched() or rows_seen:
        return iter(named)
    from ..logs import bar

    if "-" not in arguments:
        named = list(named)
    return iter(bar(named, desc="predicting", unit="image", leave=False))
