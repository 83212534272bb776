"""Class labels of any kind as plain numbers or strings, and what is said of those that are none."""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..conventions import IMAGE_SUFFIXES
from ..errors import InputError
from .columns import MISSING_AS_TEXT, as_objects, missing

_AS_TEXT = "If these are classes: [str(label) for label in y]."


def plain_labels(labels: NDArray[Any]) -> NDArray[Any]:
    """Labels (n,) as booleans, numbers or strings.

    Python objects get the type that they have in common. Bytes, as HDF5 stores text, are decoded,
    and a member of an enumeration stands for its value.

    Raises
    ------
    InputError
        The label of an image is missing, or labels are of several kinds or of one that cannot be
        learnt, such as dates or lists.
    """
    if labels.dtype.kind == "S":
        labels = np.array([_text(label) for label in labels.tolist()])
    elif labels.dtype == object:
        labels = _of_objects(labels.tolist())
    if (absent := missing(labels)).any():
        raise InputError(_without_label(labels, absent))
    if labels.dtype.kind not in "biufUO":
        fields = labels.dtype.names
        advice = f" Choose a field: y[{fields[0]!r}]." if fields else f" {_AS_TEXT}"
        raise InputError(
            f"y has the data type {labels.dtype}; labels must be integers, booleans or strings."
            + advice
        )
    if labels.dtype.kind in "UO" and all(str(x).lower().endswith(IMAGE_SUFFIXES) for x in labels):
        raise InputError(
            f"y holds names of image files, such as {str(labels[0])!r}, where labels are needed. "
            "Pass the files as X and the label of each as y."
        )
    return labels


def _of_objects(entries: list[Any]) -> NDArray[Any]:
    plain = [_plain(entry) for entry in entries]
    gone = missing(as_objects(plain), infinity=False)
    found = [entry for entry, absent in zip(plain, gone, strict=True) if not absent]
    if any(isinstance(entry, list | tuple | set | frozenset | np.ndarray) for entry in found):
        raise InputError(
            f"y holds collections of labels, such as {str(found[0])[:80]}: several labels for an "
            "image. Convert them to an indicator matrix, for a multi-label task: "
            "sklearn.preprocessing.MultiLabelBinarizer().fit_transform(y)."
        )
    kinds = {_kind(entry): entry for entry in reversed(found)}
    if len(kinds) > 1:
        mixed = sorted(kinds, reverse=True)
        examples = " and ".join(f"{kinds[kind]!r:.60}" for kind in mixed)
        raise InputError(
            f"y mixes {' and '.join(mixed)}, such as {examples}; give labels of one kind."
        )
    if kinds.keys() == {"numbers"} and not gone.any():
        if any(isinstance(entry, int) and not -(2**63) <= entry < 2**63 for entry in found):
            raise InputError(
                "y holds integers that 64 bits cannot represent; give such labels as strings."
            )
        return np.asarray(found)
    if kinds and not kinds.keys() <= {"numbers", "strings"}:
        kind, entry = next(iter(kinds.items()))
        raise InputError(
            f"y holds {kind}, such as {entry!r:.60}; labels must be integers, booleans or strings. "
            + _AS_TEXT
        )
    return as_objects(plain)


def _plain(entry: Any) -> Any:
    """Entry as an object of Python: the value of an enumeration or numpy scalar, text of bytes."""
    if isinstance(entry, Enum):
        entry = entry.value
    if isinstance(entry, np.ndarray) and entry.size == 1:
        entry = entry.reshape(())[()]
    if isinstance(entry, bytes):
        return _text(entry)
    return entry.item() if isinstance(entry, np.generic) and entry.dtype.kind in "biufU" else entry


def _text(label: bytes) -> str:
    try:
        return label.decode("utf-8")
    except UnicodeDecodeError as reason:
        raise InputError(
            f"y holds the bytes {label!r:.60}, which are no text in UTF-8: {reason}. Give strings."
        ) from reason


def _kind(entry: Any) -> str:
    if isinstance(entry, str):
        return "strings"
    return "numbers" if isinstance(entry, bool | int | float) else type(entry).__name__ + "s"


def _without_label(labels: NDArray[Any], absent: NDArray[np.bool_]) -> str:
    text = ""
    if any(isinstance(label, str) for label in labels.tolist()):
        text = f" The texts {MISSING_AS_TEXT}, as numpy and pandas write it, count as missing, too."
    return (
        "y contains NaN, infinity or None. Remove images without a label, or label them: "
        f"{int(absent.sum())} of {len(labels)} have none, the first is image "
        f"{int(absent.argmax())}.{text}"
    )


def onehot_labels(y: NDArray[Any]) -> NDArray[np.intp]:
    """Number of the column of each row that holds its single 1, (n,).

    Raises
    ------
    InputError
        A row has no 1, several, or other values; the message says which.
    """
    if y.dtype == object:  # in which pandas.NA cannot be compared
        y = np.where(missing(y), np.nan, y)
    ones, known = (y == 1).astype(bool), ((y == 1) | (y == 0)).astype(bool)
    wrong = ~known.all(axis=1) | (ones.sum(axis=1) != 1)
    if wrong.any():
        first = int(wrong.argmax())
        row = y[first].tolist()
        found = f"{int(ones[first].sum())} of them" if known[first].all() else "other values"
        raise InputError(
            f"y has shape {y.shape}, but a multiclass or ordinal task needs a label per image, of "
            f"shape (n,), or rows with a single 1. Row {first} has {found}: {row[:20]} "
            f"({int(wrong.sum())} such rows). "
            "Images with several labels, or with none, are a task='multilabel'."
        )
    numbers: NDArray[np.intp] = ones.argmax(axis=1)
    return numbers


def enum_names(y: Any) -> dict[Any, str] | None:
    """Names of the members of an enumeration of integers, by value; None for any other labels."""
    if not isinstance(y, list | tuple) and getattr(getattr(y, "dtype", None), "kind", "") != "O":
        return None
    members = [member for member in y if isinstance(member, Enum)]
    return {m.value: m.name for m in members if isinstance(m.value, int)} or None


def named(labels: Sequence[Any], names: Mapping[Any, str]) -> str:
    """Labels as text, each with its display name if it has one."""
    return ", ".join(
        f"{label!r} ({names[label]})" if names.get(label, label) != label else repr(label)
        for label in labels
    )


def unseen(strange: Sequence[Any], classes: Sequence[Any], names: Mapping[Any, str]) -> str:
    """Message for labels that are not among the classes."""
    text = f"y contains previously unseen labels: [{named(strange[:10], names)}]"
    message = f"{text}; the known classes are [{named(classes[:20], names)}]."
    if isinstance(strange[0], str) != isinstance(classes[0], str) and _same_numbers(
        strange, classes
    ):
        if isinstance(strange[0], str):
            return f"{message} They are numbers as text here: convert them, y.astype(float)."
        return f"{message} They are text there: convert y to the same text."
    folded = {str(label).strip().casefold() for label in classes}
    if all(str(label).strip().casefold() in folded for label in strange):
        return f"{message} They differ in capitals or spaces alone."
    return message


def _same_numbers(strange: Sequence[Any], classes: Sequence[Any]) -> bool:
    try:
        return {float(label) for label in strange} <= {float(label) for label in classes}
    except ValueError:
        return False


def unordered(classes: Sequence[Any]) -> str:
    """Message for grades of an ordinal task whose order is unknown."""
    message = (
        f"task is 'ordinal', and y holds the words {classes[:10]}, whose order is unknown. Give "
        "the grades as numbers, and words for them as class_names; or as an ordered categorical, "
        "pandas.Categorical(y, [...], ordered=True); or set task='auto' if the classes have no "
        "order."
    )
    try:
        [float(label) for label in classes]
    except ValueError:
        return message
    return f"{message} These words are numbers: y.astype(float)."


def no_indicator(shape: tuple[int, ...], found: list[Any], columns: list[Any]) -> str:
    """Message for a matrix that holds values other than 0 and 1."""
    message = (
        f"y has shape {shape}, which means multi-label, where only 0 and 1 are allowed; found "
        f"{found}. For one label per image pass shape (n,) or (n, 1)."
    )
    if columns:
        message = f"y is a table with the columns {columns[:10]}. {message[:-1]}: one column."
    if len(found) == 1 and isinstance(found[0], int | float) and found[0] == -1:
        return (
            f"{message} If -1 stands for an uncertain label, as in CheXpert, choose what it means: "
            "uncertain='unknown', 'positive' or 'negative'. If it stands for absent, pass y > 0."
        )
    if all(isinstance(value, float) and 0 < value < 1 for value in found):
        return f"{message} Decide probabilities first, for example y >= 0.5."
    if all(value in ("0", "1", "0.0", "1.0", "-1", "-1.0", "") for value in map(str, found)):
        return f"{message} They are numbers as text: convert them, y.astype(float)."
    if any(isinstance(value, str) for value in found):
        return (
            f"{message} For several labels an image: "
            "sklearn.preprocessing.MultiLabelBinarizer().fit_transform(y)."
        )
    return message
