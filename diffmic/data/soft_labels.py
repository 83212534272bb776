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


def read_soft_labels(
    values: Any,
    encoding: TargetEncoding,
    shown: Sequence[str],
    rows: Sequence[int] | None = None,
) -> Tensor:
    """Soft labels as probabilities (n, C), float32, in the order of the classes.

    Parameters
    ----------
    values : array-like of shape (n, C)
        Columns of a table that have the names of the classes are put into their order.
    encoding : TargetEncoding
    shown : sequence of str
        Display names of the classes.
    rows : sequence of int or None
        Numbers of the rows in what the user passed, for messages; None: they are all here.

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
    found, names = as_array(values, "soft_labels"), _names(values)
    if found.ndim != 2 or found.shape[1] != len(classes):
        columns = f" and the columns {names[:20]}" if names else ""
        raise InputError(
            f"soft_labels has shape {found.shape}{columns}; needed is a row for each image, with a "
            f"probability for each of the {len(classes)} classes in y, {classes[:20]}. Leave out "
            "the columns of other classes, and divide each row by its sum."
        )
    try:
        proba = found.astype(np.float64)[:, _order(names, classes, shown)]
    except (TypeError, ValueError) as reason:
        raise InputError(f"soft_labels holds something other than numbers: {reason}.") from reason
    sums = proba.sum(axis=1)
    wrong = ~(np.isfinite(proba) & (proba >= 0)).all(axis=1) | ~(np.abs(sums - 1) < _TOLERANCE)
    if wrong.any():
        first = int(wrong.argmax())
        number = first if rows is None else rows[first]
        raise InputError(
            "Each row of soft_labels must be probabilities of at least 0 whose sum is 1. Row "
            f"{number} is {proba[first].tolist()[:20]} ({int(wrong.sum())} such rows). Divide "
            "counts of opinions by their sum."
        )
    return torch.from_numpy((proba / sums[:, None]).astype(np.float32))


def _names(values: Any) -> list[str]:
    """Names of the columns; empty for anything but a table, and for pandas' numbers of columns."""
    numbered = type(getattr(values, "columns", None)).__name__ == "RangeIndex"
    return [] if numbered else column_names(values)


def _order(names: list[str], classes: list[Any], shown: Sequence[str]) -> list[int]:
    """Where the column of each class is; by position in what has no names of its own."""
    if not names:
        return list(range(len(classes)))
    for wanted in (list(map(str, classes)), list(shown)):
        if sorted(names) == sorted(wanted):
            return [names.index(name) for name in wanted]
    raise InputError(
        f"soft_labels is a table with the columns {names[:20]}, but the classes are "
        f"{classes[:20]}. Name the columns by the classes, or pass its values, in their order."
    )
