"""What people pass as y: labels of any kind, or an indicator matrix, which means multi-label."""

import warnings
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d
from torch import Tensor

from ..errors import DiffMICWarning, InputError


@dataclass(frozen=True)
class TargetEncoding:
    """Between the user's labels and the (n, C) matrices of the method.

    Attributes
    ----------
    classes : ndarray of shape (C,)
        The labels as they were passed, sorted; for multi-label the numbers of the columns.
    multilabel : bool
        Whether y is an indicator matrix.
    """

    classes: NDArray[Any]
    multilabel: bool

    @classmethod
    def learn(cls, y: Any) -> Self:
        """Find out which classes there are.

        Raises
        ------
        InputError
            No targets, missing or continuous ones, or a single class.
        """
        y = as_targets(y)
        if y.ndim == 2:
            return cls(np.arange(y.shape[1]), True)
        classes = np.unique(y)
        if len(classes) < 2:
            raise InputError(
                f"y holds one class, {classes.tolist()}: a classifier needs at least 2 classes."
            )
        return cls(classes, False)

    def encode(self, y: Any) -> NDArray[np.float32]:
        """One-hot rows, or the indicator matrix: (n, C), float32.

        Raises
        ------
        InputError
            A label that was not there when the classes were learnt.
        """
        y = as_targets(y)
        if self.multilabel:
            if y.ndim != 2 or y.shape[1] != len(self.classes):
                raise InputError(
                    f"y has shape {y.shape}; an indicator matrix with {len(self.classes)} columns "
                    "is needed."
                )
            indicator: NDArray[np.float32] = y.astype(np.float32)
            return indicator
        if y.ndim != 1:
            raise InputError(f"y has shape {y.shape}; one label per image is needed.")
        position = {label: number for number, label in enumerate(self.classes.tolist())}
        unknown = [label for label in dict.fromkeys(y.tolist()) if label not in position]
        if unknown:
            raise InputError(
                f"y contains previously unseen labels: {unknown[:10]}; the known classes are "
                f"{self.classes.tolist()[:20]}."
            )
        onehot: NDArray[np.float32] = np.eye(len(position), dtype=np.float32)[
            [position[label] for label in y.tolist()]
        ]
        return onehot


def as_targets(y: Any) -> NDArray[Any]:
    """y as an array of shape (n,) or, for a multi-label indicator, (n, L).

    Raises
    ------
    InputError
        No targets, missing or continuous ones, or of a shape that has no meaning.
    """
    if y is None:
        raise InputError(
            "y is missing: this estimator requires y to be passed, but the target y is None. Give "
            "y, or a Dataset or DataLoader whose items hold targets."
        )
    y = as_array(y, "y")
    if y.dtype.kind == "c":
        raise InputError("y: Complex data not supported.")
    if y.ndim == 2 and y.shape[1] > 1:
        indicator = _indicator(y)
        if len(y) > 1 and (indicator.astype(int).sum(axis=1) == 1).all():
            warnings.warn(
                "Each row of y has a single 1. An indicator matrix means multi-label, where an "
                "image may have several labels or none; for exclusive classes pass "
                "y.argmax(axis=1).",
                DiffMICWarning,
                stacklevel=2,
            )
        return indicator
    if y.ndim not in (1, 2) or y.size == 0:
        raise InputError(
            f"y has shape {y.shape}; labels of shape (n,) or (n, 1), or an indicator matrix (n, L) "
            "are needed."
        )
    labels: NDArray[Any] = column_or_1d(y, warn=True)
    if any_missing(labels):
        raise InputError(
            "y contains NaN, infinity or None: an image without label cannot be learnt from. "
            "Remove it, or give it a label."
        )
    if labels.dtype == object and len({isinstance(label, str) for label in labels}) > 1:
        raise InputError("y mixes strings and numbers; give labels of one kind.")
    try:
        check_classification_targets(labels)
    except ValueError as reason:
        raise InputError(
            f"{reason} Labels must be integers, strings, or an indicator matrix."
        ) from reason
    return labels


def _indicator(y: NDArray[Any]) -> NDArray[Any]:
    allowed = np.isin(y, (0, 1))
    if not allowed.all():
        raise InputError(
            f"y has shape {y.shape}, which means multi-label, so 0 and 1 alone are allowed; "
            f"found {list(dict.fromkeys(y[~allowed].tolist()))[:10]}. For one label per image pass "
            "a column."
        )
    return y


def as_array(values: Any, name: str) -> NDArray[Any]:
    """Values of a list, array, column or tensor, on whichever device.

    Raises
    ------
    InputError
        Rows of different lengths.
    """
    if isinstance(values, Tensor):
        values = values.detach().cpu()
    try:
        array = np.asarray(values)
    except ValueError as reason:
        raise InputError(f"{name} is no array: {reason}") from reason
    # Strings of any length (numpy's StringDType) are not known to scikit-learn.
    return np.asarray(array.tolist()) if array.dtype.kind == "T" else array


def any_missing(values: NDArray[Any]) -> bool:
    """Whether there are NaN, infinity, None or pandas' NA among the values."""
    if values.dtype.kind == "f":
        return not np.isfinite(values).all()
    return values.dtype == object and any(map(_is_missing, values.ravel()))


def _is_missing(value: Any) -> bool:
    try:
        return value is None or bool(value != value)
    except TypeError:  # pandas' NA does not know whether it differs from itself
        return True


def check_lengths(n_images: int, **others: Any) -> None:
    """Images, labels, weights and groups must be as many.

    Raises
    ------
    InputError
        Naming both numbers.
    """
    for name, values in others.items():
        found = n_images if values is None else len(np.atleast_1d(as_array(values, name)))
        if found != n_images:
            raise InputError(
                f"Found input variables with inconsistent numbers of samples: {n_images} images, "
                f"but {name} has {found} entries."
            )
