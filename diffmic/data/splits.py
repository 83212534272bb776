"""Setting a validation part aside."""

import math
from typing import Any

import numpy as np
import sklearn  # its model selection is imported when it is first used
from numpy.typing import NDArray

from ..errors import InputError
from .targets import any_missing, as_array

Indices = NDArray[np.intp]

_TRIALS = 20


def validation_split(
    targets: NDArray[np.float32],
    fraction: float,
    rng: np.random.RandomState,
    *,
    groups: Any = None,
    multilabel: bool = False,
) -> tuple[Indices, Indices]:
    """Numbers of the training and of the validation images.

    Classes are shared out evenly, as far as there are enough images; each class has an image in
    the training part, and all images of a group (a patient, say) are on one side.

    Parameters
    ----------
    targets : ndarray of shape (n, C)
        One-hot or indicator targets.
    fraction : float
        Share of the validation part: of the images, or of the groups where there are any.
    rng : RandomState
        Where chance comes from.
    groups : array-like of shape (n,) or None
        Group of each image.
    multilabel : bool
        Whether targets are an indicator matrix.

    Raises
    ------
    InputError
        Too few images or groups, or groups that are missing.
    """
    if groups is not None:
        return _group_split(targets, fraction, rng, _numbered(groups))
    everything = np.arange(len(targets))
    if multilabel:
        return _group_split(targets, fraction, rng, everything)
    labels = targets.argmax(axis=1)
    counts = targets.sum(axis=0)
    divisible = everything[counts[labels] > 1]
    n_classes = int((counts > 1).sum())
    size = max(math.ceil(fraction * len(targets)), n_classes)
    if n_classes == 0 or len(divisible) - size < n_classes:
        raise _too_few(f"{len(targets)} images of {targets.shape[1]} classes")
    _, validation = sklearn.model_selection.train_test_split(
        divisible, test_size=size, stratify=labels[divisible], random_state=rng
    )
    # A large fraction may take all of a small class: one image of it goes back.
    taken = np.bincount(labels[validation], minlength=len(counts)) == counts
    back = [validation[labels[validation] == c][0] for c in np.flatnonzero(taken & (counts > 0))]
    validation = np.setdiff1d(validation, back)
    return np.setdiff1d(everything, validation), validation


def _group_split(
    targets: NDArray[np.float32], fraction: float, rng: np.random.RandomState, groups: Indices
) -> tuple[Indices, Indices]:
    """Of some splits by group, the one whose class shares are most alike.

    A group that alone has a class stays in the training part.
    """
    n_groups = int(groups.max()) + 1
    having = np.zeros((n_groups, targets.shape[1]), bool)  # which group has which class
    np.logical_or.at(having, groups, targets > 0)
    alone = having.sum(axis=0) == 1
    free = np.flatnonzero(~having[:, alone].any(axis=1))
    size = min(math.ceil(fraction * n_groups), n_groups - 1, len(free))
    best: tuple[float, NDArray[np.bool_]] | None = None
    for _ in range(_TRIALS if size > 0 else 0):
        chosen = np.isin(groups, rng.choice(free, size, replace=False))
        if (having.any(axis=0) & (targets[~chosen].sum(axis=0) == 0)).any():
            continue
        shares = targets[~chosen].mean(axis=0), targets[chosen].mean(axis=0)
        difference = float(np.abs(shares[0] - shares[1]).sum())
        if best is None or difference < best[0]:
            best = difference, chosen
    if best is None:
        raise _too_few(f"{len(targets)} images in {n_groups} group(s)")
    return np.flatnonzero(~best[1]), np.flatnonzero(best[1])


def _numbered(groups: Any) -> Indices:
    """Groups as numbers from 0."""
    groups = as_array(groups, "groups")
    if groups.ndim != 1 or any_missing(groups):
        raise InputError(
            f"groups has shape {groups.shape}; one group per image, with none missing, is needed."
        )
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups.tolist()))}
    return np.asarray([numbers[group] for group in groups.tolist()])


def _too_few(found: str) -> InputError:
    return InputError(
        f"{found} are too few to set a validation part aside, with each class in the training "
        "part. Pass validation_data, or validation_fraction=None to do without."
    )
