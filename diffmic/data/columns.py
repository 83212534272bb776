"""Columns that come with images (labels, weights, groups) as arrays, from any container."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence, ValuesView
from collections.abc import Set as AbstractSet
from enum import Enum
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import InputError, warn_user

# What numpy and pandas make of a missing value where they write an array as text.
MISSING_AS_TEXT = ("nan", "NaN", "<NA>", "NaT")
_ABSENT = {*MISSING_AS_TEXT, *(text.encode() for text in MISSING_AS_TEXT)}


def as_array(values: Any, name: str) -> NDArray[Any]:
    """Array of the values of a list, array, table column or tensor (on any device).

    A missing entry stays recognisable for :func:`missing`: it never becomes a string, and where an
    array holds the text of one, such as ``"nan"``, it is missing again. In a list that is a word.

    Raises
    ------
    InputError
        Rows have different lengths, or the values have no order or no length.
    """
    if isinstance(values, (Mapping, AbstractSet, Iterator)):
        keys = f" with the keys {[*values][:10]}" if isinstance(values, Mapping) else ""
        raise InputError(
            f"{name} is a {type(values).__name__}{keys}; give a list or an array with one entry "
            "per image, in the order of the images."
        )
    if hasattr(values, "collect_schema") and hasattr(values, "collect"):  # of polars
        raise InputError(f"{name} is a {type(values).__name__}: pass {name}.collect().")
    if isinstance(values, np.ma.MaskedArray):
        found = np.asarray(values)
        if values.mask.any():
            found = found.astype(object)
            found[values.mask] = None
        return found
    if hasattr(values, "toarray"):  # a sparse matrix of scipy
        values = values.toarray()
    try:
        if isinstance(values, Tensor):
            return _of_tensor(values)
        if isinstance(values, list | tuple | deque | ValuesView):
            return _of_sequence(list(values))
        array = np.asarray(_plain(values))
    except Exception as reason:  # whatever objects of others raise
        raise InputError(f"{name} cannot be converted to an array: {reason}") from reason
    if array.dtype.kind == "T":  # of variable length, which scikit-learn does not support
        array = _of_sequence(array.tolist())
    if array.dtype.kind in "SUO":
        words = array.astype(object)
        absent = np.array([isinstance(x, str | bytes) and x in _ABSENT for x in words.ravel()])
        if absent.any():
            words[absent.reshape(array.shape)] = None
            return words
    return array


def as_column(values: Any, name: str) -> NDArray[Any]:
    """Array of one value per image: as :func:`as_array`, and (n, 1) is (n,), as for y."""
    array = as_array(values, name)
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


def column_names(table: Any) -> list[str]:
    """Names of the columns of a table of pandas, polars or pyarrow; empty for anything else."""
    if not hasattr(table, "__len__"):  # such as a LazyFrame, whose columns are not known yet
        return []
    names = getattr(table, "column_names", getattr(table, "columns", None))
    if names is None or callable(names):
        return []
    return [str(name) for name in names]


def rows_of(values: Any, index: list[int]) -> Any:
    """Some rows of whatever holds a value for each image; a table stays a table."""
    if hasattr(values, "iloc"):
        return values.iloc[index]
    if hasattr(values, "to_pylist"):  # of pyarrow
        return values.take(index)
    if values is None or isinstance(values, (np.ndarray, Tensor)) or hasattr(values, "to_numpy"):
        return None if values is None else values[index]
    if hasattr(values, "toarray"):  # a sparse matrix of scipy
        return values.toarray()[index]
    rows = list(values)  # of a list, a range, a view of a dict, ...
    return [rows[i] for i in index]


def _of_tensor(values: Tensor) -> NDArray[Any]:
    values = values.detach().cpu()
    if values.layout is not torch.strided:
        values = values.to_dense()
    if values.is_floating_point() and values.dtype.itemsize < 4:  # numpy has no bfloat16
        values = values.float()
    found: NDArray[Any] = values.numpy(force=True)
    return found


def _of_sequence(values: Sequence[Any]) -> NDArray[Any]:
    """Array of a list; numpy alone would turn None and NaN among strings into strings."""
    entries = [_of_tensor(v) if isinstance(v, Tensor) else _plain(v) for v in values]
    words = [isinstance(entry, (str, bytes)) for entry in entries]
    whole = all(isinstance(entry, (int, np.integer)) for entry in entries)
    if any(words) and not all(words):
        return as_objects(entries)
    try:
        found = np.asarray(entries)
    except ValueError:
        if all(isinstance(entry, list | tuple | set) for entry in entries):
            return as_objects(entries)  # lists of labels, of different lengths
        raise
    # Whole numbers that 64 bits do not hold would become floats, and then other numbers.
    return as_objects(entries) if whole and found.dtype.kind == "f" else found


def _plain(value: Any) -> Any:
    """Value of a member of an enumeration: of one of strings numpy would take the name, cut off."""
    return value.value if isinstance(value, Enum) else value


def as_objects(entries: Sequence[Any]) -> NDArray[Any]:
    """Array (n,) of the entries as they are."""
    found = np.empty(len(entries), dtype=object)
    for number, entry in enumerate(entries):
        found[number] = entry
    return found


def missing(values: NDArray[Any], *, infinity: bool = True) -> NDArray[np.bool_]:
    """Whether each value is missing: NaN, NaT, None or pandas.NA; or infinity."""
    found: NDArray[np.bool_]
    if values.dtype.kind == "f":
        found = ~np.isfinite(values) if infinity else np.isnan(values)
    elif values.dtype.kind in "mM":
        found = np.isnat(values)
    elif values.dtype == object:
        found = np.array([_is_missing(value, infinity) for value in values.ravel()], bool)
        found = found.reshape(values.shape)
    else:
        found = np.zeros(values.shape, bool)
    return found


def _is_missing(value: Any, infinity: bool) -> bool:
    if isinstance(value, float | np.floating):
        return bool(np.isnan(value) or (infinity and np.isinf(value)))
    if value is None or value is np.ma.masked:
        return True
    try:
        return bool(value != value)
    except TypeError:  # comparing pandas.NA with itself gives no bool
        return True
    except Exception:  # an array, or an object that cannot be compared
        return False


def category_order(values: Any) -> list[Any] | None:
    """Categories of an ordered categorical of pandas, or of an enumeration of polars; else None."""
    dtype = _column_type(values)
    categories = getattr(dtype, "categories", None)
    if categories is None or not getattr(dtype, "ordered", type(dtype).__name__ == "Enum"):
        return None
    return list(categories)


def is_ordered(values: Any) -> bool:
    """Whether a column says that its categories are ordered, as an ordered categorical does.

    An enumeration of polars has an order, too, but whatever its categories are.
    """
    return getattr(_column_type(values), "ordered", None) is True


def _column_type(values: Any) -> Any:
    """Data type of a column, or of a table of one column; None for anything else."""
    if len(column_names(values)) == 1:
        values = values.iloc[:, 0] if hasattr(values, "iloc") else values[column_names(values)[0]]
    return getattr(values, "dtype", None)


def point_out_other_order(X: Any, **others: Any) -> None:
    """Warn of columns of pandas whose index has the same entries as another's, in another order.

    Rows belong together by their position, here as in scikit-learn. Columns of one table that was
    sorted in between belong together by their index.
    """
    columns = {"X": X} | others
    indices = {name: v.index for name, v in columns.items() if hasattr(v, "iloc")}
    if len(indices) < 2:
        return
    first = next(iter(indices))
    for name, index in indices.items():
        mine = indices[first]
        same = len(index) == len(mine) and not index.equals(mine)
        if same and index.is_unique and mine.is_unique and index.isin(mine).all():
            warn_user(
                f"{first} and {name} have the same index in another order. They are paired by "
                f"position; if they belong together by index, pass {name}.loc[{first}.index]."
            )
            return


def check_lengths(n_images: int, **others: Any) -> None:
    """Check that labels, weights and groups have one entry per image; else an error."""
    for name, values in others.items():
        if values is None:
            continue
        array = np.atleast_1d(as_array(values, name))
        if len(array) == n_images:
            continue
        turned = array.ndim == 2 and len(array) < n_images == array.size // len(array)
        raise InputError(
            f"Found input variables with inconsistent numbers of samples: {n_images} images, "
            f"but {name} has {len(array)} entries."
            + (f" Its shape is {array.shape}: turn it round, with .T." if turned else "")
        )
