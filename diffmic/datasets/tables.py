"""Image datasets on disk described by a CSV file: file, label, split and group of each image."""

import codecs
import csv
import io
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..conventions import some, warn_about_spelling
from ..errors import InputError, warn_user
from ..image_table import ImageTable
from .image_files import image_suffixes
from .table import as_path
from .values import Texts, indicator_matrix, indicator_value, numbers_or_texts, texts_for_nothing

Row = dict[str, str]

_SEPARATORS = (",", ";", "\t", "|")
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_csv(
    file: str | Path,
    *,
    image: str = "file",
    label: str = "label",
    split: str = "split",
    group: str | None = None,
    labels: Sequence[str] | None = None,
    folder: str | Path | None = None,
    encoding: str | None = None,
    na_values: Sequence[str] | None = None,
) -> ImageTable:
    """Read a dataset from a CSV file with the columns ``file``, ``label`` and optionally ``split``.

    Cells may be separated by commas, semicolons, tabs or bars. Spaces around cells, empty rows and
    rows that repeat another are left out. Image names may lack their suffix.

    Parameters
    ----------
    file : str or Path
        CSV file. Without a column of labels the task is multi-label, and all columns that contain
        only 0 and 1 are labels; so are those that contain nothing or -1 besides, where a label
        is unknown (read as NaN) or uncertain.
    image, label, split : str
        Names of the columns with image paths, labels and splits.
    group : str or None
        Name of the column with the group, such as the patient or lesion.
    labels : sequence of str or None
        Names of the label columns of a multi-label task; None: as described above.
    folder : str, Path or None
        Folder that the image paths are relative to; None: that of the CSV file.
    encoding : str or None
        Encoding of the file; None: UTF-8, or UTF-16 if the file says so.
    na_values : sequence of str or None
        Texts that stand for a missing value, as an empty cell always does; None: those of
        pandas, such as NA, n/a, NaN, null and None. ``()`` keeps them all, such as a class "NA".

    Returns
    -------
    ImageTable

    Raises
    ------
    InputError
        The file does not exist, has no rows, or lacks columns or cells; or rows give one image
        two labels, splits or groups.
    """
    file = as_path(file, "file")
    if not os.path.isfile(file):
        what = " That is a folder; read_folders reads it." if file.is_dir() else ""
        raise InputError(f"There is no file {str(file)!r}.{what}")
    root = file.parent if folder is None else as_path(folder, "folder")
    if not root.is_dir():
        raise InputError(f"There is no folder {str(root)!r}.")
    columns, rows = read_rows(file, encoding)
    named = [name for name in (label, split) if name not in ("label", "split")]
    _check_columns(file, columns, rows, root, image, label, [*named, *([group] if group else [])])
    if not rows:
        raise InputError(f"{str(file)!r} has no rows below its header.")
    nothing = texts_for_nothing(na_values)
    one_label = label in columns and labels is None
    told = [c for c in (image, split, group, label if one_label else None) if c in columns]
    for number, row in rows.items():
        empty = [column for column in told if column is not None and row[column] in nothing]
        if empty:
            column, text = empty[0], row[empty[0]]
            raise InputError(
                f"Row {number} of {str(file)!r} has {text!r} in the column {column!r}, which "
                "counts as missing. Give a value, or remove the row; if it is a name, pass "
                "na_values=()."
                if text
                else f"Row {number} of {str(file)!r} has nothing in the column {column!r}."
            )
    if one_label:
        names = [label]
    else:
        names = _label_columns(file, columns, rows, (image, split, group), labels, nothing)
    paths = _Files(root).paths(file, {number: row[image] for number, row in rows.items()})
    kept = _each_once(file, rows, paths, [c for c in (*names, split, group) if c in columns])
    chosen = [rows[number] for number in kept]
    if one_label:
        y = numbers_or_texts([row[label] for row in chosen])
        names = [str(name) for name in np.unique(y).tolist()]
        warn_about_spelling(names, f"labels of {str(file)!r}")
    else:
        y = indicator_matrix({name: [row[name] for row in chosen] for name in names}, nothing)
    return ImageTable(
        [paths[number] for number in kept],
        y,
        names,
        np.asarray([row[split] for row in chosen]) if split in columns else None,
        np.asarray([row[group] for row in chosen]) if group is not None else None,
    )


def read_rows(file: Path, encoding: str | None) -> tuple[list[str], dict[int, Row]]:
    """Column names, and rows by their number below the header; empty rows are left out."""
    data = file.read_bytes()
    marked = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding or marked)
        if "\0" in text:
            raise csv.Error("it is no text file")
        text = text.lstrip("\ufeff")
        header = text.lstrip("\r\n").split("\n", 1)[0]
        separator = max(_SEPARATORS, key=lambda s: len(next(csv.reader([header], delimiter=s), [])))
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        cells = [[cell.strip() for cell in line] for line in lines]
    except LookupError as reason:
        raise InputError(f"encoding is {encoding!r}: {reason}.") from reason
    except (UnicodeDecodeError, csv.Error) as reason:
        raise InputError(
            f"{str(file)!r} cannot be read: {reason}. Save it as UTF-8, or give its encoding, such "
            "as encoding='latin-1'."
        ) from reason
    top = next((number for number, line in enumerate(cells) if any(line)), len(cells))
    columns = cells[top] if top < len(cells) else []
    twice = next((name for name in columns if name and columns.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{str(file)!r} has two columns {twice!r}.")
    rows = {}
    for number, line in enumerate(cells[top + 1 :], start=1):
        if not any(line):
            continue
        if any(line[len(columns) :]):
            raise InputError(f"Row {number} of {str(file)!r} has more cells than the header.")
        rows[number] = dict(zip(columns, line + [""] * len(columns), strict=False))
    return columns, rows


def _check_columns(
    file: Path,
    columns: list[str],
    rows: dict[int, Row],
    root: Path,
    image: str,
    label: str,
    others: list[str],
) -> None:
    """Check that the columns that were named are there; advise which may be meant."""
    if {image, *others} <= set(columns):
        return
    needed = list(dict.fromkeys([image, label, *others]))
    advice = ""
    if image not in columns and rows:
        row = next(iter(rows.values()))
        found = [c for c in columns if row[c] and _Files(root).find(row[c]) is not None]
        other = [c for c in columns if c not in found]
        if found:
            advice = f" The column {found[0]!r} holds image files: pass image={found[0]!r}"
            advice += "" if label in columns else f", and as label= the one of {other} that is it"
            advice += "."
        else:
            advice = " Say which columns they are: image=, label=, group=."
    raise InputError(f"{str(file)!r} needs the columns {needed}; found {columns}.{advice}")


def _label_columns(
    file: Path,
    columns: list[str],
    rows: dict[int, Row],
    others: tuple[str | None, ...],
    labels: Sequence[str] | None,
    nothing: Texts,
) -> list[str]:
    """Columns of a multi-label task: those named, or those that hold 0 and 1."""
    values = {c: {indicator_value(row[c], nothing) for row in rows.values()} for c in columns}
    allowed = [c for c in columns if c not in others and None not in values[c]]
    binary = [c for c in allowed if values[c] & {0.0, 1.0}]
    names = binary if labels is None else list(labels)
    if labels is None and len(names) > 1:
        rest = [c for c in columns if c not in (*others, *binary)]
        _point_out_nearly_binary(file, rest, rows, nothing)
    if len(names) < 2 or not set(names) <= set(allowed):
        raise InputError(
            f"{str(file)!r} needs a column 'label', or at least 2 columns of 0 and 1"
            + ("" if labels is None else f", {names}")
            + f"; those of 0 and 1 are {binary}."
            + (f" Or say which column is the label: label= one of {columns}." if not labels else "")
        )
    return names


def _point_out_nearly_binary(
    file: Path, columns: list[str], rows: dict[int, Row], nothing: Texts
) -> None:
    """Warn of columns that hold 0 and 1 but for a few cells: they are not read as labels."""
    for column in columns:
        odd = [r[column] for r in rows.values() if indicator_value(r[column], nothing) is None]
        if 0 < len(odd) <= max(1, len(rows) // 10):
            warn_user(
                f"The column {column!r} of {str(file)!r} is not read as a label: {len(odd)} cells "
                f"are neither 0 nor 1, first {odd[0]!r}. Correct them (nothing means unknown), or "
                "name the labels that you want: labels=[...]."
            )


class _Files:
    """Image files that cells of a table name."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._names: dict[Path, dict[str, list[str]]] = {}

    def find(self, cell: str) -> Path | None:
        """The file of a cell: as it stands, with slashes for backslashes, or with a suffix."""
        for name in dict.fromkeys([cell, cell.replace("\\", "/")]):
            path = self.root / os.path.expanduser(name)
            if os.path.isfile(path):  # which takes names that are too long
                return path
            candidates = self._known(path.parent).get(path.name.casefold(), [])
            if len(candidates) == 1:
                return path.parent / candidates[0]
        return None

    def _known(self, folder: Path) -> dict[str, list[str]]:
        """Files of a folder by their name in lower case, with and without an image's suffix."""
        if folder not in self._names:
            names = defaultdict(list)
            for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
                stem, suffix = os.path.splitext(name)
                names[name.casefold()].append(name)
                if suffix.lower() in image_suffixes():
                    names[stem.casefold()].append(name)
            self._names[folder] = dict(names)
        return self._names[folder]

    def paths(self, file: Path, cells: dict[int, str]) -> dict[int, Path]:
        """Path of the image of each row of a table; a warning names those that do not exist."""
        found = {number: self.find(cell) for number, cell in cells.items()}
        missing = [number for number, path in found.items() if path is None]
        if missing:
            name = Path(cells[missing[0]].replace("\\", "/")).name
            places = (f for f in sorted(self.root.iterdir()) if f.is_dir())
            holding = next((f for f in places if _Files(f).find(name) is not None), None)
            warn_user(
                f"{len(missing)} of {len(cells)} images of {str(file)!r} do not exist in "
                f"{str(self.root)!r}: {some([cells[n] for n in missing])} (first in row "
                f"{missing[0]}). "
                + (
                    "Give the folder that the paths are relative to as folder=, or remove the rows."
                    if holding is None
                    else f"One is in another folder: pass folder={str(holding)!r}."
                )
            )
        return {n: self.root / cells[n] if p is None else p for n, p in found.items()}


def _each_once(
    file: Path, rows: dict[int, Row], paths: dict[int, Path], columns: list[str]
) -> list[int]:
    """Numbers of the rows without those that repeat another, which a warning counts."""
    first: dict[Path, int] = {}
    repeated = []
    for number, path in paths.items():
        known = first.setdefault(path, number)
        if known == number:
            continue
        for column in columns:
            if rows[known][column] != rows[number][column]:
                raise InputError(
                    f"Rows {known} and {number} of {str(file)!r} are of one image, "
                    f"{rows[number][column]!r} and {rows[known][column]!r} in the column "
                    f"{column!r}. Keep one row per image; for several labels per image make a "
                    "column of 0 and 1 of each."
                )
        repeated.append(number)
    if repeated:
        warn_user(
            f"{len(repeated)} rows of {str(file)!r} repeat the image of another row, with the same "
            f"label, and are left out: rows {some(repeated)}."
        )
    return list(first.values())
