"""What findings about images mean for training and measuring, and what to do about them."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ..conventions import some
from ..data import TargetEncoding
from ..data.ranges import ValueRange, nearly_black
from ..data.splits import validation_split
from ..errors import InputError
from ..tasks import MULTICLASS, MULTILABEL, Task
from .inspection import Inspection, Sets

_DARK = 1 / 8  # of the range: images that reach no further are nearly black
_FRACTION = 0.15  # of the images, which fit holds out unless told otherwise
_TOGETHER = "fit(X, y, groups=inspection.groups) keeps them together"


def problems_of(
    found: Inspection,
    labels: Sequence[Any],
    groups: Sequence[Any],
    uncertain: str = "error",
    value_range: ValueRange | None = None,
) -> list[str]:
    """Problems, most serious first.

    ``labels``, ``groups``: of each image, None if not known; ``uncertain``: what −1 means in rows;
    ``value_range``: range of pixel values that was given.
    """
    problems = []
    if found.damaged:
        problems.append(
            f"{len(found.damaged)} image(s) cannot be used ({_names(found, found.damaged)}). Mend "
            "or remove them; DiffMICClassifier(on_error='skip') leaves them out. The first: "
            f"{next(iter(found.damaged.values()))}"
        )
    if found.leaks:
        problems.append(
            f"{len(found.leaks)} set(s) of copies lie in several splits "
            f"({_sets(found, found.leaks, found.splits.tolist())}), so that measures on one are "
            "too good. Remove them from one side, or split by inspection.groups."
        )
    if found.shared_groups:
        problems.append(
            f"{len(found.shared_groups)} group(s) have images in several splits "
            f"({some(found.shared_groups)}), so that measures on one are too good. Split by group."
        )
    if found.conflicts:
        problems.append(
            f"{len(found.conflicts)} set(s) of copies have different labels "
            f"({_sets(found, found.conflicts, labels)}). Correct the labels, or remove the images."
        )
    if len(found.counts) == 1:
        problems += _copies(found)
    problems += _labels(found, labels, groups, uncertain)
    if found.blank:
        problems.append(
            f"{len(found.blank)} image(s) have a single shade ({_names(found, found.blank)}): "
            "there is nothing to see in them. Remove them, or look why they are blank."
        )
    for kind, (_, _, high) in found.pixels.items():
        white = 1.0 if "floats" in kind else 255.0
        dark = 0 < high < _DARK * white
        if dark and value_range is not None and "floats" in kind:
            problems.append(nearly_black(high, value_range))
        elif dark and "16 bits" not in kind:  # whose range fit finds
            problems.append(
                f"The largest pixel of all images ({kind}) is {high:.3g} of {white:g}, so they are "
                "nearly black. Divide them by their true maximum, to get floats in 0–1."
            )
    return problems


def in_order(labels: Iterable[Any]) -> list[Any]:
    """Labels in their own order, or in that of their texts if they cannot be compared."""
    found = list(labels)
    try:
        return sorted(found)
    except TypeError:
        return sorted(found, key=str)


def _names(found: Inspection, numbers: Iterable[int]) -> str:
    return some([_name(found, number) for number in numbers])


def _name(found: Inspection, number: int) -> str:
    """Name of an image; of a path its folder and file."""
    return "/".join(found.names[number].replace("\\", "/").split("/")[-2:])


def _sets(found: Inspection, sets: Sets, notes: Sequence[Any]) -> str:
    """The first sets, with something about each member."""
    shown = [
        " = ".join(f"{_name(found, number)}: {_shown(notes[number])}" for number in members[:3])
        for members in sets
    ]
    return some(shown, limit=2)


def _shown(label: Any) -> str:
    if not isinstance(label, tuple):
        return str(label)
    return "".join(
        "?" if value is None else f"{value:g}" if isinstance(value, (int, float)) else str(value)
        for value in label
    )


def _copies(found: Inspection) -> list[str]:
    """Copies, which a random split would put on both sides."""
    problems = []
    for sets, what in (
        (found.duplicates, "copies of each other"),
        (found.near_duplicates or [], "very much alike, perhaps of one patient"),
    ):
        if sets:
            problems.append(
                f"{sum(map(len, sets))} images in {len(sets)} set(s) are {what} "
                f"({' = '.join(_name(found, n) for n in sets[0][:3])}, …). A random split may put "
                f"them on both sides: {_TOGETHER}."
            )
    return problems


def _labels(
    found: Inspection, labels: Sequence[Any], groups: Sequence[Any], uncertain: str
) -> list[str]:
    """Labels that are missing, and classes that are too rare or not in every split."""
    problems = []
    known = [number for number, label in enumerate(labels) if label is not None]
    if known and len(known) < len(labels):
        missing = sorted(set(range(len(labels))) - set(known))
        problems.append(
            f"{len(missing)} image(s) have no label ({_names(found, missing)}). Label or remove "
            "them."
        )
    grouped = [number for number, group in enumerate(groups) if group is not None]
    with_groups = {found.splits[number] for number in grouped}  # splits that have any
    ungrouped = [
        number
        for number, group in enumerate(groups)
        if group is None and found.splits[number] in with_groups
    ]
    if ungrouped:
        problems.append(
            f"{len(ungrouped)} image(s) have no group ({_names(found, ungrouped)}). Give each a "
            "group of its own if it is the only one."
        )
    classes = list(dict.fromkeys(name for counts in found.counts.values() for name in counts))
    if len(classes) == 1 and known:
        problems.append(f"There is one class, {classes[0]}: a classifier needs at least 2.")
    for split, counts in found.counts.items():
        absent = [name for name in classes if not counts.get(name)]
        if absent and any(counts.values()):
            problems.append(f"The split {split!r} has no image of {some(absent, 10)}.")
    if known and not problems:
        try:  # what fit would refuse
            TargetEncoding.learn([labels[number] for number in known], uncertain=uncertain)
        except InputError as reason:
            problems.append(str(reason))
    usable = [number for number in known if number not in found.damaged]
    if len(found.counts) == 1 and len(classes) > 1 and usable:
        all_grouped = len(grouped) == len(groups)
        problems += _too_rare(
            [labels[number] for number in usable],
            [groups[number] for number in usable] if all_grouped else None,
            classes,
        )
    return problems


def _too_rare(labels: Sequence[Any], groups: Sequence[Any] | None, classes: list[str]) -> list[str]:
    """Classes that cannot be on both sides of the split that ``fit`` makes, by its own rule."""
    if isinstance(labels[0], tuple):
        task: Task = MULTILABEL
        known = [[value if value in (0, 1) else np.nan for value in row] for row in labels]
        targets = np.asarray(known, dtype=np.float32)
    else:
        task = MULTICLASS
        place = {name: number for number, name in enumerate(classes)}
        rows = [place[str(label)] for label in labels]
        targets = np.eye(len(classes), dtype=np.float32)[rows]
    units = range(len(labels)) if groups is None else groups
    rare = [
        name
        for name, column in zip(classes, targets.T, strict=True)
        if len({unit for unit, value in zip(units, column, strict=True) if value == 1}) == 1
    ]
    problems = []
    if rare:
        of = "image" if groups is None else "group"
        problems.append(
            f"{len(rare)} class(es) have a single {of} ({some(rare)}), and so none in the part "
            "that fit holds out. Add images, merge classes, or leave them out."
        )
    try:
        rng = np.random.RandomState(0)
        validation_split(targets, _FRACTION, rng, groups=groups, task=task, classes=classes)
    except InputError as reason:
        problems.append(str(reason).split(" diffmic.datasets.inspect")[0])
    return problems
