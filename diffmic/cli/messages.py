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
                # Once, although each batch has its own numbers.
                if (cause := re.sub(r"\d+", "0", str(message))) not in said:
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
    typer.echo(f"diffmic: {text}", err=True)


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
