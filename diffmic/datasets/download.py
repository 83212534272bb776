"""The folder of a download: its tables and images, and what is wrong with them."""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..conventions import some
from ..errors import InputError, warn_user
from .checks import (
    check_copies,
    check_counts,
    check_groups,
    each_once,
    fault_of,
    image_files_in,
    matched,
)
from .image_files import is_hidden, is_system_file
from .public import PublicDataset, Source
from .table import as_path
from .tables import Row, read_rows

ON_ERROR = ("raise", "skip")
_DEPTH = 5  # levels of folders below the root in which files are looked for
_ARCHIVES = (".zip", ".gz", ".tar", ".tgz", ".7z", ".rar")


@dataclass(frozen=True)
class Listed:
    """An image that a table or a folder of the download lists."""

    name: str  # with or without suffix
    label: Any  # or a row of an indicator matrix
    split: str | None = None
    group: str | None = None  # patient or lesion
    place: str = ""  # key of the folders in which the image lies


class Download:
    """An unpacked download of a public data set.

    Parameters
    ----------
    folder : path
        Where it was unpacked; what is looked for may lie up to five folders deeper.
    source : Source
    on_error : {"raise", "skip"}
        What is done about images that are missing or damaged. Skip: they are left out, and
        counted in a warning.
    check : bool
        Whether files of images are opened.
    """

    def __init__(self, folder: Any, source: Source, *, on_error: str, check: bool) -> None:
        self.source, self.on_error, self.check = source, on_error, check
        self.problems: list[str] = []
        if on_error not in ON_ERROR:
            raise InputError(f"on_error is {on_error!r}; give one of {list(ON_ERROR)}.")
        self.root = as_path(folder, "folder")
        if not self.root.is_dir():
            what = "is a file" if self.root.exists() else "does not exist"
            raise InputError(f"The folder {str(self.root)!r} {what}. {self._wanted()}")
        self._folders: dict[str, list[Path]] = defaultdict(list)
        self._files: dict[str, list[Path]] = defaultdict(list)
        self._archives: list[str] = []
        self._look(self.root, _DEPTH)

    def _look(self, folder: Path, depth: int) -> None:
        self._folders[folder.name.casefold()].append(folder)
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if is_hidden(entry.name) or is_system_file(entry.name):
                continue
            if entry.is_dir():
                if depth:
                    self._look(Path(entry.path), depth - 1)
            elif not entry.name.lower().endswith((".jpg", ".jpeg", ".png")):
                self._files[entry.name.casefold()].append(Path(entry.path))
                if entry.name.lower().endswith(_ARCHIVES):
                    self._archives.append(entry.name)

    def _wanted(self) -> str:
        archives = getattr(self, "_archives", [])
        packed = f" Unpack {some(archives)} first." if archives else ""
        source = self.source
        return (
            f"{source.title} is downloaded from {source.url} (licence: {source.licence}); "
            f"unpacked it holds {source.layout}.{packed}"
        )

    def missing(self, what: str) -> InputError:
        """The error for a part of the download that is not there."""
        return InputError(f"{str(self.root)!r} has no {what}. {self._wanted()}")

    def find(self, *names: str) -> Path | None:
        """A file with one of these names, whatever its case, with the shortest path; None: none.

        Raises
        ------
        InputError
            There are several.
        """
        for name in names:
            found = sorted(self._files.get(name.casefold(), []), key=lambda f: len(f.parts))
            if len(found) > 1 and len(found[0].parts) == len(found[1].parts):
                raise InputError(
                    f"{str(found[0])!r} and {str(found[1])!r} have one name. Remove the one that "
                    "does not belong to the data set."
                )
            if found:
                return found[0]
        return None

    def file(self, *names: str) -> Path:
        """The file that :meth:`find` finds; an InputError says that there is none."""
        found = self.find(*names)
        if found is None:
            raise self.missing(" or ".join(names))
        return found

    def rows(self, file: Path, *columns: str) -> dict[int, Row]:
        """Rows of a table, which must have these columns, by their number below the header."""
        found, rows = read_rows(file, None)
        lacking = [name for name in columns if name not in found]
        if lacking:
            raise InputError(
                f"{str(file)!r} has no column {' and '.join(map(repr, lacking))}; found {found}. "
                f"{self._wanted()}"
            )
        if not rows:
            raise InputError(f"{str(file)!r} has no rows below its header.")
        for number, row in rows.items():
            empty = [name for name in columns if not row[name]]
            if empty:
                raise InputError(
                    f"Row {number} of {str(file)!r} has nothing in the column {empty[0]!r}."
                )
        return rows

    def folders(self, *names: str) -> list[Path]:
        """All folders with one of these names, whatever its case; an InputError: there is none."""
        found = [folder for name in names for folder in self._folders.get(name.casefold(), [])]
        if not found:
            raise self.missing(" or ".join(f"folder {name!r}" for name in names))
        return found

    def told(self, problem: str) -> None:
        """Warn of a problem, and keep it."""
        self.problems.append(problem)
        warn_user(f"{self.source.title} in {str(self.root)!r}: {problem}")

    def unusable(self, names: Sequence[str], what: str, advice: str) -> None:
        """Refuse images that cannot be used, or, with ``on_error="skip"``, leave them out."""
        if not names:
            return
        found = f"{len(names)} image(s) {what}: {some(names)}."
        if self.on_error == "raise":
            raise InputError(
                f"{self.source.title} in {str(self.root)!r}: {found} {advice} "
                "on_error='skip' leaves them out."
            )
        self.told(f"{found} They are left out.")

    def dataset(
        self,
        listed: Iterable[Listed],
        places: Mapping[str, Sequence[Path]],
        names: Mapping[Any, str],
        *,
        official: Mapping[str, Mapping[Any, int]] | None = None,
        ignored: str = "",
    ) -> PublicDataset:
        """The data set, after a check of what is listed and what is there.

        Parameters
        ----------
        listed : iterable of Listed
        places : mapping of str to sequence of Path
            Folders in which the images of each place lie.
        names : mapping
            Name of each label, or of each column of the matrix by its number.
        official : mapping or None
            Official number of images of each class in each split (``""``: of all; None among
            the classes: of all classes together).
        ignored : str
            Pattern of names of files that are no images of the data set, such as masks.
        """
        rows = each_once(self, listed)
        check_counts(self, rows, [*names.values()], official or {})
        files = {p: image_files_in(folders, ignored) for p, folders in places.items()}
        rows, paths = matched(self, rows, files)
        if self.check:
            found = {number: fault_of(path) for number, path in enumerate(paths)}
            faults = {number: fault for number, fault in found.items() if fault}
            self.unusable(
                [paths[number].name for number in faults],
                "cannot be read",
                f"The first: {next(iter(faults.values()), '')} Download them again.",
            )
            good = [number for number in range(len(rows)) if number not in faults]
            rows, paths = [rows[n] for n in good], [paths[n] for n in good]
            if not rows:
                raise self.missing("image that can be read")
            check_copies(self, rows, paths)
        check_groups(self, rows)
        splits = None if rows[0].split is None else np.asarray([row.split for row in rows])
        groups = None if rows[0].group is None else np.asarray([row.group for row in rows])
        labels = np.asarray([row.label for row in rows])
        return PublicDataset(
            paths, labels, dict(names), splits, groups, self.source, tuple(self.problems)
        )
