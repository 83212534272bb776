"""Reading y: class labels of any type, or a multi-label indicator matrix."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d
from torch import Tensor

from ..errors import InputError, warn_user
from ..tasks import MULTICLASS, MULTILABEL, ORDINAL, TASKS, Task


@dataclass(frozen=True)
class TargetEncoding:
    """Encoding of class labels as one-hot or indicator rows (n, C).

    Attributes
    ----------
    classes : ndarray of shape (C,)
        Sorted class labels; for multi-label, the column indices.
    task : Task
        Type of task.
    """

    classes: NDArray[Any]
    task: Task

    @classmethod
    def learn(cls, y: Any, task: str = "auto") -> Self:
        """Determine the classes and the task from y.

        Parameters
        ----------
        y : array-like of shape (n,), (n, 1) or (n, L)
            Labels, or an indicator matrix.
        task : {"auto", "multiclass", "ordinal", "multilabel"}
            Type of task. ``"auto"`` means multi-label for an indicator matrix, else multi-class.
            The grades of an ordinal task are numbers, in sorted order.

        Raises
        ------
        InputError
            y is None or empty, has missing or continuous values or a single class, or does not
            match the task.
        """
        return cls.learn_and_encode(y, task)[0]

    @classmethod
    def learn_and_encode(cls, y: Any, task: str = "auto") -> tuple[Self, NDArray[np.float32]]:
        """Learn the classes of y and encode it; y is checked once, so warnings are issued once."""
        y = as_targets(y)
        encoding = cls._learn(y, task)
        return encoding, encoding._encode(y)

    @classmethod
    def _learn(cls, y: NDArray[Any], task: str) -> Self:
        kind = _kind(y, task)
        if task == "auto" and kind is MULTILABEL:
            _point_out_onehot(y)
        if kind is MULTILABEL:
            return cls(np.arange(y.shape[1]), kind)
        classes = np.unique(y)
        if len(classes) < 2:
            raise InputError(
                f"y holds one class, {classes.tolist()}: a classifier needs at least 2 classes."
            )
        if kind is ORDINAL and classes.dtype.kind not in "biuf":
            raise InputError(
                f"task is 'ordinal', and y holds the words {classes.tolist()[:10]}, whose order is "
                "unknown. Give the grades as numbers, and words for them as class_names; or set "
                "task='auto' if the classes have no order."
            )
        return cls(classes, kind)

    def encode(self, y: Any) -> NDArray[np.float32]:
        """Encode y as one-hot rows, or as its indicator matrix: (n, C), float32.

        Raises
        ------
        InputError
            y contains a label that is not among the classes, or cannot be used.
        """
        return self._encode(as_targets(y, self.task))

    def _encode(self, y: NDArray[Any]) -> NDArray[np.float32]:
        if not self.task.exclusive:
            if y.shape[1] != len(self.classes):
                raise InputError(
                    f"y has shape {y.shape}; an indicator matrix with {len(self.classes)} columns "
                    "is needed."
                )
            indicator: NDArray[np.float32] = y.astype(np.float32)
            return indicator
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


def as_targets(y: Any, task: Task | None = None) -> NDArray[Any]:
    """y as an array of shape (n,) or, for a multi-label indicator, (n, L).

    Parameters
    ----------
    y : array-like
    task : Task or None
        Task that y must match in shape; None: either shape is accepted.

    Raises
    ------
    InputError
        y is None or empty, has missing or continuous values, or has an unsupported shape.
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
        if task is not None and task.exclusive:
            raise InputError(
                f"y has shape {y.shape}; the task is {task.name}: one label per image is needed, "
                "of shape (n,). Pass y.argmax(axis=1) if each row has a single 1."
            )
        return _indicator(y)
    if y.ndim not in (1, 2) or y.size == 0:
        raise InputError(
            f"y has shape {y.shape}; labels of shape (n,) or (n, 1), or an indicator matrix (n, L) "
            "are needed."
        )
    if task is not None and not task.exclusive:
        raise InputError(
            f"y has shape {y.shape}; the task is {task.name}: an indicator matrix (n, L) is "
            "needed, with a column of 0 and 1 for each label."
        )
    labels: NDArray[Any] = column_or_1d(y, warn=True)
    if any_missing(labels):
        raise InputError(
            "y contains NaN, infinity or None. Remove images without a label, or label them."
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


def _kind(y: NDArray[Any], task: str) -> Task:
    """The requested task, after a check that y matches it; for "auto", the task that y implies."""
    found = MULTILABEL if y.ndim == 2 else MULTICLASS
    if task == "auto":
        return found
    if task not in TASKS:
        raise InputError(f"task is {task!r}; give one of {['auto', *TASKS]}.")
    kind = TASKS[task]
    if kind.exclusive and not found.exclusive:
        raise InputError(
            f"task={task!r} needs one label per image, but y has shape {y.shape}, an indicator "
            "matrix. Pass y.argmax(axis=1) if each row has a single 1; else pass "
            "task='multilabel'."
        )
    if found.exclusive and not kind.exclusive:
        raise InputError(
            f"task={task!r} needs an indicator matrix (n, L) of 0 and 1, one column for each of at "
            f"least 2 labels, but y has shape {y.shape}. Convert sets of labels with "
            "sklearn.preprocessing.MultiLabelBinarizer; for one label per image pass task='auto'."
        )
    return kind


def _point_out_onehot(y: NDArray[Any]) -> None:
    if len(y) > 1 and (y.astype(int).sum(axis=1) == 1).all():
        warn_user(
            "Each row of y has a single 1. An indicator matrix means multi-label, where an image "
            "may have several labels or none; for exclusive classes pass y.argmax(axis=1). If "
            "multi-label is intended, task='multilabel' avoids this warning."
        )


def _indicator(y: NDArray[Any]) -> NDArray[Any]:
    allowed = np.isin(y, (0, 1))
    if not allowed.all():
        raise InputError(
            f"y has shape {y.shape}, which means multi-label, where only 0 and 1 are allowed; "
            f"found {list(dict.fromkeys(y[~allowed].tolist()))[:10]}. For one label per image pass "
            "shape (n,) or (n, 1)."
        )
    return y


def as_array(values: Any, name: str) -> NDArray[Any]:
    """Array of the values of a list, array, pandas column or tensor (on any device).

    Raises
    ------
    InputError
        Rows have different lengths.
    """
    if isinstance(values, Tensor):
        values = values.detach().cpu()
    try:
        array = np.asarray(values)
    except ValueError as reason:
        raise InputError(f"{name} cannot be converted to an array: {reason}") from reason
    # scikit-learn does not support numpy's variable-length strings (StringDType).
    return np.asarray(array.tolist()) if array.dtype.kind == "T" else array


def any_missing(values: NDArray[Any]) -> bool:
    """Whether any value is NaN, infinity, None or pandas.NA."""
    if values.dtype.kind == "f":
        return not np.isfinite(values).all()
    return values.dtype == object and any(map(_is_missing, values.ravel()))


def _is_missing(value: Any) -> bool:
    try:
        return value is None or bool(value != value)
    except TypeError:  # comparing pandas.NA with itself gives no bool
        return True


def check_lengths(n_images: int, **others: Any) -> None:
    """Check that labels, weights and groups have one entry per image.

    Raises
    ------
    InputError
        The numbers differ; the message gives both.
    """
    for name, values in others.items():
        found = n_images if values is None else len(np.atleast_1d(as_array(values, name)))
        if found != n_images:
            raise InputError(
                f"Found input variables with inconsistent numbers of samples: {n_images} images, "
                f"but {name} has {found} entries."
            )
