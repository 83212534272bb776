"""Reproduction: a preset of a paper on an official download, and what it measures on the test part.

    python benchmarks/reproduce.py paper-v2-aptos FOLDER --seed 0
    python benchmarks/reproduce.py paper-v1 FOLDER --data-set busi --steps 1 --steps 10

Each run adds a row for each stage and number of steps to a CSV file. Official splits are kept;
where there is none, 70 % of the images are for training, 10 % for validation, 20 % for the test,
drawn by the seed, stratified and by patient or lesion. The papers' own splits are not published.
Trained at the papers' size this takes days on a CPU: ``--denoiser-epochs`` shortens it, and the row
says so.
"""

import csv
import datetime
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from diffmic import DiffMICClassifier
from diffmic.datasets import (
    PublicDataset,
    inspect,
    read_aptos2019,
    read_busi,
    read_chestxray14,
    read_ham10000,
    read_idrid,
    read_isic2018,
)
from diffmic.training import resolve_recipe

RESULTS = Path(__file__).parent / "results" / "reproduction.csv"
# Reader of each data set, and up to which distance near copies must stay together; None: patients
# or lesions are known.
DATA_SETS: dict[str, tuple[Callable[..., PublicDataset], int | None]] = {
    "aptos": (read_aptos2019, 14),
    "busi": (read_busi, 40),
    "chestxray14": (partial(read_chestxray14, no_finding=True), None),
    "ham10000": (read_ham10000, None),
    "idrid": (read_idrid, 14),
    "isic2018": (read_isic2018, None),
}
COLUMNS = (
    *("preset", "data_set", "seed", "stage", "steps", "n_train", "n_val", "n_test", "accuracy"),
    *("label_accuracy", "balanced_accuracy", "macro_f1", "auc", "kappa", "nll", "brier", "ece"),
    *("fit_seconds", "max_epochs", "denoiser_epochs", "backbone", "device", "versions", "date"),
)
app = typer.Typer(add_completion=False, help=__doc__)


@app.command()
def run(
    preset: Annotated[str, typer.Argument(help="A preset; diffmic.list_presets() has all.")],
    folder: Annotated[Path, typer.Argument(help="Folder of the unpacked official download.")],
    data_set: Annotated[str, typer.Option(help="Data set; by default the preset's own.")] = "",
    seed: Annotated[int, typer.Option(help="Of the split and of the fit.")] = 0,
    steps: Annotated[list[int], typer.Option(help="Sampler steps; by default the preset's.")] = [],  # noqa: B006
    max_epochs: Annotated[int, typer.Option(help="Of the prior; 0: the preset's.")] = 0,
    denoiser_epochs: Annotated[int, typer.Option(help="0: the preset's.")] = 0,
    backbone: Annotated[str, typer.Option(help="In place of the preset's.")] = "",
    num_workers: Annotated[int, typer.Option(help="Processes that load images.")] = 0,
    on_error: Annotated[str, typer.Option(help="'skip' leaves out images not there.")] = "raise",
    results: Annotated[Path, typer.Option(help="CSV file of the results.")] = RESULTS,
) -> None:
    """Train a preset on the training part of a data set, and measure it on the test part."""
    name = data_set or preset.rpartition("-")[2]
    if name not in DATA_SETS:
        raise typer.BadParameter(
            f"There is no reader of {name!r}; give --data-set, one of {list(DATA_SETS)}."
        )
    parts = _parts(name, folder, seed, on_error)
    own: dict[str, Any] = {"random_state": seed, "num_workers": num_workers}
    own |= {"max_epochs": max_epochs} if max_epochs else {}
    own |= {"backbone": backbone} if backbone else {}
    clf = DiffMICClassifier.from_preset(preset, **own)
    if denoiser_epochs:
        recipe = replace(resolve_recipe(clf.recipe), denoiser_epochs=denoiser_epochs)
        clf.set_params(recipe=recipe)
    started = time.perf_counter()
    clf.fit(parts["train"], validation_data=parts["val"])
    record = {
        **{"preset": preset, "data_set": name, "seed": seed},
        **{f"n_{part}": len(images) for part, images in parts.items()},
        **{"fit_seconds": round(time.perf_counter() - started), "max_epochs": clf.max_epochs},
        **{"denoiser_epochs": resolve_recipe(clf.recipe).denoiser_epochs or clf.max_epochs},
        **{"backbone": clf.backbone, "device": _device(clf)},
        **{"date": datetime.date.today().isoformat()},
        "versions": " ".join(f"{p}={version(p)}" for p in ("diffmic", "torch", "timm")),
    }
    for number in steps or [clf.num_steps]:
        for stage, metrics in clf.evaluate(parts["test"], num_steps=number).items():
            _add(results, {**record, "stage": stage, "steps": number, **_rounded(metrics)})


def _parts(name: str, folder: Path, seed: int, on_error: str) -> dict[str, PublicDataset]:
    """Training, validation and test part of a data set."""
    reader, distance = DATA_SETS[name]
    data = reader(folder, on_error=on_error)
    found = set() if data.splits is None else set(data.splits.tolist())
    if not {"val", "test"} <= found:
        groups = None if distance is None else inspect(data, distance=distance).groups
        data = data.split(groups=groups, random_state=seed)
    typer.echo(str(data))
    return {part: data.part(part) for part in ("train", "val", "test")}


def _device(clf: DiffMICClassifier) -> str:
    device = clf.model_.device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _rounded(metrics: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in metrics.items() if name in COLUMNS}


def _add(results: Path, row: dict[str, Any]) -> None:
    new = not results.is_file()
    with results.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if new:
            writer.writeheader()
        writer.writerow(row)
    typer.echo(f"{row['stage']}, {row['steps']} steps: {row}")


if __name__ == "__main__":
    app()
