"""Sample weights: ``sample_weight`` and ``class_weight``, validated and combined."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.class_weight import compute_class_weight

from ..errors import InputError, warn_user
from .columns import as_column
from .targets import TargetEncoding

_LARGEST = 1e30  # their sum is still a number of single precision


def sample_weights(sample_weight: Any, n_images: int) -> NDArray[np.float64]:
    """``sample_weight`` as an array (n,), after a check; None gives every image the weight 1."""
    if sample_weight is None:
        return np.ones(n_images)
    weights = _numbers(sample_weight, "sample_weight")
    if not weights.any():
        raise InputError("sample_weight is zero for every image, so that no image counts.")
    return weights


def point_out_lost_classes(
    targets: NDArray[np.float32], weights: NDArray[Any], names: Sequence[str]
) -> None:
    """Warn of classes whose images all have the weight zero, so that they are not learnt."""
    counts, total = np.nansum(targets, axis=0), np.nansum(targets * weights[:, None], axis=0)
    lost = [name for name, n, sum_ in zip(names, counts, total, strict=True) if n and not sum_]
    if lost:
        warn_user(
            f"Every training image of {lost[:10]} has the weight zero (sample_weight times "
            "class_weight): nothing is learnt about it, and its probabilities mean nothing. Remove "
            "these images, or give them a weight."
        )


def class_weights(
    targets: NDArray[np.float32],
    encoding: TargetEncoding,
    class_weight: Any,
    shown: Sequence[str] = (),
) -> NDArray[np.float64]:
    """Class weights, (C,).

    Parameters
    ----------
    targets : ndarray of shape (n, C)
        Targets of the training part, from which ``"balanced"`` is computed; labels that are
        unknown (NaN) do not count.
    encoding : TargetEncoding
    class_weight : None, "balanced" or dict
        As in scikit-learn, by label or by display name, of which ``shown`` are all; a class that
        is not in the dict has weight 1.
    """
    if class_weight is None:
        return np.ones(targets.shape[1])
    names = encoding.classes.tolist()
    if isinstance(class_weight, str) and class_weight == "balanced":
        counts = np.nansum(targets, axis=0).astype(int)
        numbers, present = np.arange(len(names)), counts > 0
        labels = np.repeat(numbers, counts)
        balanced = np.ones(len(names))
        balanced[present] = compute_class_weight("balanced", classes=numbers[present], y=labels)
        return balanced
    if not isinstance(class_weight, dict):
        raise InputError(f"class_weight is {class_weight!r}; give None, 'balanced' or a dict.")
    unknown = [name for name in class_weight if name not in names]
    named = [*shown] if [*shown] != [*map(str, names)] else []
    if unknown and set(class_weight) <= set(named):
        names = named
    elif unknown:
        also = f", named {named}" if named else ""
        raise InputError(f"class_weight contains {unknown}, but the classes are {names}{also}.")
    return _numbers([class_weight.get(name, 1.0) for name in names], "class_weight")


def by_class(targets: NDArray[np.float32], per_class: NDArray[np.float64]) -> NDArray[np.float64]:
    """Class weight (n,) of each image; the mean over several labels, 1 without a label."""
    targets = np.nan_to_num(targets)
    n_labels = targets.sum(axis=1)
    weights: NDArray[np.float64] = (targets @ per_class) / np.maximum(n_labels, 1)
    weights[n_labels == 0] = 1
    return weights


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def _numbers(values: Any, name: str) -> NDArray[np.float64]:
    """Weights as float64, after a check that they are finite and at least 0."""
    found = as_column(values, name)
    if found.dtype.kind not in "biufSUO":  # numpy would make numbers of dates and complex ones
        raise InputError(f"{name} has the data type {found.dtype}; give numbers of at least 0.")
    try:
        numbers: NDArray[np.float64] = found.astype(np.float64)
    except (TypeError, ValueError):
        numbers = np.array([_number(value) for value in found.ravel()]).reshape(found.shape)
    bad = ~((numbers >= 0) & (numbers < _LARGEST))
    if numbers.ndim != 1 or bad.any():
        wrong = found[bad].ravel().tolist()[:3]
        where = f", the first at index {int(bad.argmax())}" if found.ndim == 1 else ""
        raise InputError(
            f"{name} must hold finite numbers of at least 0, one each; found shape {found.shape}"
            + (f" with {wrong}{where}." if wrong else ".")
            + (f" {_LARGEST:g} and more is too large." if (numbers >= _LARGEST).any() else "")
        )
    return numbers
