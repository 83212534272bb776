"""Models, data and image files that commands are given, and the options that go with them."""

import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from ..errors import InputError
from ..named_files import Named, files_of
from .messages import in_commands, say, watched

if TYPE_CHECKING:
    from ..classifier import DiffMICClassifier
    from ..datasets import Inspection
    from ..image_table import LabelledTable
    from ..inference import Stage

ModelArgument = Annotated[
    str,
    typer.Argument(
        help="Folder of a saved model, a short name (see 'diffmic models'), or org/name on the "
        "Hugging Face Hub."
    ),
]
DataArgument = Annotated[
    str,
    typer.Argument(
        help="A folder with a folder per class, a CSV file with the columns file and label (or "
        "columns of 0 and 1), or a set of MedMNIST by name or file (.npz)."
    ),
]
OutModel = Annotated[Path, typer.Option("--out", "-o", help="Folder of the model.")]
StageOption = Annotated[
    str | None, typer.Option(help="diffusion, or prior: the probabilities before the diffusion.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, …")]
SkipDamaged = Annotated[
    bool, typer.Option("--skip-damaged", help="Leave out images that cannot be read.")
]
_OF_THE_DATA = "How the data are read"
Group = Annotated[
    str | None,
    typer.Option(
        help="CSV: column with the patient, whose images stay together.",
        rich_help_panel=_OF_THE_DATA,
    ),
]
ImageColumn = Annotated[
    str, typer.Option(help="CSV: column with the files.", rich_help_panel=_OF_THE_DATA)
]
LabelColumn = Annotated[
    str, typer.Option(help="CSV: column with the labels.", rich_help_panel=_OF_THE_DATA)
]
ImageFolder = Annotated[
    Path | None,
    typer.Option(
        help="CSV: folder that its paths are relative to; without it, that of the CSV.",
        rich_help_panel=_OF_THE_DATA,
    ),
]
Levels = Annotated[
    str,
    typer.Option(
        help="Folders: what they are from the top, such as label/group or split/label.",
        rich_help_panel=_OF_THE_DATA,
    ),
]
RangeOption = Annotated[
    tuple[float, float] | None,
    typer.Option(
        "--value-range",
        metavar="LOW HIGH",
        help="Pixel values of black and white, for floats and for more than 8 bits, such as "
        "-1000 400 for CT in Hounsfield units.",
        rich_help_panel=_OF_THE_DATA,
    ),
]
_OF_MEDMNIST = re.compile(r"([a-z]+)(?:_(28|64|128|224))?")


def load(model: str, device: str = "auto") -> "DiffMICClassifier":
    """A saved model, which shows progress where it can be seen."""
    from ..classifier import DiffMICClassifier

    clf = DiffMICClassifier.from_pretrained(model, device=device)
    return clf.set_params(verbose=int(watched()))


def stage_of(clf: "DiffMICClassifier", asked: str | None) -> "Stage":
    """The stage that was asked for; else the diffusion, or the prior of a model without one."""
    if asked is None:
        if clf.model_.main_stage == "prior":
            say("the model has no diffusion stage: these are the probabilities of its prior.")
        return clf.model_.main_stage
    if asked not in (trained := sorted(clf.model_.calibrations, reverse=True)):
        raise InputError(f"--stage is {asked!r}; the model has {' and '.join(trained)}.")
    return asked


def read_data(
    data: str,
    *,
    image: str = "file",
    label: str = "label",
    group: str | None = None,
    folder: Path | None = None,
    levels: str = "auto",
) -> "LabelledTable":
    """Images and labels: a folder per class, a CSV file, or a set of MedMNIST."""
    from .. import datasets

    path = Path(data).expanduser()
    if path.is_dir():
        return datasets.read_folders(path, levels=levels)
    named: Any = _OF_MEDMNIST.fullmatch((path.stem if path.suffix == ".npz" else data).lower())
    if named is not None and named[1] in datasets.MEDMNIST:
        place = path if path.suffix == ".npz" else None
        return datasets.read_medmnist(named[1], place, size=int(named[2] or 28))
    if path.is_file() and path.suffix != ".npz":
        return datasets.read_csv(path, image=image, label=label, group=group, folder=folder)
    if path.is_file():
        raise InputError(
            f"{data!r} is not named as a set of MedMNIST is, such as pneumoniamnist_64.npz. Arrays "
            "of your own are passed to fit in Python."
        )
    raise InputError(
        f"{data!r} is no folder, no file, and no set of MedMNIST "
        f"({', '.join(list(datasets.MEDMNIST)[:3])}, …)."
    )


def inspected(table: "LabelledTable", **how: Any) -> "Inspection":
    """Findings about images and labels, with what to do about them by a command."""
    from .. import datasets

    found = datasets.inspect(table, verbose=int(watched()), **how)
    return replace(found, problems=[in_commands(problem) for problem in found.problems])


def name_of(data: str) -> str:
    """Name of a data set for people: that of its folder or file."""
    return Path(os.path.abspath(Path(data).expanduser())).name


def chosen_part(table: "LabelledTable", split: str | None) -> "LabelledTable":
    """The split that was asked for, or else the test split; all images, if there are no splits."""
    if split is not None:
        return table.part(split)
    if table.splits is None or len(set(table.splits.tolist())) == 1:
        return table
    tests = sorted({s for s in table.splits.tolist() if s.casefold() in ("test", "testing")})
    if not tests:
        raise InputError(
            f"The data have the splits {sorted(set(table.splits.tolist()))}; choose one by --split."
        )
    return table.part(*tests)


def image_files(arguments: Iterable[str]) -> Iterator[Named]:
    """Image files that the arguments name, in their order; those of a folder are sorted.

    ``-`` is a list of paths on standard input, one a line, or with a null byte after each.
    """
    for argument in arguments:
        if argument == "-":
            for name in _listed(sys.stdin.buffer):
                yield from files_of(name)
        else:
            yield from files_of(argument)


def _listed(stream: BinaryIO) -> Iterator[str]:
    """Paths on a stream of bytes; names that are no UTF-8 are kept as they are."""
    first = stream.readline()
    if b"\0" in first:
        entries: Iterable[bytes] = (first + stream.read()).split(b"\0")
    else:
        entries = (line.rstrip(b"\r\n") for line in chain([first], stream))
    yield from (os.fsdecode(entry) for entry in entries if entry)
