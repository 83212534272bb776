"""MedMNIST: twelve small data sets of 2-D medical images, in an official split."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..conventions import some
from ..errors import DiffMICError, InputError, warn_user
from .medmnist_sets import MEDMNIST, SIZES, MedMNISTSet
from .public import PublicDataset, Source
from .table import as_path

_SPLITS = ("train", "val", "test")
_HOME = "https://medmnist.com"


def read_medmnist(
    name: str,
    folder: str | Path | None = None,
    *,
    size: int = 28,
    splits: Sequence[str] = _SPLITS,
    download: bool = False,
) -> PublicDataset:
    """Read one of the twelve 2-D sets of MedMNIST in its official split: https://medmnist.com.

    It is read from its file, such as ``pneumoniamnist.npz`` or ``pneumoniamnist_64.npz``. Objects
    of the package ``medmnist`` can also be passed to the estimator as they are.

    Parameters
    ----------
    name : str
        Such as ``"pneumoniamnist"``; ``diffmic.datasets.MEDMNIST`` has all names.
    folder : str, Path or None
        Folder of the file, or the file itself. None: ``~/.medmnist``, where the package puts it.
    size : {28, 64, 128, 224}
        Side of the images, in pixels.
    splits : sequence of {"train", "val", "test"}
        Splits to read. The largest sets have 14 GB at 224 pixels.
    download : bool
        Whether to ask the package ``medmnist`` to download the file from Zenodo if it is missing.

    Returns
    -------
    PublicDataset
        Images are an array of uint8; labels are numbers, or an indicator matrix (chestmnist).
        Patients are not published.

    Raises
    ------
    InputError
        There is no such set, size, split or file, or the file is damaged or of another set.
    DiffMICError
        ``download`` is True and the package is not installed, or cannot download.
    """
    known = MEDMNIST.get(name.lower()) if isinstance(name, str) else None
    if known is None:
        raise InputError(f"name is {name!r}; give one of {list(MEDMNIST)}.")
    name = name.lower()
    if size not in SIZES or isinstance(size, bool):
        raise InputError(f"size is {size!r}; give one of {list(SIZES)}.")
    chosen = [splits] if isinstance(splits, str) or not isinstance(splits, Iterable) else [*splits]
    if not chosen or any(s not in _SPLITS for s in chosen) or len(set(chosen)) < len(chosen):
        raise InputError(f"splits is {splits!r}; give some of {list(_SPLITS)}.")
    root = Path.home() / ".medmnist" if folder is None else as_path(folder, "folder")
    file = root if root.is_file() else root / known.file(size)
    others = {each.file(side) for each in MEDMNIST.values() for side in SIZES} - {known.file(size)}
    if f"{file.stem.lower()}.npz" in others:
        raise InputError(
            f"{str(file)!r} is not the file of {name} with {size} pixels, {known.file(size)}. Give "
            "the name and size of the file."
        )
    if not file.is_file():
        if not download:
            raise InputError(
                f"There is no file {str(file)!r}. Download it from {known.url(size)} (licence: "
                f"{known.licence}), or pass download=True, which needs `pip install medmnist`."
            )
        _download(known, root, size)
    return _read(file, name, known, size, chosen)


def _download(known: MedMNISTSet, root: Path, size: int) -> None:
    try:
        package = import_module("medmnist")
    except ImportError as reason:
        raise DiffMICError(
            f"Downloading needs the package medmnist: pip install medmnist. Or download "
            f"{known.url(size)} yourself."
        ) from reason
    root.mkdir(parents=True, exist_ok=True)
    try:
        getattr(package, known.package_class)(split="val", download=True, root=str(root), size=size)
    except Exception as reason:  # whatever the package or the network raises
        raise DiffMICError(
            f"The package medmnist could not download {known.url(size)}: {reason}"
        ) from reason


def _read(file: Path, name: str, known: MedMNISTSet, size: int, chosen: list[str]) -> PublicDataset:
    images: list[NDArray[np.uint8]] = []
    labels: list[NDArray[Any]] = []
    problems = []
    try:
        with np.load(file, allow_pickle=False) as arrays:
            needed = [f"{split}_{what}" for split in chosen for what in ("images", "labels")]
            lacking = [key for key in needed if key not in arrays.files]
            if lacking:
                raise InputError(
                    f"{str(file)!r} has no {some(lacking)}; found {sorted(arrays.files)}. It is no "
                    "file of MedMNIST."
                )
            for split in chosen:
                pixels, values = arrays[f"{split}_images"], arrays[f"{split}_labels"]
                _check_shapes(file, split, pixels, values, known, size)
                expected = known.counts[_SPLITS.index(split)]
                if len(pixels) != expected:
                    problems.append(
                        f"the part {split} has {len(pixels):,} images, officially {expected:,}."
                    )
                images.append(pixels)
                labels.append(values)
    except InputError:
        raise
    except Exception as reason:  # a damaged archive makes its readers raise anything
        raise InputError(
            f"{str(file)!r} cannot be read ({type(reason).__name__}: {reason}). Download it again "
            f"from {known.url(size)}."
        ) from reason
    splits = np.repeat(np.asarray(chosen), [len(part) for part in images])
    pixels = images[0] if len(images) == 1 else np.concatenate(images)
    images.clear()
    y = np.concatenate(labels)
    y = y.astype(np.int64) if known.multilabel else y[:, 0].astype(np.int64)
    problems += _leaks(pixels, splits)
    for problem in problems:
        warn_user(f"{name} in {str(file)!r}: {problem}")
    source = Source(
        title=f"{name} (MedMNIST)",
        url=_HOME,
        licence=known.licence,
        citation="Yang et al., MedMNIST v2, Scientific Data 10, 41 (2023), and the source of the "
        "set that is named there",
        layout=os.path.basename(file),
    )
    return PublicDataset(
        pixels, y, dict(enumerate(known.class_names)), splits, None, source, tuple(problems)
    )


def _check_shapes(
    file: Path, split: str, pixels: Any, values: Any, known: MedMNISTSet, size: int
) -> None:
    """Check that the arrays of a split are those of the set."""
    side = (size, size) if known.channels == 1 else (size, size, 3)
    if pixels.dtype != np.uint8 or pixels.shape[1:] != side or len(pixels) == 0:
        raise InputError(
            f"{split}_images in {str(file)!r} have the shape {pixels.shape} and the type "
            f"{pixels.dtype}; (n, {', '.join(map(str, side))}) and uint8 are needed."
        )
    columns = len(known.class_names) if known.multilabel else 1
    if values.shape != (len(pixels), columns) or values.dtype.kind not in "iu":
        raise InputError(
            f"{split}_labels in {str(file)!r} have the shape {values.shape} and the type "
            f"{values.dtype}; whole numbers of shape ({len(pixels)}, {columns}) are needed."
        )
    top = 1 if known.multilabel else len(known.class_names) - 1
    if values.min() < 0 or values.max() > top:
        raise InputError(
            f"{split}_labels in {str(file)!r} go from {values.min()} to {values.max()}; this set "
            f"has labels from 0 to {top}."
        )


def _leaks(pixels: NDArray[np.uint8], splits: NDArray[np.str_]) -> list[str]:
    """Report images that are in several splits, pixel for pixel."""
    known: dict[bytes, set[str]] = {}
    for image, split in zip(pixels, splits.tolist(), strict=True):
        known.setdefault(hashlib.blake2b(image.tobytes()).digest(), set()).add(split)
    sets = [tuple(sorted(found)) for found in known.values() if len(found) > 1]
    if not sets:
        return []
    return [
        f"{len(sets)} image(s) are in several splits ({' and '.join(sorted(set(sets))[0])}, …): "
        "measures on one are a little too good."
    ]
