"""Synthetic images, image datasets on disk, and the inspection of images and labels."""

import importlib
from typing import TYPE_CHECKING, Any

from ..image_table import ImageTable
from .folders import read_folders
from .lesions import LESION_CLASSES, make_lesions
from .tables import read_csv

if TYPE_CHECKING:
    from .inspecting import inspect
    from .inspection import Inspection

_ROOMS = {"inspect": "inspecting", "Inspection": "inspection"}

__all__ = [
    "LESION_CLASSES",
    "ImageTable",
    "Inspection",
    "inspect",
    "make_lesions",
    "read_csv",
    "read_folders",
]


def __getattr__(name: str) -> Any:
    """Import the inspection, which needs torch, on first use."""
    if name not in _ROOMS:
        raise AttributeError(f"module 'diffmic.datasets' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_ROOMS[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
