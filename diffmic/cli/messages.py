"""What all commands share: errors and warnings as lines on standard error, exit codes, progress."""

import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from ..errors import DiffMICError, DiffMICWarning

# What messages of the library advise in Python, and what does the same in a command.
_ADVICE = {
    "DiffMICClassifier(on_error='skip') leaves them out": "'diffmic train --skip-damaged' leaves "
    "them out",
    "fit(X, y, groups=inspection.groups) keeps them together": "'diffmic train' keeps them "
    "together",
    "or split by inspection.groups": "or leave the splits out: 'diffmic train' then keeps copies "
    "together",
    "diffmic.datasets.inspect(X, y, groups=groups) shows": "'diffmic inspect' shows",
    "diffmic.datasets.inspect(X) lists": "'diffmic inspect' lists",
    "Pass validation_data, or validation_fraction=None for no validation part": "Add images, or "
    "give the data a split val",
    "See validation_scores_, which is cross-fitted; predict_proba(X, stage='prior') gives": "See "
    "'diffmic info', whose figures are cross-fitted; 'diffmic predict --stage prior' gives",
    "clf.calibrate(X, y) on labelled images makes": "'diffmic calibrate' on labelled images makes",
    "predict_set needs": "--sets needs",
    "call conformalize(X, y) with them first": "in Python, call conformalize(X, y) with them and "
    "save the model",
    "Pass DiffMICClassifier(checkpoint_dir=...)": "Give --checkpoint-dir",
    ", or pass download=True, which needs `pip install medmnist`": "",
    "pretrained=False trains": "--from-scratch trains",
    "resume=True goes": "--resume goes",
    # Of reading images: in a command, arrays are .npy files.
    "Choose those that matter, and pass them as arrays, or as .npy files:": "Choose those that "
    "matter, and save them in Python as .npy files:",
    "Load it and choose the slices that matter:": "Load it in Python, and save the slices that "
    "matter as .npy files:",
    "X = [volume[..., k] for k in slices]": "numpy.save(f'{k}.npy', volume[..., k])  # for each k",
    "and pass the array": "and save the array as .npy, by numpy.save",
    "and pass arrays of uint16": "and save arrays of uint16 as .npy, by numpy.save",
    "or pass arrays": "or save arrays as .npy, by numpy.save",
    "Pass an array of it": "Save an array of it as .npy, by numpy.save",
    "Pass the array of": "Save as .npy, by numpy.save, the array of",
    "of an .npz file pass an array": "of an .npz file save an array as .npy",
    "pass each slice": "save each slice",
    "pass them without Normalize": "save them without normalising",
    "pass them as uint8": "save them as uint8",
    "Pass images with the values that the model was fitted on, or fit with another value_range": ""
    "Give images with the values that the model was fitted on, or train with another --value-range",
    "value_range is ": "--value-range is ",
    "as (low, high), with low below high, or None": "as two numbers, low below high",
    "value_range does not": "--value-range does not",
    "Pass the frame that matters as an image of its own, for example with "
    "PIL.ImageSequence": "Save the frame that matters as an image of its own",
    ", for example with Image.convert('RGB')": "",
    "Pass a list of its files; diffmic.datasets.read_folders reads a folder for each class": "Name "
    "its files",
    ", and pass its path or its bytes": "",
    ". If it is a path in bytes, decode it: os.fsdecode(path)": "",
    "Install pillow-heif and call pillow_heif.register_heif_opener(), or convert": "Convert",
    "Warnings are errors here: raise PIL.Image.MAX_IMAGE_PIXELS": "Reduce it",
    ", or, if you trust it, raise PIL.Image.MAX_IMAGE_PIXELS (None: no limit)": "",
    # Of reading folders and tables.
    "choose what it means: uncertain='unknown', 'positive' or 'negative'. If it stands for absent, "
    "pass y > 0": "write what it means into its cell: nothing for unknown, 1 or 0",
    "Leave them out with exclude='*_mask*'": "Move the masks into another folder",
    ", or leave it out with exclude=": "",
    "; if it is a name, pass na_values=()": "",
    ", or give its encoding, such as encoding='latin-1'": "",
    "or name the labels that you want: labels=[...]": "or name the column of labels: label=",
}
_PARAMETER = re.compile(  # not in a path, as of data/label=1/x.png
    r"(?<![\w/\\'])(pass )?(backbone|folder|group|image|label|levels|task|time_limit)=(?=['\d, .])"
)
_RANGE = re.compile(
    r"(?<![\w/\\'])(?:([Ff])it with DiffMICClassifier\()?value_range=\((\S+), ([^\s)]+)\)\)?"
)
_INTERVAL = re.compile(r" (\(\S+ to \S+\))$")

FAILED, NOT_ALL, INTERRUPTED, NOBODY_READS = 1, 3, 130, 141


class Told(TyperGroup):
    """Commands whose errors are told as a line, instead of a traceback."""

    def invoke(self, ctx: Any) -> Any:
        with told():
            found = super().invoke(ctx)
            sys.stdout.flush()  # so that a closed pipe is noticed here
            return found


@contextmanager
def told() -> Iterator[None]:
    """Errors of this library and of the system as a line with an exit code; warnings as lines."""
    with warnings.catch_warnings():
        original, said = warnings.showwarning, set()

        def show(message: Any, category: Any, *place: Any, **more: Any) -> None:
            if issubclass(category, DiffMICWarning):
                # Once, although each batch has its own numbers and names.
                text = str(message).partition(" The first: ")[0]
                if (cause := re.sub(r"\d+", "0", text)) not in said:
                    said.add(cause)
                    say(f"warning: {message}")
            else:
                original(message, category, *place, **more)

        warnings.showwarning = show
        try:
            yield
        except BrokenPipeError as reason:  # as by `| head`: no fault
            _silence_stdout()
            raise typer.Exit(NOBODY_READS) from reason
        except KeyboardInterrupt as reason:
            say("interrupted." + "".join(f" {note}" for note in getattr(reason, "__notes__", ())))
            raise typer.Exit(INTERRUPTED) from reason
        except (DiffMICError, OSError) as reason:
            say(" ".join([str(reason), *getattr(reason, "__notes__", ())]))
            raise typer.Exit(FAILED) from reason


def say(text: str) -> None:
    """Tell people something on standard error."""
    typer.echo(f"diffmic: {in_commands(text)}", err=True)


def in_commands(text: str) -> str:
    """A message of the library, whose advice is to give options instead of Python's arguments."""
    for python, command in _ADVICE.items():
        text = text.replace(python, command)
    return _RANGE.sub(_range, _PARAMETER.sub(_option, text))


def _option(found: re.Match[str]) -> str:
    give, name = "give " if found[1] else "", found[2].replace("_", "-")
    return f"{give}--{name}{' ' if found.string[found.end()] not in ',. ' else ''}"


def _range(found: re.Match[str]) -> str:
    fit = {"f": "train with ", "F": "Train with ", None: ""}[found[1]]
    return f"{fit}--value-range {found[2]} {found[3]}"


def show(markdown: str) -> None:
    """Write Markdown to standard output; in a terminal, tables are drawn in its width."""
    if not sys.stdout.isatty():
        typer.echo(markdown)
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(markup=False, emoji=False, highlight=False)
    for block in markdown.split("\n\n"):
        if not block.startswith("| "):
            console.print(f"{block}\n")
            continue
        heading, _, *rows = (line[2:-2].split(" | ") for line in block.splitlines())
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for number, name in enumerate(heading):  # names of classes may be folded, figures not
            words = [*name.split(), *(w for row in rows if number for w in row[number].split())]
            least = max(map(len, words), default=0)
            table.add_column(Text(name), min_width=least, overflow="fold")
        for row in rows:
            table.add_row(*(Text(_INTERVAL.sub(r"\n\1", cell)) for cell in row))
        needed = sum(2 + (column.min_width or 0) for column in table.columns)
        if needed < console.width:
            console.print(table)
        else:  # it would be cut off
            typer.echo(f"{block}\n")


def watched() -> bool:
    """Whether standard error is a terminal, where progress can be shown."""
    return sys.stderr.isatty()


def _silence_stdout() -> None:
    """Send what is still to be written nowhere, so that Python's end does not complain of it."""
    with open(os.devnull, "w") as nowhere:
        try:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        except (OSError, ValueError, AttributeError):  # it is no file, as in tests
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115
