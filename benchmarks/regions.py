"""Regions: whether they lie on what decides, on images where that is known.

    python benchmarks/regions.py signs                 generated images, sizes from 96 to 512 pixels
    python benchmarks/regions.py zoom                  signs that are lost in the small image
    python benchmarks/regions.py busi --data FOLDER    ultrasound images with masks of the lesions
    python benchmarks/regions.py reasons               probabilities without what is shown
    python benchmarks/regions.py price                 what a prediction with a zoom costs
    python benchmarks/regions.py table                 what came of it

All but ``price`` and ``table`` add rows to CSV files. What is measured is of images that were not
trained on.
"""

import csv
import time
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import timm
import torch
import typer
from PIL import Image
from regions_bench.hits import FORMS, Hits, LearnedImportance, chosen_by, disc_masks, hits, only
from regions_bench.reasons import by_attention, perturbed, random_boxes, similarity_to_random
from speed_bench.timing import race, ratio

from diffmic import DiffMICClassifier
from diffmic.datasets import make_lesions, read_csv
from diffmic.model import Architecture
from diffmic.training import Recipe

RESULTS = Path(__file__).parent / "results" / "regions.csv"
REASONS = RESULTS.with_name("reasons.csv")
FURTHER = RESULTS.with_name("zoom.csv")
FIELDS = (
    *("data", "image_size", "radius", "healthy", "backbone", "epochs", "batch_size"),
    *("images", "seed"),
    *("trained_with", "region_map", "regions", "chosen_by"),
    *("prior", "global", "local", "diffusion", *Hits.__dataclass_fields__, "seconds"),
)
LARGEST_WHOLE = 2048  # pixels; larger images need many GB in a pass
app = typer.Typer(add_completion=False, help=__doc__)
File = Annotated[Path, typer.Option(help="CSV file of the results.")]


@app.command()
def signs(
    image_size: int = 224,
    radius: Annotated[float, typer.Option(help="Fraction of the image side.")] = 0.075,
    healthy: bool = True,
    backbone: str = "tf_efficientnet_lite0",
    epochs: int = 5,
    images: int = 450,
    seed: int = 0,
    importance: str = "fused",
    region_map: str = "upsampled",
    file: File = RESULTS,
) -> None:
    """Train on generated signs, and look where the regions of other images lie."""
    architecture = Architecture(
        region_importance=importance,  # type: ignore[arg-type]
        region_map=region_map,  # type: ignore[arg-type]
    )
    _generated(
        architecture, image_size, image_size, radius, healthy, backbone, epochs, images, seed, file
    )


@app.command()
def zoom(
    image_size: int = 1024,
    radius: float = 0.005,
    healthy: bool = True,
    backbone: str = "tf_efficientnet_lite0",
    epochs: int = 12,
    images: int = 450,
    seed: int = 0,
    importance: str = "fused",
    regions: Annotated[
        str,
        typer.Option(help="zoom; windows of the image at 224 pixels; whole: windows at full size."),
    ] = "zoom",
    batch_size: int = 32,
    checkpoints: Annotated[
        Path | None, typer.Option(help="Folder from which a fit that was stopped goes on.")
    ] = None,
    further: Annotated[
        int, typer.Option(help=f"Draws of 60 further images, of which {FURTHER.name} tells.")
    ] = 0,
    file: File = RESULTS,
) -> None:
    """Train on signs of 4 to 6 pixels' radius in images that the backbone sees at 224 pixels."""
    whole = regions == "whole"
    architecture = Architecture(
        region_importance=importance,  # type: ignore[arg-type]
        regions="windows" if whole else regions,  # type: ignore[arg-type]
    )
    size = image_size if whole else 224
    _generated(
        architecture,
        *(image_size, size, radius, healthy, backbone, epochs, images, seed, file, 0.04),
        whole=whole,
        batch_size=batch_size,
        checkpoints=checkpoints,
        further=further,
    )


@app.command()
def reasons(
    image_size: int = 224,
    radius: float = 0.075,
    backbone: str = "tf_efficientnet_lite0",
    epochs: int = 5,
    images: int = 450,
    seed: int = 0,
    n_random: Annotated[int, typer.Option(help="Draws of random regions.")] = 3,
    file: File = REASONS,
) -> None:
    """Deletion and insertion of regions against random ones; maps of weights drawn anew."""
    settings: dict[str, Any] = {"image_size": image_size, "radius": radius}
    X, y = make_lesions(images, random_state=2 * seed, **settings)
    X_test, y_test = make_lesions(180, random_state=2 * seed + 1, **settings)
    start = time.perf_counter()
    model = DiffMICClassifier(
        backbone=backbone,
        pretrained=backbone == "tf_efficientnet_lite0",
        image_size=image_size,
        max_epochs=epochs,
        random_state=seed,
        device="cpu",
        verbose=0,
    ).fit(X, y)
    described = {
        **{"image_size": image_size, "radius": radius, "backbone": backbone, "epochs": epochs},
        **{"images": images, "seed": seed, "seconds": round(time.perf_counter() - start)},
    }
    sick = y_test > 0  # what decides is a place in these alone
    pictures, numbers = X_test[sick], np.searchsorted(model.classes_, y_test[sick])
    found = model.explain(pictures)
    boxes = by_attention(found.boxes, found.attention)
    rng = np.random.RandomState(seed)
    rows = {"regions": perturbed(model, pictures, numbers, boxes)}
    for draw in range(n_random):
        drawn = random_boxes(boxes, image_size, rng)
        rows[f"random {draw}"] = perturbed(model, pictures, numbers, drawn)
    for what, (deletion, insertion) in rows.items():
        measured = {"deletion": round(deletion, 4), "insertion": round(insertion, 4)}
        _write({**described, "what": what, **measured, "correlation": ""}, file)
    for share, value in similarity_to_random(model, pictures).items():
        what = f"heads and {share:.0%} of the layers drawn anew"
        measured = {"deletion": "", "insertion": "", "correlation": round(value, 4)}
        _write({**described, "what": what, **measured}, file)


def _generated(
    architecture: Architecture,
    image_size: int,
    input_size: int,
    radius: float,
    healthy: bool,
    backbone: str,
    epochs: int,
    images: int,
    seed: int,
    file: Path,
    noise: float = 0.06,
    whole: bool = False,
    batch_size: int = 32,
    checkpoints: Path | None = None,
    further: int = 0,
) -> None:
    settings: dict[str, Any] = {
        **{"image_size": image_size, "radius": radius, "healthy": healthy},
        **{"noise": noise, "return_centers": True},
    }
    X, y, _ = make_lesions(images, random_state=2 * seed, **settings)
    X_test, y_test, centers = make_lesions(180, random_state=2 * seed + 1, **settings)
    start = time.perf_counter()
    model = DiffMICClassifier(
        backbone=backbone,
        pretrained=backbone == "tf_efficientnet_lite0",
        architecture=architecture,
        image_size=input_size,
        max_epochs=epochs,
        batch_size=batch_size,
        checkpoint_dir=checkpoints,
        random_state=seed,
        device="cpu",
    ).fit(X, y, resume=checkpoints is not None)
    described = {
        **{"data": "signs", "image_size": image_size, "radius": radius, "healthy": healthy},
        **{"backbone": backbone, "epochs": epochs, "batch_size": batch_size},
        **{"images": images, "seed": seed, "seconds": round(time.perf_counter() - start)},
    }
    sick = y_test > 0
    masks = disc_masks(centers[sick], radius * image_size, image_size)
    if whole:  # a prediction takes most of a second: other forms are not compared
        described["regions"] = "whole"
    learned = None if whole else LearnedImportance.fit(model, X, y)
    _compare(model, learned, X_test, y_test, sick, masks, described, file)
    right = {"prior": 0, "diffusion": 0}
    for draw in range(further):
        X, y, _ = make_lesions(60, random_state=1000 + draw, **settings)
        for stage in right:
            found = model.predict_proba(X, stage=stage).argmax(axis=1)
            right[stage] += int((model.classes_[found] == y).sum())
    if further:
        regions = described.get("regions", architecture.regions)
        described = {"regions": regions, **described, "new_images": 60 * further}
        _write({**described, **right}, file.with_name(FURTHER.name))


@app.command()
def busi(
    data: Annotated[Path, typer.Option(help="Folder with the data sets.")],
    image_size: int = 160,
    epochs: int = 12,
    seed: int = 0,
    importance: str = "fused",
    region_map: str = "upsampled",
    regions: str = "windows",
    file: File = RESULTS,
) -> None:
    """Train on ultrasound images, and compare regions with masks of the lesions (validation)."""
    folder = data / "busi_ultrasound"
    table = read_csv(folder / "labels.csv")
    paths, labels = np.array([str(path) for path in table.paths]), np.asarray(table.labels)
    part = {name: np.asarray(table.splits) == name for name in ("train", "val")}
    trained_on = paths[part["train"]].tolist()
    start = time.perf_counter()
    model = DiffMICClassifier(
        architecture=Architecture(
            region_importance=importance,  # type: ignore[arg-type]
            region_map=region_map,  # type: ignore[arg-type]
            regions=regions,  # type: ignore[arg-type]
        ),
        image_size=image_size,
        max_epochs=epochs,
        random_state=seed,
        device="cpu",
    ).fit(
        trained_on,
        labels[part["train"]],
        validation_data=(paths[part["val"]].tolist(), labels[part["val"]]),
    )
    shown, truth = paths[part["val"]], labels[part["val"]]
    files = [folder / "masks" / (Path(path).stem + ".png") for path in shown]
    with_mask = np.array([file.exists() for file in files])
    masks = [_mask(file) for file in files if file.exists()]
    drawn = np.array([mask.any() for mask in masks])
    with_mask[with_mask] = drawn
    described = {
        **{"data": "busi", "image_size": image_size, "backbone": "tf_efficientnet_lite0"},
        **{"epochs": epochs, "batch_size": model.batch_size},
        **{"images": int(part["train"].sum()), "seed": seed},
        "seconds": round(time.perf_counter() - start),
    }
    kept = [mask for mask, some in zip(masks, drawn, strict=True) if some]
    learned = LearnedImportance.fit(model, trained_on, labels[part["train"]])
    _compare(model, learned, shown.tolist(), truth, with_mask, kept, described, file)


def _mask(file: Path) -> np.ndarray:  # type: ignore[type-arg]
    with Image.open(file) as image:
        found: np.ndarray = np.asarray(image.convert("L")) > 0  # type: ignore[type-arg]
        return found


def _compare(
    model: DiffMICClassifier,
    learned: LearnedImportance | None,
    X: Any,
    y: Any,
    sick: Any,
    masks: list[Any],
    described: dict[str, Any],
    file: Path,
) -> None:
    """Rows of a trained model: as it is, then with its regions chosen by other forms, if any."""
    architecture = model.model_.plan.architecture
    own = architecture.region_importance
    others = [form for form in FORMS if form != own] if learned is not None else []
    for form in (own, *others):
        with nullcontext() if learned is None else chosen_by(model, form, learned):
            found = model.explain(X)
            accuracies = {
                name: round(float((model.classes_[p.argmax(axis=1)] == y).mean()), 3)
                for name, p in (
                    ("prior", model.predict_proba(X, stage="prior")),
                    ("global", found.global_proba),
                    ("local", found.local_proba),
                    ("diffusion", model.predict_proba(X)),
                )
            }
        numbers = np.searchsorted(model.classes_, np.asarray(y)[sick])
        row = {
            **{"trained_with": own, "region_map": architecture.region_map},
            **{"regions": architecture.regions, "chosen_by": form},
            **described,
            **accuracies,
            **asdict(hits(only(found, sick), masks, numbers)),
        }
        print({key: row[key] for key in FIELDS[12:]}, flush=True)
        _write({key: row.get(key, "") for key in FIELDS}, file)


def _write(row: dict[str, Any], file: Path) -> None:
    new = not file.exists()
    with file.open("a", newline="") as opened:
        writer = csv.DictWriter(opened, list(row), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)


@app.command()
def price(
    sides: Annotated[tuple[int, int, int, int], typer.Option()] = (512, 1024, 2048, 4096),
    rounds: int = 7,
) -> None:
    """Predictions with a zoom, and whole images at full size, as multiples of timm's pass at 224.

    Untrained networks, gray pixels in memory. timm's pass at full size is left out above 2,048.
    """
    timm_pass = timm.create_model("tf_efficientnet_lite0", num_classes=3).eval()
    small = torch.rand(1, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    for side in sides:
        X, y = make_lesions(12, image_size=side, random_state=0)
        quick = Recipe(n_cached_views=0, denoiser_epochs=1)
        clf = DiffMICClassifier(
            pretrained=False,
            architecture="zoom",
            recipe=quick,
            image_size=224,
            max_epochs=1,
            validation_fraction=None,
            device="cpu",
            verbose=0,
        ).fit(X, y)
        whole = torch.rand(1, 3, min(side, LARGEST_WHOLE), min(side, LARGEST_WHOLE))
        whole = whole.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            runs = {
                "timm at 224": lambda: timm_pass(small),
                "zoom": lambda clf=clf, X=X: clf.predict_proba(X[:1]),
                "zoom, 8 images": lambda clf=clf, X=X: clf.predict_proba(X[:8]),
            }
            if side <= LARGEST_WHOLE:
                runs["timm at full size"] = lambda whole=whole: timm_pass(whole)
            seconds = race(runs, rounds)
        floor = seconds["timm at 224"]
        found = {name: round(ratio(values, floor), 2) for name, values in seconds.items()}
        found["zoom, 8 images"] = round(found["zoom, 8 images"] / 8, 2)
        print(side, clf.model_.input_size, found, flush=True)


@app.command()
def table(file: File = RESULTS) -> None:
    """Print the results: one row per trained network and form of importance."""
    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    print("| " + " | ".join(FIELDS) + " |")
    print("|" + "---|" * len(FIELDS))
    for row in rows:
        print("| " + " | ".join(row[name] for name in FIELDS) + " |")


if __name__ == "__main__":
    app()
