"""What people pass as y: labels of any kind, or an indicator matrix, which means multi-label."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from ..errors import InputError


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
            return y.astype(np.float32)
        if y.ndim != 1:
            raise InputError(f"y has shape {y.shape}; one label per image is needed.")
        unknown = np.setdiff1d(y, self.classes)
        if len(unknown):
            raise InputError(
                f"y contains previously unseen labels: {unknown.tolist()[:10]}; the known classes "
                f"are {self.classes.tolist()[:20]}."
            )
        return np.eye(len(self.classes), dtype=np.float32)[np.searchsorted(self.classes, y)]

    def decode(self, indices: NDArray[np.intp]) -> NDArray[Any]:
        """Class numbers (n,) → labels (n,)."""
        return self.classes[indices]


def as_targets(y: Any) -> NDArray[Any]:
    """y as an array of shape (n,) or, for a multi-label indicator, (n, L)."""
    if y is None:
        raise InputError(
            "y is missing: this estimator requires y to be passed, but the target y is None. Give "
            "y, or a Dataset or DataLoader whose items hold targets."
        )
    y = np.asarray(y)
    if y.dtype.kind == "c":
        raise InputError("y: Complex data not supported.")
    if y.ndim == 2 and y.shape[1] > 1:
        values = np.unique(y)
        if not np.isin(values, (0, 1)).all():
            raise InputError(
                f"y has shape {y.shape}, which means multi-label, so 0 and 1 alone are allowed; "
                f"found {values.tolist()[:10]}. For one label per image pass a column."
            )
        return y
    y = column_or_1d(y, warn=True)
    missing = (y != y) if y.dtype.kind in "fO" else np.zeros(0, bool)
    if np.any(missing) or (y.dtype.kind == "f" and not np.isfinite(y).all()):
        raise InputError("y contains NaN or infinity: an image without label cannot be learnt from.")
    if y.dtype == object and any(value is None for value in y):
        raise InputError("y contains None: an image without label cannot be learnt from.")
    try:
        check_classification_targets(y)
    except ValueError as reason:
        raise InputError(
            f"{reason} Labels must be integers, strings, or an indicator matrix."
        ) from reason
    return y


def check_lengths(n_images: int, **others: Any) -> None:
    """Images, labels, weights and groups must be as many.

    Raises
    ------
    InputError
        Naming both numbers.
    """
    for name, values in others.items():
        if values is not None and len(values) != n_images:
            raise InputError(
                f"Found input variables with inconsistent numbers of samples: {n_images} images, "
                f"but {name} has {len(values)} entries."
            )
