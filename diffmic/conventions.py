"""What files, cells and classes are called, and what is a number."""

import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from numbers import Real
from typing import Any

from .errors import warn_user

DICOM_SUFFIXES = (".dcm", ".dicom", ".dic", ".ima")
IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".npy", ".nii", ".nii.gz"),
    *DICOM_SUFFIXES,
)
# What pandas reads as a missing value from a file. Some of these are also names of classes.
TEXTS_FOR_MISSING = (
    *("", "NA", "N/A", "n/a", "#N/A", "#N/A N/A", "#NA", "<NA>", "NULL", "null", "None"),
    *("NaN", "nan", "-NaN", "-nan", "NaT", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
)


def is_number(value: Any) -> bool:
    """Whether a value is a number, of Python or numpy, and no bool."""
    return isinstance(value, Real) and not isinstance(value, bool)


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
        shown = " and ".join(f"{name!r:.60}" for name in twice[0])
        warn_user(
            f"The {what} {shown} differ in case, spaces or accents alone, and are read as "
            "different classes. Write them alike if they are one class."
        )


def _alike(name: str) -> str:
    """A name without what the eye passes over: case, spaces, and how accents are encoded."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().replace("_", " ").split())
