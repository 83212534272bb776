"""Random splits into train, val and test, stratified and by group."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.splits import validation_split
from ..errors import InputError
from ..tasks import Task


def drawn_splits(
    targets: NDArray[np.float32],
    groups: NDArray[Any] | None,
    task: Task,
    rng: np.random.RandomState,
    *,
    validation: float = 0.1,
    test: float = 0.2,
) -> NDArray[np.str_]:
    """Name of the split of each image, (n,): train, val or test.

    Parameters
    ----------
    targets : ndarray of shape (n, C)
        One-hot or indicator targets.
    groups : ndarray of shape (n,) or None
        Groups, which are never divided.
    task : Task
    rng : RandomState
    validation, test : float
        Fractions of the images; test may be 0.
    """
    rest = np.arange(len(targets))
    splits = np.full(len(targets), "train", dtype="<U5")
    try:
        if test:
            rest, held_out = validation_split(targets, test, rng, groups=groups, task=task)
            splits[held_out] = "test"
        own = None if groups is None else groups[rest]
        fraction = validation / (1 - test)
        _, held_out = validation_split(targets[rest], fraction, rng, groups=own, task=task)
    except InputError as reason:  # which gives the advice of fit
        told = str(reason).split(" Pass validation_data")
        if len(told) == 1:
            raise
        raise InputError(f"{told[0]} Give smaller fractions, or smaller groups.") from reason
    splits[rest[held_out]] = "val"
    return splits
