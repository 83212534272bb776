"""``diffmic models`` and ``diffmic models get``."""

import json
from pathlib import Path
from typing import Annotated

import typer

from .app import say

models = typer.Typer(invoke_without_command=True, rich_markup_mode="markdown")


@models.callback()
def listed(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Write an object of JSON.")] = False,
) -> None:
    """List the models that have a short name, and where their weights are.

    **Examples**

        diffmic models
        diffmic models --json | jq 'keys'
        diffmic models get my-group/breast-ultrasound --out breast
    """
    if context.invoked_subcommand is not None:
        return
    from ..published import REGISTRY, list_pretrained

    at_hand = list_pretrained()
    told = {
        name: at_hand.get(
            name,
            f"{entry.summary} Not published: in a checkout of diffmic's repository, load "
            f"zoo/models/{name}.",
        )
        for name, entry in REGISTRY.items()
    }
    if as_json:
        found = {name: {"summary": t, "at_hand": name in at_hand} for name, t in told.items()}
        typer.echo(json.dumps(found, indent=2))
        return
    width = max(map(len, told))
    for name, text in told.items():
        typer.echo(f"{name:<{width}}  {text}")


@models.command()
def get(
    name: Annotated[str, typer.Argument(help="Short name, or org/name on the Hugging Face Hub.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder to copy it to; without it, it stays in a cache."),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.")] = None,
) -> None:
    """Get a model, check its files, and print the folder in which it is.

    It is downloaded from the Hugging Face Hub once, unless it comes with diffmic. The
    weights are compared with the checksum of its configuration, and for a short name with
    that of this version of diffmic.

    **Examples**

        diffmic models get my-group/breast-ultrasound
        diffmic models get my-group/breast-ultrasound --out breast --revision v2
        diffmic models get diffmic-v2-aptos --out aptos
    """
    from ..hub import get_model

    folder = get_model(name, out, revision=revision)
    say("not a medical device.")
    typer.echo(str(folder))
