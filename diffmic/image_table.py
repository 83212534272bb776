"""A table of image files with labels, and matrices whose columns have names."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from .errors import InputError


class NamedColumns(np.ndarray[Any, Any]):
    """Matrix (n, L) whose columns have names.

    The names stay with chosen rows and columns, copies, and what is computed element by element.
    Whatever else is made of the matrix has no names, rather than perhaps the wrong ones.

    Parameters
    ----------
    values : array-like of shape (n, L)
    columns : sequence of str
        Name of each column.
    """

    columns: list[str]

    def __new__(cls, values: Any, columns: Sequence[str]) -> Self:
        matrix = np.asarray(values).view(cls)
        matrix.columns = [str(name) for name in columns]
        return matrix

    def __array_finalize__(self, obj: Any) -> None:
        self.columns = []

    def _named(self, found: Any, columns: Sequence[str]) -> Any:
        """What was found, with names if it has a column for each."""
        plain = np.asarray(found) if isinstance(found, np.ndarray) else found
        several = np.ndim(plain) == 2 and plain.shape[1] == len(columns) > 1
        return NamedColumns(plain, columns) if several else plain

    def __getitem__(self, key: Any) -> Any:
        found = np.asarray(self)[key]
        names: Any = self.columns
        if isinstance(key, tuple) and len(key) == 2 and key[1] is not Ellipsis:
            try:
                names = np.asarray(self.columns, dtype=object)[key[1]]
            except (IndexError, TypeError):
                names = []
            names = list(names) if isinstance(names, np.ndarray) and names.ndim == 1 else []
        elif isinstance(key, tuple) and key[1:] != (Ellipsis,):
            names = []
        return self._named(found, names)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        """Result without names, but for what is computed element by element."""
        plain = [np.asarray(x) if isinstance(x, NamedColumns) else x for x in inputs]
        if "out" in options:
            options["out"] = tuple(
                np.asarray(x) if isinstance(x, NamedColumns) else x for x in options["out"]
            )
        found = getattr(ufunc, method)(*plain, **options)
        named = [x.columns for x in inputs if isinstance(x, NamedColumns)]
        alike = method == "__call__" and all(names == named[0] for names in named)
        return self._named(found, named[0]) if alike and named else found

    def astype(self, *args: Any, **options: Any) -> Any:
        return self._named(np.asarray(self).astype(*args, **options), self.columns)

    def copy(self, *args: Any, **options: Any) -> Any:
        return self._named(np.asarray(self).copy(*args, **options), self.columns)

    def __copy__(self) -> Any:
        return self.copy()

    def __deepcopy__(self, memo: Any) -> Any:
        return self.copy()

    def __reduce__(self) -> Any:
        return NamedColumns, (np.asarray(self), self.columns)


class LabelledTable:
    """A table of images with labels and, where known, splits and groups: what its kinds share.

    Kinds are frozen dataclasses. Each says in ``_by_image`` which of its fields have an entry for
    each image.
    """

    _by_image: ClassVar[tuple[str, ...]]
    images: Any  # list of Path, or array
    labels: NDArray[Any]
    label_names: list[str]
    names: Any  # of each label, or of each column by its number; None: see label_names
    splits: NDArray[np.str_] | None
    groups: NDArray[Any] | None

    def __post_init__(self) -> None:
        if np.ndim(self.labels) == 2:
            labels = NamedColumns(self.labels, self.label_names)
            object.__setattr__(self, "labels", labels)

    def __len__(self) -> int:
        return len(self.images)

    def one_part(self) -> Self:
        """The table itself, after a check that it holds no more than one split.

        Raises
        ------
        InputError
            Images of several splits would be learnt together.
        """
        splits = [] if self.splits is None else np.unique(self.splits).tolist()
        if len(splits) > 1:
            raise InputError(
                f"The table has the splits {splits}, which would be learnt together. Choose one: "
                f"table.part({splits[-1]!r})."
            )
        return self

    def part(self, *names: str) -> Self:
        """Table of the images whose split has one of these names.

        Raises
        ------
        InputError
            There are no such images, or no splits.
        """
        if self.splits is None:
            raise InputError("The images have no splits; fit splits off a validation part itself.")
        index = np.flatnonzero(np.isin(self.splits, names))
        if len(index) == 0:
            raise InputError(
                f"No image has the split {' or '.join(map(repr, names))}; there are "
                f"{np.unique(self.splits).tolist()}."
            )
        columns = {name: getattr(self, name) for name in self._by_image}
        chosen = {
            name: [values[i] for i in index] if isinstance(values, list) else values[index]
            for name, values in columns.items()
            if values is not None
        }
        return replace(self, **chosen)  # type: ignore[type-var]


@dataclass(frozen=True)
class ImageTable(LabelledTable):
    """Table of image paths with labels and, where known, splits and groups.

    Attributes
    ----------
    paths : list of Path
        Paths of the n images.
    labels : ndarray of shape (n,) or (n, L)
        One label per image, or an indicator matrix, in which NaN is a label that is not known;
        its columns have the names of the labels, which ``fit`` takes along.
    label_names : list of str
        Names of the classes, or of the columns of the indicator matrix.
    splits : ndarray of shape (n,) or None
        Name of the split of each image, such as train, val or test.
    groups : ndarray of shape (n,) or None
        Group of each image, such as its patient or lesion.
    """

    _by_image = ("paths", "labels", "splits", "groups")
    paths: list[Path]
    labels: NDArray[Any]
    label_names: list[str]
    splits: NDArray[np.str_] | None = None
    groups: NDArray[Any] | None = None

    @property
    def images(self) -> list[Path]:
        """The paths, by the name that all tables of images have for them."""
        return self.paths

    @property
    def names(self) -> None:
        """None: labels are their own names, and columns have theirs."""
        return None
