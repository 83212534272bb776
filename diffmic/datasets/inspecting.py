"""Inspection of images and labels before training: damage, copies, leaks, and what is too rare."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from numbers import Integral
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.columns import as_array, as_column, check_lengths, column_names, missing
from ..data.images import extremes
from ..data.item_targets import stacked
from ..data.items import Keys
from ..data.names import names_in_lists, stated_names
from ..data.ranges import ValueRange
from ..data.targets import UNCERTAIN
from ..data.validation import as_pair
from ..errors import InputError
from ..image_table import LabelledTable
from .duplicates import (
    can_look_alike,
    chained,
    equal_sets,
    fingerprint,
    perceptual_hashes,
    sets_of,
    similar_sets,
    united,
)
from .inspection import Inspection, Sets
from .problems import in_order, problems_of
from .reading import each_image

_BITS = 64  # of 256: hashes that differ in more say nothing
_WHOLE = "images"  # the only split, if there is no other


def inspect(
    X: Any,
    y: Any = None,
    *,
    groups: Any = None,
    validation_data: Any = None,
    validation_groups: Any = None,
    value_range: tuple[float, float] | None = None,
    image_key: str | None = None,
    label_key: str | None = None,
    uncertain: str = "error",
    distance: int = 14,
    verbose: int = 1,
) -> Inspection:
    """Look for faults in images and labels: damage, copies, leaks between splits, rare classes.

    Every image is read once; only checksums of it are kept. Copies are found by their pixels,
    however they are stored. Images that look alike are found by perceptual hashes of 256 bits
    (ImageHash, ``pip install 'diffmic[inspect]'``), whichever way they are turned or mirrored.

    Parameters
    ----------
    X, y : as in ``DiffMICClassifier.fit``
        X can also be an :class:`ImageTable` or a :class:`PublicDataset`, with its labels, groups
        and splits. Of a DataLoader the items of its Dataset are read.
    groups : array-like of shape (n,) or None
        Group of each image, such as its patient.
    validation_data : as in ``DiffMICClassifier.fit``
        A second split, of which no image or group should be in X.
    validation_groups : array-like or None
        Groups of the images of ``validation_data``.
    value_range, image_key, label_key
        As in ``DiffMICClassifier``: black and white of images in other units, such as CT in
        Hounsfield units; keys of items that are dicts.
    uncertain : {"error", "unknown", "positive", "negative"}
        Meaning of −1 in an indicator matrix, as in ``DiffMICClassifier``; "error": it is a problem.
    distance : int
        Number of bits in which hashes of images that look alike may differ. 14 finds copies
        that were compressed, resized, brightened or turned by 90°, and confuses no two eyes. For
        images without a common frame (skin, ultrasound) up to 40 finds other shots of a
        finding, too. -1: do not look for them.
    verbose : int
        Whether to show progress.

    Returns
    -------
    Inspection

    Raises
    ------
    InputError
        X is empty or of an unknown type, no image can be read, or the numbers of images, labels
        and groups differ.

    Notes
    -----
    14 was chosen by looking at pairs of images of five data sets: photographs of eyes, whose round
    frame makes them alike, were copies up to 14 bits and other eyes from 16 bits on. Nearly all
    copies in JPEG of quality 50, at half the size, or brighter by a fifth are found; those
    turned by 2°, or without the outer 1 % of each side, mostly not
    (``tests/real_data/test_near_duplicates.py``).

    Examples
    --------
    >>> from diffmic.datasets import inspect, make_lesions
    >>> X, y = make_lesions(30, image_size=32, random_state=0)
    >>> X[7] = X[3]
    >>> inspection = inspect(X, y, verbose=0)
    >>> inspection.duplicates
    [(3, 7)]
    """
    table = X if isinstance(X, LabelledTable) else None
    if uncertain not in ("error", *UNCERTAIN):
        raise InputError(f"uncertain is {uncertain!r}; give one of {['error', *UNCERTAIN]}.")
    names = column_names(y) or None
    if table is not None:
        X, y = table.images, table.labels if y is None else y
        groups = table.groups if groups is None else groups
        names = table.label_names if np.ndim(y) == 2 else None
    if not isinstance(distance, Integral) or not -1 <= distance <= _BITS:
        raise InputError(f"distance is {distance!r}; give a number of bits up to {_BITS}, or -1.")
    look = distance >= 0 and can_look_alike()
    survey = _Sightings(
        ValueRange.of(value_range), Keys(image_key, label_key), uncertain=uncertain, look=look
    )
    survey.read(X, y, groups, "image", verbose)
    n_images = len(survey.names)
    if names is None and y is None:
        names = _names_of_columns(X, survey)
    splits = [_WHOLE] * n_images
    if table is not None and table.splits is not None:
        splits = table.splits.tolist()
    elif validation_data is not None:
        splits = ["training"] * n_images
    if validation_data is not None:
        survey.read(*as_pair(validation_data), validation_groups, "validation image", verbose)
        splits += ["validation"] * (len(survey.names) - n_images)
    if len(survey.damaged) == len(survey.names):
        raise InputError(
            f"None of the {len(survey.names)} images can be used. The first: {survey.damaged[0]}"
        )
    return _concluded(survey, splits, n_images, names, distance)


class _Sightings:
    """What is kept of the images while they are read."""

    def __init__(
        self, value_range: ValueRange | None, keys: Keys, *, uncertain: str, look: bool
    ) -> None:
        self.value_range, self.keys, self.uncertain = value_range, keys, uncertain
        self.look = look  # whether perceptual hashes are wanted
        self.names: list[str] = []
        self.labels: list[Any] = []  # a value, a tuple of values, or None
        self.groups: list[Any] = []
        self.prints: list[bytes | None] = []
        self.hashes: dict[int, NDArray[np.uint64]] = {}
        self.sizes: Counter[tuple[int, int]] = Counter()
        self.pixels: dict[str, tuple[int, float, float]] = {}
        self.damaged: dict[int, str] = {}
        self.blank: list[int] = []

    def read(self, X: Any, y: Any, groups: Any, what: str, verbose: int) -> None:
        """Read all images of X, with their labels and groups."""
        labels = []
        progress = "inspecting images" if verbose else None
        for found in each_image(
            X, what=what, value_range=self.value_range, keys=self.keys, progress=progress
        ):
            number = len(self.names)
            self.names.append(found.name)
            labels.append(found.label)
            if found.image is None:
                self.damaged[number] = found.fault
                self.prints.append(None)
            else:
                self._keep(number, found.image)
        check_lengths(len(labels), y=y, groups=groups)
        entries = _entries(_rows(labels, X, self.keys) if y is None else y, len(labels), "y")
        self.labels += [_decided(label, self.uncertain) for label in entries]
        self.groups += _entries(groups, len(labels), "groups")

    def _keep(self, number: int, image: Tensor) -> None:
        channels, height, width = image.shape
        self.sizes[height, width] += 1
        bits = "8 bits" if image.dtype == torch.uint8 else "16 bits"
        kind = f"{'gray' if channels == 1 else 'colour'}, "
        kind += "floats" if image.is_floating_point() else bits
        lows, highs = extremes(image[:, None])
        low, high = float(lows.min()), float(highs.max())
        count, lowest, highest = self.pixels.get(kind, (0, low, high))
        self.pixels[kind] = count + 1, min(low, lowest), max(high, highest)
        blank = bool((lows == highs).all())
        if blank:
            self.blank.append(number)
        self.prints.append(None if blank else fingerprint(image))
        if self.look and not blank:
            self.hashes[number] = perceptual_hashes(image)


def _rows(labels: list[Any], X: Any, keys: Keys) -> list[Any]:
    """Labels that came with the images; lists of classes of Hugging Face datasets become rows."""
    listed = names_in_lists(X, keys.label)
    known = [number for number, label in enumerate(labels) if label is not None]
    if listed is None or not known:
        return labels
    rows = stacked([as_array(labels[number], "y") for number in known], listed)
    found = dict(zip(known, rows, strict=True))
    return [found.get(number) for number in range(len(labels))]


def _names_of_columns(X: Any, survey: "_Sightings") -> list[str] | None:
    """Names of the columns of labels that came with the images, if a name is stated for each."""
    stated = stated_names(X, survey.keys.label)
    row = next((label for label in survey.labels if isinstance(label, tuple)), ())
    if stated is None or set(stated) != set(range(len(row))):
        return None
    return [stated[number] for number in range(len(row))]


def _decided(label: Any, uncertain: str) -> Any:
    """A row of labels with what −1 means in it."""
    if uncertain == "error" or not isinstance(label, tuple):
        return label
    value = None if uncertain == "unknown" else UNCERTAIN[uncertain]
    return tuple(value if entry == -1 else entry for entry in label)


def _entries(values: Any, n_images: int, name: str) -> list[Any]:
    """One entry per image: a value, a tuple of values for multi-label, None for a missing one."""
    if values is None or (isinstance(values, list) and all(value is None for value in values)):
        return [None] * n_images
    if isinstance(values, list) and any(value is None for value in values):
        return [None if v is None else _entries([v], 1, name)[0] for v in values]
    array = as_column(values, name)
    rows = array.ndim == 2 and name == "y"
    absent = missing(array)
    try:
        known = array.astype(object)
        known[absent] = None
        entries = [tuple(row) for row in known.tolist()] if rows else known.tolist()
        set(entries)  # they will be compared
    except TypeError:
        entries = []
    if len(entries) != n_images or array.ndim != 1 + rows:
        needed = "one value or one row of 0 and 1" if name == "y" else "one value"
        raise InputError(f"{name} has shape {array.shape}; {needed} per image is needed.")
    return entries


def _concluded(
    survey: _Sightings, splits: list[str], n_images: int, names: list[str] | None, distance: int
) -> Inspection:
    """The findings about all images, and the problems that they are."""
    same = equal_sets(survey.prints)
    near: Sets | None = None
    if survey.look:
        first = {numbers[0] for numbers in same}
        copies = {number for numbers in same for number in numbers} - first
        kept = np.asarray([n for n in survey.hashes if n not in copies], dtype=np.intp)
        hashes = np.asarray([survey.hashes[n] for n in kept], dtype=np.uint64)
        near = [
            tuple(kept[list(numbers)].tolist())
            for numbers in similar_sets(hashes.reshape(-1, 8, 4), distance)
        ]
    copies_united = united(len(splits), [chained(same), chained(near or [])])
    families = sets_of(copies_united)
    of_groups = equal_sets(survey.groups)
    together = united(len(splits), [chained(families), chained(of_groups)])
    conflicts = [f for f in families if _differ([survey.labels[n] for n in f])]
    leaks = [f for f in families if len({splits[n] for n in f}) > 1]
    shared = [f for f in of_groups if len({splits[n] for n in f}) > 1]
    findings = Inspection(
        names=survey.names,
        splits=np.asarray(splits),
        **_counts(survey.labels, splits, names),
        sizes=dict(survey.sizes),
        pixels=survey.pixels,
        damaged=survey.damaged,
        blank=survey.blank,
        duplicates=same,
        near_duplicates=near,
        conflicts=conflicts,
        leaks=leaks,
        shared_groups=[str(survey.groups[numbers[0]]) for numbers in shared],
        groups=np.unique(together[:n_images], return_inverse=True)[1].ravel().astype(np.intp),
        problems=[],
    )
    problems = problems_of(
        findings, survey.labels, survey.groups, survey.uncertain, survey.value_range
    )
    return replace(findings, problems=problems)


def _differ(labels: Sequence[Any]) -> bool:
    return len({label for label in labels if label is not None}) > 1


def _counts(
    labels: Sequence[Any], splits: Sequence[str], names: list[str] | None
) -> dict[str, Any]:
    """Numbers of images of each class, or with each label; of known and unknown labels."""
    parts: dict[str, list[Any]] = {split: [] for split in splits}
    for label, split in zip(labels, splits, strict=True):
        if label is not None:
            parts[split].append(label)
    row = next((label for label in labels if isinstance(label, tuple)), None)
    if row is None:  # one label per image
        found = {split: Counter(mine) for split, mine in parts.items()}
        counts = {
            split: {str(label): each[label] for label in in_order(each)}
            for split, each in found.items()
        }
        return {"counts": counts, "known": {}, "unknown": {}}
    columns = list(enumerate(map(str, range(len(row))) if names is None else names))

    def present(rows: list[Any], values: tuple[int, ...]) -> dict[str, int]:
        return {name: sum(row[number] in values for row in rows) for number, name in columns}

    known = {split: present(mine, (0, 1)) for split, mine in parts.items()}
    unknown = {
        name: sum(len(mine) - known[split][name] for split, mine in parts.items())
        for _, name in columns
    }
    counts = {split: present(mine, (1,)) for split, mine in parts.items()}
    return {"counts": counts, "known": known, "unknown": unknown}
