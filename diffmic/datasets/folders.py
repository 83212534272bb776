"""Image datasets on disk: a folder per class, or a CSV file with file, label and split."""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True)
class ImageTable:
    """Table of image paths with labels and, where known, splits and groups.

    Attributes
    ----------
    paths : list of Path
        Paths of the n images.
    labels : ndarray of shape (n,) or (n, L)
        One label per image, or an indicator matrix.
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


def read_folders(folder: str | Path) -> ImageTable:
    """Read a dataset with a folder per class: ``folder/label/image.png``.

    If the folders of the first level are ``train``, ``val``, ``validation`` or ``test``, they are
    the splits: ``folder/train/label/image.png``.

    Parameters
    ----------
    folder : str or Path
        Root folder of the dataset.

    Returns
    -------
    ImageTable

    Raises
    ------
    InputError
        The folder does not exist, contains no images, or has another structure.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"There is no folder {str(folder)!r}.")
    files = sorted(
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")
    )
    parts = [f.relative_to(folder).parts for f in files]
    splits_known = bool(parts) and all(
        len(p) == 3 and p[0] in ("train", "val", "validation", "test") for p in parts
    )
    depth = 3 if splits_known else 2
    stray = next((f for f, p in zip(files, parts, strict=True) if len(p) != depth), None)
    if not files or stray:
        raise InputError(
            f"{str(folder)!r} must hold a folder per class with images in it (or train, val and "
            f"test folders with such class folders); found {len(files)} images"
            + (f", and {str(stray)!r} in another place." if stray else ".")
        )
    labels = np.asarray([p[-2] for p in parts])
    splits = np.asarray([p[0] for p in parts]) if splits_known else None
    return ImageTable(files, labels, np.unique(labels).tolist(), splits)


def read_csv(
    file: str | Path, *, group: str | None = None, labels: Sequence[str] | None = None
) -> ImageTable:
    """Read a dataset from a CSV file with the columns ``file``, ``label`` and optionally ``split``.

    Parameters
    ----------
    file : str or Path
        CSV file in UTF-8, with image paths relative to its folder. Without a column ``label`` the
        task is multi-label, and all columns that contain only 0 and 1 are labels.
    group : str or None
        Name of the column with the group, such as the patient or lesion.
    labels : sequence of str or None
        Names of the label columns of a multi-label task; None: as described above.

    Returns
    -------
    ImageTable

    Raises
    ------
    InputError
        The file does not exist, has no rows, or lacks columns or cells.
    """
    file = Path(file)
    if not file.is_file():
        raise InputError(f"There is no file {str(file)!r}.")
    columns, rows = _read_rows(file)
    if "file" not in columns or (group is not None and group not in columns):
        needed = ["file", "label"] + ([group] if group else [])
        raise InputError(f"{str(file)!r} needs the columns {needed}; found {columns}.")
    if not rows:
        raise InputError(f"{str(file)!r} has no rows below its header.")
    for number, row in enumerate(rows, start=1):
        empty = [column for column in ("file", "label", "split", group) if row.get(column) == ""]
        if empty:
            raise InputError(
                f"Row {number} of {str(file)!r} has nothing in the column {empty[0]!r}."
            )
    if "label" in columns and labels is None:
        y = _numbers([row["label"] for row in rows])
        names = [str(name) for name in np.unique(y).tolist()]
    else:
        binary = [
            column
            for column in columns
            if column not in ("file", "split", group)
            and {row[column] for row in rows} <= {"0", "1"}
        ]
        names = binary if labels is None else list(labels)
        if len(names) < 2 or not set(names) <= set(binary):
            raise InputError(
                f"{str(file)!r} needs a column 'label', or at least 2 columns of 0 and 1"
                + ("" if labels is None else f", {names}")
                + f"; those of 0 and 1 are {binary}."
            )
        y = np.asarray([[int(row[name]) for name in names] for row in rows])
    return ImageTable(
        [file.parent / row["file"] for row in rows],
        y,
        names,
        np.asarray([row["split"] for row in rows]) if "split" in columns else None,
        np.asarray([row[group] for row in rows]) if group is not None else None,
    )


def _read_rows(file: Path) -> tuple[list[str], list[dict[str | None, str]]]:
    """Column names and rows of a CSV file."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, restval="")
            columns = list(reader.fieldnames or [])
            rows: list[dict[str | None, str]] = list(reader)
    except (UnicodeDecodeError, csv.Error) as reason:
        raise InputError(f"{str(file)!r} cannot be read: {reason}. Save it as UTF-8.") from reason
    for number, row in enumerate(rows, start=1):
        if None in row:  # the key under which csv stores surplus cells
            raise InputError(f"Row {number} of {str(file)!r} has more cells than the header.")
    return columns, rows


def _numbers(texts: list[str]) -> NDArray[Any]:
    """Integers if all texts are integers without leading zeros; else the texts themselves."""
    whole = all(re.fullmatch(r"0|-?[1-9]\d*", text, re.ASCII) for text in texts)
    return np.asarray([int(text) for text in texts] if whole else texts)
