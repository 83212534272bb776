"""Image datasets on disk with a folder per class."""

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

import numpy as np

from ..conventions import some, warn_about_spelling
from ..errors import InputError, warn_user
from ..image_table import ImageTable
from .image_files import is_hidden, is_image_file, is_named_as_one, is_system_file
from .table import SPLIT_NAMES, as_path
from .values import numbers_or_texts

_LEVELS = ("label", "split", "group", "*")


def read_folders(
    folder: str | Path, *, levels: str = "auto", exclude: str | Sequence[str] = ()
) -> ImageTable:
    """Read a dataset with a folder per class: ``folder/label/image.png``.

    If the folders of the first level are ``train``, ``val``, ``test`` or the like, they are
    the splits: ``folder/train/label/image.png``.

    Every file that Pillow or DICOM's suffixes declare an image is read, and every other file that
    begins like one, or like an array of NumPy. Links are followed. Hidden folders and files are
    left out. A warning says what was left out; texts, tables and the like in the root are not worth
    one.

    Parameters
    ----------
    folder : str or Path
        Root folder of the dataset.
    levels : str
        What the folders of each level are, from the root: ``"label"``, ``"split/label"``,
        ``"label/group"`` for a folder per patient within each class, ``"*/label"`` to pass over a
        level. Folders below the last level are read, too. ``"auto"``: ``"label"`` or
        ``"split/label"``, with no folders below.
    exclude : str or sequence of str
        Patterns of names to leave out, such as ``"*_mask*"``; files and folders are compared.

    Returns
    -------
    ImageTable
        Labels are integers if all folders of classes have integers as names.

    Raises
    ------
    InputError
        The folder does not exist or cannot be read, contains no images, has images outside its
        class folders, or another structure; or two links lead to one folder.
    """
    root = as_path(folder, "folder")
    if not root.is_dir():
        file = f" {str(root)!r} is a file; read_csv reads tables." if root.is_file() else ""
        raise InputError(f"There is no folder {str(root)!r}.{file}")
    walk = _Walk(root, [exclude] if isinstance(exclude, str) else list(exclude))
    files = sorted(walk.files(root, (os.path.realpath(root),)))
    parts = [file.relative_to(root).parts for file in files]
    order = _auto_levels(root, parts) if levels == "auto" else _checked_levels(levels)
    stray = [p for p in parts if len(p) <= len(order)]
    if not files or stray:
        way_out = " Move them into the folders of their classes, or elsewhere." if stray else ""
        raise InputError(f"{_needed(root, order)}; {_found(parts, stray)}.{way_out}{walk.told()}")
    depth = order.index("label")
    labels = [p[depth] for p in parts]
    splits = np.asarray([p[order.index("split")] for p in parts]) if "split" in order else None
    groups = np.asarray([p[order.index("group")] for p in parts]) if "group" in order else None
    _check_linked_twice(files, labels, None if splits is None else splits.tolist())
    y = numbers_or_texts(labels)
    _warn_about_names(root, sorted(set(labels)), files)
    with_images = {p[: depth + 1] for p in parts}
    walk.warn([c for c in sorted(walk.folders) if len(c) == depth + 1 and c not in with_images])
    return ImageTable(files, y, [str(name) for name in np.unique(y).tolist()], splits, groups)


class _Walk:
    """Walk through a folder that remembers what it left out."""

    def __init__(self, root: Path, exclude: Sequence[str]) -> None:
        self.root, self.exclude = root, exclude
        self.folders: set[tuple[str, ...]] = set()
        self.left_out: dict[str, list[str]] = defaultdict(list)
        self._seen: dict[str, Path] = {}

    def files(self, folder: Path, above: tuple[str, ...]) -> Iterator[Path]:
        """Image files in a folder and in those below; ``above`` are the folders it lies in."""
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as reason:
            raise InputError(f"The folder {str(folder)!r} cannot be read: {reason}") from reason
        for entry in entries:
            path = Path(entry.path)
            name = str(path.relative_to(self.root))
            if self._excluded(entry.name, name) or is_system_file(entry.name):
                continue
            if is_hidden(entry.name):
                self.left_out["hidden file(s) or folder(s)"].append(name)
            elif path.is_dir():
                yield from self._below(path, above)
            elif not path.is_file():
                if entry.is_symlink():
                    self.left_out["link(s) that lead nowhere"].append(name)
            elif is_image_file(path):
                yield path
            elif folder != self.root or is_named_as_one(entry.name):  # no table or licence
                self.left_out["file(s) that are no image"].append(name)

    def _below(self, folder: Path, above: tuple[str, ...]) -> Iterator[Path]:
        real = os.path.realpath(folder)
        name = folder.relative_to(self.root)
        if real in above:
            self.left_out["link(s) to a folder that they lie in"].append(str(name))
            return
        if real in self._seen:
            raise InputError(
                f"{str(folder)!r} and {str(self._seen[real])!r} are one folder, so its images "
                "would be read twice. Remove the link, or leave it out with exclude=."
            )
        self._seen[real] = folder
        self.folders.add(name.parts)
        yield from self.files(folder, (*above, real))

    def _excluded(self, name: str, relative: str) -> bool:
        return any(fnmatch(name, p) or fnmatch(relative, p) for p in self.exclude)

    def told(self) -> str:
        """What was left out, as a sentence; empty if nothing was."""
        said = [f"{len(names)} {kind} ({some(names)})" for kind, names in self.left_out.items()]
        return f" Left out: {'; '.join(said)}." if said else ""

    def warn(self, empty: list[tuple[str, ...]]) -> None:
        """Warn of what was left out, classes without images among it."""
        if empty:
            names = [os.path.join(*parts) for parts in empty]
            self.left_out["class folder(s) without an image that can be read"] = names
        if self.left_out:
            warn_user(
                f"read_folders({str(self.root)!r}) does not return everything.{self.told()}"
                f"{self._why(empty)}"
            )

    def _why(self, empty: list[tuple[str, ...]]) -> str:
        """Why a file of a class without images is none, and what to do about it."""
        from ..data.files import check_image_file  # imports torch

        for name in self.left_out["file(s) that are no image"]:
            if any(Path(name).parts[: len(parts)] == parts for parts in empty):
                try:
                    check_image_file(self.root / name)
                except InputError as reason:
                    return f" {reason}"
        return ""


def _auto_levels(root: Path, parts: list[tuple[str, ...]]) -> list[str]:
    """Levels that fit all images below the root: splits and classes, or classes alone."""
    first = {p[0] for p in parts if len(p) > 1}
    splits = bool(first) and all(name.casefold() in SPLIT_NAMES for name in first)
    shallow: list[tuple[str, ...]] = [p for p in parts if len(p) == 2]
    order = ["split", "label"] if splits and not shallow else ["label"]
    away = [p for p in parts if len(p) > len(order) + 1]
    if not away:
        return order
    if splits and shallow:
        away = shallow
        way_out = "Read a split whose images all lie in class folders as a folder of its own."
    elif order == ["label"] and len(first) == 1:
        inner = root / away[0][0]
        way_out = f"If the classes are the folders in {str(inner)!r}, read that folder."
    else:
        way_out = (
            "Say what the folders of each level are: levels='label/group' if the classes hold a "
            "folder per patient, 'label' if the folders in them mean nothing, 'group/label' or "
            "'*/label' if the classes are the inner ones."
            if order == ["label"]
            else "Say what the folders of each level are, such as levels='split/label/group'."
        )
    raise InputError(f"{_needed(root, order)}; {_found(parts, away)}. {way_out}")


def _checked_levels(levels: str) -> list[str]:
    order = levels.split("/") if isinstance(levels, str) else []
    named = [level for level in order if level != "*"]
    if not order or set(order) - set(_LEVELS) or named.count("label") != 1:
        raise InputError(
            f"levels is {levels!r}; give 'auto', or {', '.join(_LEVELS[:3])} and * joined by '/', "
            "with label once."
        )
    if len(named) > len(set(named)):
        raise InputError(f"levels is {levels!r}; each of {_LEVELS[:3]} can stand there once.")
    return order


def _needed(root: Path, order: list[str]) -> str:
    shape = "/".join("…" if level == "*" else level for level in order)
    if order == ["label"]:
        return (
            f"{str(root)!r} must hold a folder per class with images in it (or train, val and test "
            "folders with such class folders)"
        )
    return f"{str(root)!r} must hold a folder per class with images in it, as {shape}/image.png"


def _found(parts: list[tuple[str, ...]], away: list[tuple[str, ...]]) -> str:
    """How many images there are, and which of them lie in another place."""
    names = some([repr(os.path.join(*p)) for p in away])
    return f"found {len(parts)} images" + (
        f", {len(away)} of them in another place ({names})" if away else ""
    )


def _check_linked_twice(files: list[Path], labels: list[str], splits: list[str] | None) -> None:
    """Refuse files that links put into two classes or two splits."""
    if not any(file.is_symlink() for file in files):
        return
    known: dict[str, int] = {}
    for number, file in enumerate(files):
        first = known.setdefault(os.path.realpath(file), number)
        if labels[first] != labels[number] or (splits and splits[first] != splits[number]):
            raise InputError(
                f"{str(files[first])!r} and {str(file)!r} are one file, through a link, and lie in "
                "two classes or splits. Remove one of them."
            )


def _warn_about_names(root: Path, classes: list[str], files: list[Path]) -> None:
    """Point out class folders that are probably one class, or splits, and masks among images."""
    warn_about_spelling(classes, f"class folders of {str(root)!r}")
    if classes and all(name.casefold() in SPLIT_NAMES for name in classes):
        warn_user(
            f"The classes of {str(root)!r} are {classes}, which are names of splits. Images must "
            "lie in class folders within them; if only one has such folders, read that one."
        )
    places = {(file.parent, file.stem) for file in files}
    masks = [
        f
        for f in files
        if (f.parent, f.stem.lower().split("_mask")[0]) in places and "_mask" in f.stem.lower()
    ]
    if masks:
        warn_user(
            f"{len(masks)} files seem to be masks of the images beside them ({masks[0].name}, …) "
            "and are read as images. Leave them out with exclude='*_mask*'."
        )
