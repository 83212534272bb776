"""Values of labels as they are written: words, numbers, nothing."""

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

_NOTHING = {"", "nan", "<na>"}  # how pandas and Excel write a missing value


def is_nothing(text: str) -> bool:
    """Whether a cell holds no value."""
    return text.casefold() in _NOTHING


def numbers_or_texts(texts: list[str]) -> NDArray[Any]:
    """Integers if all texts are integers without leading zeros; else the texts themselves."""
    whole = all(re.fullmatch(r"0|-?[1-9]\d*", text, re.ASCII) for text in texts)
    return np.asarray([int(text) for text in texts] if whole else texts)


def indicator_value(text: str) -> float | None:
    """0, 1, NaN for nothing and -1 for an uncertain label; None for any other text."""
    if is_nothing(text):
        return float("nan")
    try:
        value = float(text)
    except ValueError:
        return None
    return value if value in (-1, 0, 1) else None


def indicator_matrix(columns: dict[str, list[str]]) -> NDArray[Any]:
    """Matrix (n, L) of the columns; integers if all values are 0 and 1, else floats with NaN.

    Raises
    ------
    InputError
        A column holds something else than 0, 1, -1 and nothing.
    """
    values = []
    for name, texts in columns.items():
        column = [indicator_value(text) for text in texts]
        wrong = [text for text, value in zip(texts, column, strict=True) if value is None]
        if wrong:
            raise InputError(
                f"The label column {name!r} holds {wrong[0]!r}; 0, 1, nothing for an unknown label "
                "or -1 for an uncertain one are needed."
            )
        values.append(column)
    matrix = np.asarray(values, dtype=np.float64).T
    return matrix.astype(np.int64) if np.isin(matrix, (0, 1)).all() else matrix
