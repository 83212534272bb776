"""Whether doubt is worth something: risk–coverage, images that do not belong, prediction sets.

python benchmarks/trust.py run --data FOLDER     the models of package and zoo, validation parts
python benchmarks/trust.py table                 what came of it
"""

import csv
import datetime
import platform
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from accuracy_bench.results import read
from trust_bench.measures import (
    coverages,
    cross_fitted,
    doubts,
    risks,
    strangeness,
    with_reference,
)
from trust_bench.readings import MODELS, N_DRAWS, own_images, reading_of, strange_images

from diffmic import DiffMICClassifier

RESULTS = Path(__file__).parent / "results" / "trust.csv"
COLUMNS = (
    *("set", "question", "what", "group", "measure", "value", "low", "high", "inside"),
    *("mean_size", "worst_class", "n_images", "n_strange", "n_draws", "versions", "processor"),
    *("threads", "date"),
)
app = typer.Typer(add_completion=False, help=__doc__)
File = Annotated[Path, typer.Option(help="CSV file of the results.")]


@app.command()
def run(
    data: Annotated[Path, typer.Option(help="Folder with the data sets.")],
    sets: Annotated[list[str], typer.Option(help="Names of data sets.")] = ["aptos", "busi"],  # noqa: B006
    results: File = RESULTS,
) -> None:
    """Read the validation part of each set, and replace its rows."""
    for name in sets:
        if name not in MODELS:
            raise typer.BadParameter(f"There is no model of {name!r}; there are {list(MODELS)}.")
        new = [_told(name) | row for row in rows_of(name, data)]
        kept = [row for row in read(results) if row["set"] != name]
        with results.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, COLUMNS, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows([*kept, *new])
        print(f"{name}: {len(new)} rows", flush=True)


def rows_of(name: str, data: Path) -> Iterator[dict[str, Any]]:
    """All that is measured on one set."""
    clf = DiffMICClassifier.from_pretrained(MODELS[name], device="cpu")
    gray = clf.channels_ == 1
    images, labels = own_images(name, data, gray)
    reading = reading_of(clf, images)
    model = with_reference(clf.model_, reading)
    own = cross_fitted(model, reading, doubts(model, reading))
    same: dict[str, Any] = {"n_images": len(images)}
    for row in risks(model, own, labels):
        yield same | {"question": "risk"} | _rounded(row)
    for row in coverages(model, own, labels):
        yield same | {"question": "sets"} | _rounded(row)
    for group, others in strange_images(name, data, gray, images):
        found = doubts(model, reading_of(clf, others))
        for row in strangeness(own, found):
            told = {"question": "strange", "group": group, "n_strange": len(others)}
            yield same | told | _rounded(row)


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {k: v if isinstance(v, str) else round(float(v), 4) for k, v in row.items()}


def _told(name: str) -> dict[str, Any]:
    packages = ("diffmic", "torch", "timm", "mapie")
    return {
        "set": name,
        "n_draws": N_DRAWS,
        "versions": " ".join(f"{package}={version(package)}" for package in packages),
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "date": datetime.date.today().isoformat(),
    }


@app.command()
def table(results: File = RESULTS) -> None:
    """Print the results as Markdown."""
    rows = read(results)
    for question in ("risk", "strange", "sets"):
        for name in dict.fromkeys(row["set"] for row in rows):
            of = [row for row in rows if row["question"] == question and row["set"] == name]
            if not of:
                continue
            print(f"\n{name}, {question}, {of[0]['n_images']} images\n")
            if question == "strange":
                groups = list(dict.fromkeys(row["group"] for row in of))
                print(f"| measure | {' | '.join(groups)} |\n|---{'|---' * len(groups)}|")
                for measure in dict.fromkeys(row["measure"] for row in of):
                    values = [row["value"] for row in of if row["measure"] == measure]
                    print(f"| {measure} | {' | '.join(f'{float(v):.3f}' for v in values)} |")
                continue
            names = ("what", "group", "measure", "value", "low", "high")
            names += ("inside", "mean_size", "worst_class") if question == "sets" else ()
            print(f"| {' | '.join(names)} |\n{'|---' * len(names)}|")
            for row in of:
                print(f"| {' | '.join(row[column] for column in names)} |")


if __name__ == "__main__":
    app()
