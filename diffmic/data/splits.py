"""Setting a validation part aside."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupShuffleSplit, train_test_split

from ..errors import InputError

Indices = NDArray[np.intp]


def validation_split(
    targets: NDArray[np.float32],
    fraction: float,
    rng: np.random.RandomState,
    *,
    groups: Any = None,
    multilabel: bool = False,
) -> tuple[Indices, Indices]:
    """Numbers of the training and of the validation images.

    Classes are shared out evenly, as far as there are enough images; a class's only image stays
    in the training part, and all images of a group (a patient, say) on one side.

    Parameters
    ----------
    targets : ndarray of shape (n, C)
        One-hot or indicator targets.
    fraction : float
        Share of the validation part.
    rng : RandomState
        Where chance comes from.
    groups : array-like of shape (n,) or None
        Group of each image.
    multilabel : bool
        Whether targets are an indicator matrix.
    """
    if groups is not None:
        return _group_split(targets, fraction, rng, np.asarray(groups))
    everything = np.arange(len(targets))
    if multilabel:
        train, validation = train_test_split(everything, test_size=fraction, random_state=rng)
        return np.sort(train), np.sort(validation)
    labels = targets.argmax(axis=1)
    counts = targets.sum(axis=0)
    divisible = everything[counts[labels] > 1]
    n_classes = int((counts > 1).sum())
    size = max(math.ceil(fraction * len(targets)), n_classes)
    if n_classes == 0 or len(divisible) - size < n_classes:
        raise InputError(
            f"{len(targets)} images of {targets.shape[1]} classes are too few to set a validation "
            "part aside. Pass validation_data, or validation_fraction=None to do without."
        )
    _, validation = train_test_split(
        divisible, test_size=size, stratify=labels[divisible], random_state=rng
    )
    validation = np.sort(validation)
    return np.setdiff1d(everything, validation), validation


def _group_split(
    targets: NDArray[np.float32], fraction: float, rng: np.random.RandomState, groups: NDArray[Any]
) -> tuple[Indices, Indices]:
    """Of some splits by group, the one whose class shares are most alike."""
    if len(np.unique(groups)) < 2:
        raise InputError(
            "groups names one group alone; the validation part needs a group of its own."
        )
    best: tuple[float, Indices, Indices] | None = None
    for train, validation in GroupShuffleSplit(20, test_size=fraction, random_state=rng).split(
        targets, groups=groups
    ):
        missing = (targets[train].sum(axis=0) == 0) & (targets.sum(axis=0) > 0)
        difference = np.abs(targets[train].mean(axis=0) - targets[validation].mean(axis=0)).sum()
        badness = float(difference) + 10 * int(missing.sum())
        if best is None or badness < best[0]:
            best = badness, train, validation
    assert best is not None
    return best[1], best[2]
