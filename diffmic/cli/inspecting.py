"""``diffmic inspect``."""

import json
from typing import Annotated

import typer

from .loading import (
    DataArgument,
    Group,
    ImageColumn,
    ImageFolder,
    LabelColumn,
    Levels,
    RangeOption,
    inspected,
    read_data,
)
from .messages import NOT_ALL


def inspect(
    data: DataArgument,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write an object of JSON instead of the table.")
    ] = False,
    strict: Annotated[
        bool, typer.Option(help="Exit code 3 if there are problems; --no-strict: 0.")
    ] = True,
    distance: Annotated[
        int, typer.Option(help="Bits in which look-alikes may differ; -1: not looked for.")
    ] = 14,
    group: Group = None,
    image: ImageColumn = "file",
    label: LabelColumn = "label",
    folder: ImageFolder = None,
    levels: Levels = "auto",
    value_range: RangeOption = None,
) -> None:
    """Look for faults in images and labels: damage, copies, leaks between splits, rare classes.

    Every image is read once. The exit code is 3 if there are problems.

    **Examples**

        diffmic inspect photos/
        diffmic inspect labels.csv --group patient
        diffmic inspect labels.csv --json | jq .problems
    """
    table = read_data(data, image=image, label=label, group=group, folder=folder, levels=levels)
    found = inspected(table, distance=distance, value_range=value_range)
    if as_json:
        what = {
            "images": len(found),
            "table": dict(found.rows()),
            "counts": found.counts,
            "problems": found.problems,
            "damaged": {found.names[n]: fault for n, fault in found.damaged.items()},
            "duplicates": [[found.names[n] for n in numbers] for numbers in found.duplicates],
            "conflicts": [[found.names[n] for n in numbers] for numbers in found.conflicts],
            "leaks": [[found.names[n] for n in numbers] for numbers in found.leaks],
        }
        typer.echo(json.dumps(what, indent=2, default=str))
    else:
        typer.echo(str(found))
    if found.problems and strict:
        raise typer.Exit(NOT_ALL)
