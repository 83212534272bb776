"""The table that a data set on disk is read into: paths, labels, splits and groups."""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, warn_user

SPLIT_NAMES = {
    *("train", "training", "val", "valid", "validation", "dev"),
    *("test", "testing", "eval", "evaluation"),
}


@dataclass(frozen=True)
class ImageTable:
    """Table of image paths with labels and, where known, splits and groups.

    Attributes
    ----------
    paths : list of Path
        Paths of the n images.
    labels : ndarray of shape (n,) or (n, L)
        One label per image, or an indicator matrix, in which NaN is a label that is not known.
    label_names : list of str
        Names of the classes, or of the columns of the indicator matrix.
    splits : ndarray of shape (n,) or None
        Name of the split of each image, such as train, val or test.
    groups : ndarray of shape (n,) or None
        Group of each image, such as its patient or lesion.
    """

    paths: list[Path]
    labels: NDArray[Any]
    label_names: list[str]
    splits: NDArray[np.str_] | None = None
    groups: NDArray[np.str_] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def part(self, *names: str) -> "ImageTable":
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
        return ImageTable(
            [self.paths[i] for i in index],
            self.labels[index],
            self.label_names,
            self.splits[index],
            self.groups[index] if self.groups is not None else None,
        )


def as_path(value: Any, name: str) -> Path:
    """A path that the user gave, with ``~`` expanded.

    Raises
    ------
    InputError
        It is no path, or names a home folder that does not exist.
    """
    try:
        text = os.fspath(value)
        if not isinstance(text, str) or not text:
            raise TypeError
        return Path(text).expanduser()
    except (TypeError, RuntimeError) as reason:
        why = f" ({reason})" if isinstance(reason, RuntimeError) else ""
        raise InputError(f"{name} is {value!r}; give the path of it{why}.") from reason


def some(names: Sequence[Any], limit: int = 3) -> str:
    """The first names, and that there are more."""
    shown = ", ".join(str(name) for name in names[:limit])
    return shown + (", …" if len(names) > limit else "")


def warn_about_spelling(names: Sequence[str], what: str) -> None:
    """Point out names that the eye takes for one."""
    spelt = defaultdict(list)
    for name in names:
        spelt[_alike(name)].append(name)
    twice = [written for written in spelt.values() if len(written) > 1]
    if twice:
        warn_user(
            f"The {what} {' and '.join(map(repr, twice[0]))} differ in case, spaces or accents "
            "alone, and are read as different classes. Write them alike if they are one class."
        )


def _alike(name: str) -> str:
    """A name without what the eye passes over: case, spaces, and how accents are encoded."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().replace("_", " ").split())
