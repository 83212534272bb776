"""From data to a plan of the training: parts, image size, and an estimate of the time."""

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DiffMICError, InputError

if TYPE_CHECKING:
    from ..classifier import DiffMICClassifier
    from ..datasets import Inspection
    from ..image_table import LabelledTable

NAMES = {
    "train": {"train", "training"},
    "validation": {"val", "valid", "validation", "dev"},
    "test": {"test", "testing", "eval", "evaluation"},
}
_FEW, _SOME, _WORTH = 1, 3, 50  # batches of both rehearsals; batches of a fit that is worth them


@dataclass(frozen=True)
class Parts:
    """Training, validation and test part, and how they came about."""

    train: "LabelledTable"
    validation: "LabelledTable | None"  # None: the fit sets one aside itself
    test: "LabelledTable | None"
    told: str  # how the images were divided


def changed(table: "LabelledTable", **fields: Any) -> "LabelledTable":
    """The table with other fields; every kind of table is a dataclass."""
    made: LabelledTable = replace(table, **fields)  # type: ignore[type-var]
    return made


def without_damaged(
    table: "LabelledTable", found: "Inspection", *, skip: bool
) -> tuple["LabelledTable", NDArray[np.intp]]:
    """The table without images that cannot be read, and the indices of those that remain."""
    kept = np.setdiff1d(np.arange(len(table)), list(found.damaged))
    if not found.damaged:
        return table, kept
    if not skip:
        raise InputError(  # the inspection, which is shown, has told which, and why
            f"Nothing was trained: {len(found.damaged)} of {len(table)} images cannot be read. "
            "Mend or remove them, or leave them out by --skip-damaged."
        )
    marks = np.full(len(table), "damaged", dtype="<U7")
    marks[kept] = "kept"
    splits = None if table.splits is None else table.splits[kept]
    part = changed(table, splits=marks).part("kept")
    return changed(part, splits=splits), kept


def divided(
    table: "LabelledTable", groups: NDArray[np.intp], *, test: float, task: str, seed: int
) -> Parts:
    """Divide a table: by its own splits, or else at random, with groups kept together.

    ``groups`` are numbers (n,), alike for copies; ``test`` is the fraction of the images for the
    test part, if the data have none; 0: no test part.
    """
    alone = len(np.unique(groups)) == len(groups)
    table = changed(table, groups=None if alone else groups)
    kinds = np.full(len(table), "train", dtype="<U10")
    told = "no splits in the data"
    if table.splits is not None:
        names = np.unique(table.splits).tolist()
        found = {n: k for n in names for k, known in NAMES.items() if n.casefold() in known}
        if set(names) - set(found) or "train" not in found.values():
            raise InputError(f"The data have the splits {names}; needed are train, val and test.")
        kinds = np.asarray([found[name] for name in table.splits.tolist()], dtype="<U10")
        told = f"splits of the data: {', '.join(names)}"
    if "test" not in kinds and test:
        from ..data.splits import validation_split
        from ..data.targets import TargetEncoding

        free = np.flatnonzero(kinds == "train")
        encoding, targets = TargetEncoding.learn_and_encode(np.asarray(table.labels)[free], task)
        own = None if alone else groups[free]
        rng = np.random.RandomState(seed)
        held_out = validation_split(targets, test, rng, groups=own, task=encoding.task)[1]
        kinds[free[held_out]] = "test"
        told += f"; {test:.0%} drawn as test part"
        told += "" if alone else ", groups and copies kept together"
    marked = changed(table, splits=kinds)
    present = set(kinds.tolist())
    parts = {kind: marked.part(kind) if kind in present else None for kind in NAMES}
    assert parts["train"] is not None  # checked above
    return Parts(parts["train"], parts["validation"], parts["test"], told)


def image_size_for(found: "Inspection", backbone: str) -> int:
    """Side of the network's input, from the most frequent size of the images."""
    from ..model.backbone import default_image_size

    height, width = max(found.sizes, key=lambda size: found.sizes[size])
    return default_image_size(backbone, max(height, width))


def seconds_of_fit(clf: "DiffMICClassifier", train: "LabelledTable") -> float | None:
    """Time of a fit in which no stage stops early, by fits of one epoch on few images.

    Two fits, on one and on three batches, tell the cost of an image apart from that of building
    the network. None: the whole fit is so short that this would not be worth it, or so few images
    cannot be learnt from.
    """
    from ..training.recipe import resolve_recipe

    n = len(train)
    if n * clf.max_epochs < _WORTH * clf.batch_size or n < _SOME * clf.batch_size:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            few, some = (_rehearsed(clf, train, k * clf.batch_size) for k in (_FEW, _SOME))
    except DiffMICError:
        return None
    share = n / ((_SOME - _FEW) * clf.batch_size)
    prior, diffusion, rest = (
        max(0.0, b - a) * share for a, b in zip(few.values(), some.values(), strict=True)
    )
    epochs = resolve_recipe(clf.recipe).denoiser_epochs or clf.max_epochs
    if clf.recipe == "default":  # steps of cached features: no more with more images from here on
        diffusion = some["diffusion"]
    return clf.max_epochs * prior + epochs * diffusion + rest + few["rest"]


def _rehearsed(clf: "DiffMICClassifier", train: "LabelledTable", n: int) -> dict[str, float]:
    """Seconds of an epoch of each stage, and of the rest, for n images of all classes."""
    from sklearn.base import clone

    from ..training.recipe import resolve_recipe

    recipe = replace(resolve_recipe(clf.recipe), denoiser_epochs=1)
    trial = clone(clf).set_params(max_epochs=1, recipe=recipe, verbose=0)
    trial.set_params(checkpoint_dir=None, time_limit=None)
    marks = np.full(len(train), "rest", dtype="<U4")
    marks[_of_all_classes(np.asarray(train.labels), n)] = "few"
    part = changed(train, splits=marks, groups=None).part("few")
    started = time.perf_counter()
    trial.fit(part)
    whole = time.perf_counter() - started
    stages: Mapping[str, float] = {row["stage"]: row["seconds"] for row in trial.history_}
    prior, diffusion = stages.get("prior", 0.0), stages.get("diffusion", 0.0)
    return {"prior": prior, "diffusion": diffusion, "rest": whole - prior - diffusion}


def _of_all_classes(labels: NDArray[Any], n: int) -> NDArray[np.intp]:
    """Indices of n images: classes in turn; of a multi-label task at random."""
    order = np.random.RandomState(0).permutation(len(labels))
    if labels.ndim == 2:
        return order[:n]
    turns = np.empty(len(labels), dtype=np.intp)
    for label in np.unique(labels[order]):
        mine = np.flatnonzero(labels[order] == label)
        turns[mine] = np.arange(len(mine))
    return order[np.argsort(turns, kind="stable")[:n]]


def duration(seconds: float) -> str:
    """A time for people."""
    for unit, size in (("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"
