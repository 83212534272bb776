"""Soft labels: probabilities of the classes that training learns in place of one class an image."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from .columns import as_array, column_names
from .targets import TargetEncoding

_TOLERANCE = 0.02  # of the sum of a row, by which it is divided: rounded shares are welcome


def read_soft_labels(values: Any, encoding: TargetEncoding, shown: Sequence[str]) -> Tensor:
    """Soft labels as probabilities (n, C), float32, in the order of the classes.

    Parameters
    ----------
    values : array-like of shape (n, C)
        Columns of a table that have the names of the classes are put into their order.
    encoding : TargetEncoding
    shown : sequence of str
        Display names of the classes.

    Raises
    ------
    InputError
        The classes do not exclude each other, the shape or names are not those of the classes, or a
        row is no distribution.
    """
    classes = encoding.classes.tolist()
    if not encoding.task.exclusive:
        raise InputError(
            "soft_labels are for exclusive classes, and this task is multilabel. Leave them out."
        )
    order = _order(column_names(values), classes, shown)
    found = as_array(values, "soft_labels")
    if found.ndim != 2 or found.shape[1] != len(classes):
        raise InputError(
            f"soft_labels has shape {found.shape}; needed is a row for each image, with a "
            f"probability for each of the {len(classes)} classes {classes[:20]}."
        )
    try:
        proba = found.astype(np.float64)[:, order]
    except (TypeError, ValueError) as reason:
        raise InputError(f"soft_labels holds something other than numbers: {reason}.") from reason
    sums = proba.sum(axis=1)
    wrong = ~(np.isfinite(proba) & (proba >= 0)).all(axis=1) | ~(np.abs(sums - 1) < _TOLERANCE)
    if wrong.any():
        first = int(wrong.argmax())
        raise InputError(
            "Each row of soft_labels must be probabilities of at least 0 whose sum is 1. Row "
            f"{first} is {proba[first].tolist()[:20]} ({int(wrong.sum())} such rows). Divide "
            "counts of opinions by their sum."
        )
    return torch.from_numpy((proba / sums[:, None]).astype(np.float32))


def _order(columns: list[Any], classes: list[Any], shown: Sequence[str]) -> list[int]:
    """Where the column of each class is; by position in what has no names of its own."""
    n_classes = len(classes)
    if not columns or len(columns) != n_classes or columns == list(range(n_classes)):
        return list(range(n_classes))
    for names in (classes, list(map(str, classes)), list(shown)):
        if set(columns) == set(names) and len(set(names)) == n_classes:
            return [columns.index(name) for name in names]
    raise InputError(
        f"soft_labels is a table with the columns {columns[:20]}, but the classes are "
        f"{classes[:20]}. Name the columns by the classes, or pass its values, in their order."
    )
