"""The command line: ``diffmic …``."""

from typing import Annotated

import typer

from .converting import convert
from .demonstration import demo
from .evaluating import calibrate, evaluate
from .explaining import explain
from .inspecting import inspect
from .messages import Told
from .models import export, info, models, push
from .predicting import predict
from .serving import page, serve
from .training import train

app = typer.Typer(
    cls=Told,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from .. import __version__

        typer.echo(f"diffmic {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Medical image classification by diffusion (DiffMIC-v2).

    Data go to standard output; progress, warnings and errors to standard error.

    **Begin with**

        diffmic demo                              # without any data
        diffmic inspect photos/                   # a folder per class
        diffmic train photos/ --out my-model      # model, card and report
        diffmic predict diffmic-v2-aptos eyes/    # a trained model

    **Exit codes**

    - 0: done
    - 1: an error, told in a line
    - 2: the command was not understood
    - 3: done, but some files could not be read, or the inspection found problems
    - 130: interrupted
    - 141: nobody reads the output any more
    """


_DATA, _MODEL, _OTHER = "Data and training", "A trained model", "Other"
app.command(rich_help_panel=_DATA)(inspect)
app.command(rich_help_panel=_DATA)(train)
app.command(rich_help_panel=_MODEL)(predict)
app.command(rich_help_panel=_MODEL)(evaluate)
app.command(rich_help_panel=_MODEL)(explain)
app.command("app", rich_help_panel=_MODEL)(page)
app.command(rich_help_panel=_MODEL)(calibrate)
app.command(rich_help_panel=_MODEL)(info)
app.add_typer(models, name="models", rich_help_panel=_MODEL)
app.command(rich_help_panel=_MODEL)(export)
app.command(rich_help_panel=_MODEL)(serve)
app.command(rich_help_panel=_MODEL)(push)
app.command(rich_help_panel=_OTHER)(demo)
app.command(rich_help_panel=_OTHER)(convert)
