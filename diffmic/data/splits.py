"""Stratified train/validation splits, which never divide a group."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..conventions import TEXTS_FOR_MISSING
from ..errors import InputError, warn_user
from ..random import imported
from ..tasks import MULTICLASS, Task
from .columns import as_column, missing
from .unit_split import split_units

Indices = NDArray[np.intp]


def validation_split(
    targets: NDArray[np.float32],
    fraction: float,
    rng: np.random.RandomState,
    *,
    groups: Any = None,
    task: Task = MULTICLASS,
    classes: Sequence[Any] = (),
) -> tuple[Indices, Indices]:
    """Split the data: indices of the training images and of the validation images.

    Each class has an image in the training part. A class with at least two images (or groups, if
    given) also has one in the validation part where possible. Otherwise the fraction of each
    class in the validation part is close to ``fraction``. A group of images, for example those of
    a patient, is never divided.

    Parameters
    ----------
    targets : ndarray of shape (n, C)
        One-hot or indicator targets. Where labels are unknown (NaN), both parts get images whose
        label is known to be present, and to be absent.
    fraction : float
        Fraction of the images in the validation part.
    rng : RandomState
        Source of randomness.
    groups : array-like of shape (n,) or None
        Group of each image.
    task : Task
        Type of task: whether targets are one-hot rows or an indicator matrix.
    classes : sequence
        Class labels, for messages.

    Raises
    ------
    InputError
        There are too few images or groups, or some groups are missing values.

    References
    ----------
    Exclusive classes without groups: scikit-learn's ``train_test_split``. Groups and multi-label:
    Sechidis et al. (2011), "On the stratification of multi-label data".
    """
    units = np.arange(len(targets)) if groups is None else group_numbers(groups)
    if task.exclusive and groups is None:
        parts = _stratified_split(targets, fraction, rng)
        found = f"{len(targets)} images of {targets.shape[1]} classes"
    else:
        parts = _split_by_unit(targets, fraction, rng, units)
        found = f"{len(targets)} images in {len(np.unique(units))} group(s)"
    if parts is None:
        raise InputError(
            f"{found} are too few to hold out a validation part and keep each class in the "
            f"training part{_fewest(targets, classes)}. Pass validation_data, or "
            "validation_fraction=None for no validation part. diffmic.datasets.inspect(X, y, "
            "groups=groups) shows which classes are rare, and what else may be wrong."
        )
    return parts


def _stratified_split(
    targets: NDArray[np.float32], fraction: float, rng: np.random.RandomState
) -> tuple[Indices, Indices] | None:
    everything = np.arange(len(targets))
    labels, counts = targets.argmax(axis=1), targets.sum(axis=0)
    divisible = everything[counts[labels] > 1]
    n_classes = int((counts > 1).sum())
    size = max(math.ceil(fraction * len(targets)), n_classes)
    if n_classes == 0 or len(divisible) - size < n_classes:
        return None
    _, validation = imported("sklearn.model_selection").train_test_split(
        divisible, test_size=size, stratify=labels[divisible], random_state=rng
    )
    # A split may contain all images of a small class, or none: one image then changes sides.
    taken = np.bincount(labels[validation], minlength=len(counts))
    back = [
        validation[labels[validation] == c][0] for c in np.flatnonzero(taken == counts) if taken[c]
    ]
    missing = np.flatnonzero((taken == 0) & (counts > 1))
    added = [rng.choice(divisible[labels[divisible] == c]) for c in missing]
    validation = np.union1d(np.setdiff1d(validation, back), added).astype(np.intp)
    return np.setdiff1d(everything, validation), validation


def _split_by_unit(
    targets: NDArray[np.float32], fraction: float, rng: np.random.RandomState, groups: Indices
) -> tuple[Indices, Indices] | None:
    n_groups = int(groups.max()) + 1
    partly = np.isnan(targets).any(axis=0)  # of these labels, images known to be without count, too
    columns = np.column_stack([np.ones(len(targets)), targets > 0, targets[:, partly] == 0])
    counts = np.zeros((n_groups, columns.shape[1]))
    np.add.at(counts, groups, columns)
    chosen = split_units(counts, fraction, rng)
    if chosen is None:
        return None
    validation = chosen[groups]
    return np.flatnonzero(~validation), np.flatnonzero(validation)


def group_numbers(groups: Any) -> Indices:
    """Groups as integers from 0.

    Raises
    ------
    InputError
        Groups are missing, or are not one for each image.
    """
    groups = as_column(groups, "groups")
    absent = missing(groups)
    if groups.ndim != 1 or absent.any():
        raise InputError(
            f"groups has shape {groups.shape}; one group per image, with none missing, is needed."
            + (
                f" {int(absent.sum())} of {len(groups)} are missing, the first is that of image "
                f"{int(absent.argmax())}. An image whose patient is unknown may be a group of its "
                "own."
                if groups.ndim == 1
                else ""
            )
        )
    texts = [isinstance(group, str) for group in groups.tolist()]
    if any(texts) and not all(texts):
        raise InputError(
            f"groups mixes texts and other values, such as {groups[texts.index(True)]!r:.60} and "
            f"{groups[texts.index(False)]!r:.60}, so that one patient may be two groups; give all "
            "as texts."
        )
    unknown = [g for g in dict.fromkeys(groups.tolist()) if g == -1 or g in TEXTS_FOR_MISSING]
    if unknown:
        warn_user(
            f"groups holds {unknown[0]!r}, which is a group like any other: "
            f"{groups.tolist().count(unknown[0])} images stay together. If it stands for an "
            "unknown patient, give each of these images a group of its own."
        )
    try:
        numbers = {group: number for number, group in enumerate(dict.fromkeys(groups.tolist()))}
        return np.asarray([numbers[group] for group in groups.tolist()])
    except Exception as reason:  # objects that cannot be compared or hashed
        raise InputError(
            f"groups holds {groups[0]!r:.60}: give integers or strings, one for each image."
        ) from reason


def _fewest(targets: NDArray[np.float32], classes: Sequence[Any]) -> str:
    """The classes with the fewest images, for a message."""
    if not len(classes):
        return ""
    counts = (targets > 0).sum(axis=0)
    fewest = [f"{classes[c]!r}: {counts[c]}" for c in counts.argsort(kind="stable")[:5]]
    return f" (images of the smallest classes: {', '.join(fewest)})"
