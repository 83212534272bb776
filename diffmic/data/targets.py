"""Reading y: class labels of any type, or a multi-label indicator matrix."""

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Number
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..conventions import TEXTS_FOR_MISSING, warn_about_spelling
from ..errors import InputError, warn_user
from ..tasks import MULTICLASS, MULTILABEL, ORDINAL, TASKS, Task
from .columns import as_array, category_order, column_names, is_ordered, missing
from .labels import no_indicator, onehot_labels, plain_labels, unordered, unseen

# What -1 in an indicator matrix becomes, by the parameter ``uncertain``; "error": it is refused.
UNCERTAIN = {"unknown": np.nan, "positive": 1.0, "negative": 0.0}


@dataclass(frozen=True)
class TargetEncoding:
    """Encoding of class labels as one-hot or indicator rows (n, C).

    Attributes
    ----------
    classes : ndarray of shape (C,)
        Sorted class labels (those of an ordinal task in the order of an ordered categorical, if y
        is one); for multi-label, the column indices.
    task : Task
        Type of task.
    uncertain : {"error", "unknown", "positive", "negative"}
        Meaning of −1 in an indicator matrix.
    """

    classes: NDArray[Any]
    task: Task
    uncertain: str = "error"

    @classmethod
    def learn(cls, y: Any, task: str = "auto", uncertain: str = "error") -> Self:
        """Determine the classes and the task from y.

        Parameters
        ----------
        y : array-like of shape (n,), (n, 1) or (n, L)
            Labels, or an indicator matrix. For a multi-class or ordinal task, rows with a single 1
            stand for the number of its column.
        task : {"auto", "multiclass", "ordinal", "multilabel"}
            Type of task. ``"auto"`` means multi-label for an indicator matrix, ordinal for an
            ordered categorical of pandas, else multi-class. The grades of an ordinal task are
            numbers, in sorted order, or an ordered categorical of pandas or an enumeration of
            polars.
        uncertain : {"error", "unknown", "positive", "negative"}
            Meaning of −1 in an indicator matrix.

        Raises
        ------
        InputError
            y cannot be learnt, as in :func:`as_targets`, has a single class, or does not match the
            task.
        """
        return cls.learn_and_encode(y, task, uncertain)[0]

    @classmethod
    def learn_and_encode(
        cls, y: Any, task: str = "auto", uncertain: str = "error"
    ) -> tuple[Self, NDArray[np.float32]]:
        """Learn the classes of y and encode it; y is checked once, so warnings are issued once."""
        order = category_order(y)
        task = "ordinal" if task == "auto" and is_ordered(y) else task
        asked = TASKS.get(task)
        y = as_targets(y, asked if asked is not None and asked.exclusive else None, uncertain)
        encoding = cls._learn(y, task, uncertain, order)
        return encoding, encoding._encode(y)

    @classmethod
    def _learn(cls, y: NDArray[Any], task: str, uncertain: str, order: list[Any] | None) -> Self:
        kind = _kind(y, task)
        if task == "auto" and kind is MULTILABEL:
            _point_out_onehot(y)
        if kind is MULTILABEL:
            return cls(np.arange(y.shape[1]), kind, uncertain)
        classes = np.unique(y)
        if len(classes) < 2:
            raise InputError(
                f"y holds one class, {classes.tolist()}: a classifier needs at least 2 classes."
            )
        if kind is ORDINAL and order is not None:
            present = set(classes.tolist())
            classes = np.asarray([label for label in order if label in present], classes.dtype)
        elif kind is ORDINAL and classes.dtype.kind not in "biuf":
            raise InputError(unordered(classes.tolist()))
        _point_out_doubts(classes.tolist(), len(y))
        return cls(classes, kind, uncertain)

    def encode(self, y: Any, names: Mapping[Any, str] | None = None) -> NDArray[np.float32]:
        """Encode y as one-hot rows, or as its indicator matrix with NaN where unknown: (n, C).

        ``names``: display names of the classes, for the error about a label that is none of them.
        """
        return self._encode(as_targets(y, self.task, self.uncertain), names)

    def _encode(
        self, y: NDArray[Any], names: Mapping[Any, str] | None = None
    ) -> NDArray[np.float32]:
        if not self.task.exclusive:
            if y.shape[1] != len(self.classes):
                raise InputError(
                    f"y has shape {y.shape}; an indicator matrix with {len(self.classes)} columns "
                    "is needed."
                )
            indicator: NDArray[np.float32] = y.astype(np.float32)
            return indicator
        position = {label: number for number, label in enumerate(self.classes.tolist())}
        strange = [label for label in dict.fromkeys(y.tolist()) if label not in position]
        if strange:
            raise InputError(unseen(strange, self.classes.tolist(), names or {}))
        onehot: NDArray[np.float32] = np.eye(len(position), dtype=np.float32)[
            [position[label] for label in y.tolist()]
        ]
        return onehot


def suits(y: Any, task: str, uncertain: str = "error") -> bool:
    """Whether y can hold labels of a task: by its shape, and for grades by its order."""
    labels = as_targets(y, uncertain=uncertain)
    if labels.ndim == 2 and task in ("multiclass", "ordinal"):
        return bool((labels.sum(axis=1) == 1).all())
    if labels.ndim == 2 or task == "multilabel":
        return labels.ndim == 2 and task in ("auto", "multilabel")
    return task != "ordinal" or labels.dtype.kind in "biuf" or category_order(y) is not None


def as_targets(y: Any, task: Task | None = None, uncertain: str = "error") -> NDArray[Any]:
    """y as labels (n,), or as a multi-label indicator (n, L), in which NaN is an unknown label.

    Parameters
    ----------
    y : array-like
    task : Task or None
        Task that y must match in shape; None: either shape is accepted.
    uncertain : {"error", "unknown", "positive", "negative"}
        Meaning of −1 in an indicator matrix.

    Raises
    ------
    InputError
        y is None or empty, has continuous values or an unsupported shape, or lacks the label of an
        image.
    """
    if y is None:
        raise InputError(
            "y is missing: this estimator requires y to be passed, but the target y is None. Give "
            "y, or a Dataset or DataLoader whose items hold targets."
        )
    columns = column_names(y)
    y = as_array(y, "y")
    if y.dtype.kind == "c":
        raise InputError("y: Complex data not supported.")
    if y.ndim == 2 and y.shape[1] > 1:
        if task is not None and task.exclusive:
            return onehot_labels(y)
        return _indicator(y, uncertain, columns)
    if y.ndim not in (1, 2) or y.size == 0:
        single = f", the single value {y.item()!r:.80}" if y.ndim == 0 else ""
        raise InputError(
            f"y has shape {y.shape}{single}; labels of shape (n,) or (n, 1), or an indicator "
            "matrix (n, L) are needed."
        )
    labels = plain_labels(y.reshape(-1))
    if task is not None and not task.exclusive:
        raise InputError(
            f"y has shape {y.shape}; the task is {task.name}: an indicator matrix (n, L) is "
            "needed, with a column of 0 and 1 for each label."
        )
    if labels.dtype.kind == "f" and (labels != np.floor(labels)).any():
        raise InputError(
            f"Unknown label type: continuous. y holds {labels[labels != np.floor(labels)][0]}. "
            "Labels must be integers, strings, or an indicator matrix."
        )
    return labels


def _kind(y: NDArray[Any], task: str) -> Task:
    """The requested task, after a check that y matches it; for "auto", the task that y implies."""
    found = MULTILABEL if y.ndim == 2 else MULTICLASS
    if task == "auto":
        return found
    if task not in TASKS:
        raise InputError(f"task is {task!r}; give one of {['auto', *TASKS]}.")
    kind = TASKS[task]
    if found.exclusive and not kind.exclusive:
        raise InputError(
            f"task={task!r} needs an indicator matrix (n, L) of 0 and 1, one column for each of at "
            f"least 2 labels, but y has shape {y.shape}. Convert sets of labels with "
            "sklearn.preprocessing.MultiLabelBinarizer; for one label per image pass task='auto'."
        )
    return kind


def _point_out_onehot(y: NDArray[Any]) -> None:
    if len(y) > 1 and (y.sum(axis=1) == 1).all():
        warn_user(
            "Each row of y has a single 1. An indicator matrix means multi-label, where an image "
            "may have several labels or none; for exclusive classes set task='multiclass'. If "
            "multi-label is intended, task='multilabel' avoids this warning."
        )


def _point_out_doubts(classes: list[Any], n_images: int) -> None:
    """Warn of classes that may be missing labels written as text, or no classes at all."""
    blank = [
        label for label in classes if isinstance(label, str) and label.strip() in TEXTS_FOR_MISSING
    ]
    if blank:
        warn_user(
            f"y holds the label {blank[0]!r}, which is learnt as a class like any other. If it "
            "stands for a missing label, remove these images."
        )
    warn_about_spelling([label for label in classes if isinstance(label, str)], "labels in y")
    others = [label for label in classes if label not in (-1, 255)]
    odd = [label for label in classes if label in (-1, 255) and not isinstance(label, str)]
    if len(odd) == 1 and len(others) > 1 and others == list(range(len(others))):
        warn_user(
            f"y holds the label {odd[0]} beside 0 to {len(others) - 1}. It is learnt as a class "
            "like any other. If it stands for images without a label, as in many data sets, remove "
            "them."
        )
    if n_images > 20 and len(classes) > n_images / 2:
        warn_user(
            f"y holds {len(classes)} different labels for {n_images} images, such as "
            f"{classes[:3]}: they may be identifiers or measurements, not classes."
        )


def _indicator(y: NDArray[Any], uncertain: str, columns: list[Any]) -> NDArray[Any]:
    """Indicator of 0 and 1, as integers, or as floats with NaN where a label is unknown."""
    unknown = missing(y, infinity=False)
    known = y[~unknown] if y.dtype.kind in "biufUSO" else y[~unknown].astype(object)
    allowed = (0, 1) if uncertain == "error" else (0, 1, -1)
    if known.dtype == object:
        other = [value for value in known.tolist() if not _is_one_of(value, allowed)]
    else:
        other = known[~np.isin(known, allowed)].tolist()
    if other:
        raise InputError(no_indicator(y.shape, _distinct(other), columns))
    found = np.full(y.shape, np.nan)
    found[~unknown] = known.astype(float)
    found[found == -1] = UNCERTAIN.get(uncertain, np.nan)
    return found if np.isnan(found).any() else found.astype(int)


def _distinct(values: list[Any]) -> list[Any]:
    """The first different values; of those that cannot be hashed, the first one alone."""
    try:
        return list(dict.fromkeys(values))[:10]
    except TypeError:
        return values[:1]


def _is_one_of(value: Any, allowed: tuple[int, ...]) -> bool:
    return isinstance(value, Number | np.bool_ | Tensor) and bool(value in allowed)
