"""Values of labels as they are written: words, numbers, nothing."""

import re
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..conventions import TEXTS_FOR_MISSING
from ..errors import InputError

Texts = Collection[str]


def texts_for_nothing(na_values: Sequence[str] | None) -> frozenset[str]:
    """Texts of cells that hold no value: the empty one, and those that were given, or pandas'.

    Raises
    ------
    InputError
        ``na_values`` are no texts.
    """
    if na_values is None:
        return frozenset((*TEXTS_FOR_MISSING, "NAN", "Nan", "<na>"))
    given = [na_values] if isinstance(na_values, str) else [*na_values]
    if not all(isinstance(text, str) for text in given):
        raise InputError(f"na_values is {na_values!r}; give texts, such as ['NA', '-999'].")
    return frozenset(("", *(text.strip() for text in given)))


def numbers_or_texts(texts: list[str]) -> NDArray[Any]:
    """Integers if all texts are integers without leading zeros, or 1.0; else the texts."""
    whole = all(re.fullmatch(r"(0|-?[1-9]\d*)(\.0+)?", text, re.ASCII) for text in texts)
    return np.asarray([int(text.split(".")[0]) for text in texts] if whole else texts)


def indicator_value(text: str, nothing: Texts) -> float | None:
    """0, 1, NaN for nothing and -1 for an uncertain label; None for any other text."""
    if text in nothing:
        return float("nan")
    try:
        value = float(text)
    except ValueError:
        return None
    return value if value in (-1, 0, 1) else None


def indicator_matrix(columns: dict[str, list[str]], nothing: Texts) -> NDArray[Any]:
    """Matrix (n, L) of the columns; integers if all values are 0 and 1, else floats with NaN.

    Raises
    ------
    InputError
        A column holds something else than 0, 1, -1 and nothing.
    """
    values = []
    for name, texts in columns.items():
        column = [indicator_value(text, nothing) for text in texts]
        wrong = [text for text, value in zip(texts, column, strict=True) if value is None]
        if wrong:
            raise InputError(
                f"The label column {name!r} holds {wrong[0]!r}; 0, 1, nothing for an unknown label "
                "or -1 for an uncertain one are needed."
            )
        values.append(column)
    matrix = np.asarray(values, dtype=np.float64).T
    return matrix.astype(np.int64) if np.isin(matrix, (0, 1)).all() else matrix
