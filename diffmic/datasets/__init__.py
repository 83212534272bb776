"""Synthetic images, image datasets on disk, public data sets, and the inspection of images."""

import importlib
from typing import TYPE_CHECKING, Any

from ..image_table import ImageTable
from .folders import read_folders
from .lesions import LESION_CLASSES, make_lesions
from .tables import read_csv

if TYPE_CHECKING:
    from .busi import read_busi
    from .chestxray14 import read_chestxray14
    from .ham10000 import read_ham10000, read_isic2018
    from .inspecting import inspect
    from .inspection import Inspection
    from .medmnist import read_medmnist
    from .medmnist_sets import MEDMNIST
    from .public import PublicDataset, Source
    from .retinopathy import read_aptos2019, read_idrid

_ROOMS = {
    "MEDMNIST": "medmnist_sets",
    "Inspection": "inspection",
    "PublicDataset": "public",
    "Source": "public",
    "inspect": "inspecting",
    "read_aptos2019": "retinopathy",
    "read_busi": "busi",
    "read_chestxray14": "chestxray14",
    "read_ham10000": "ham10000",
    "read_idrid": "retinopathy",
    "read_isic2018": "ham10000",
    "read_medmnist": "medmnist",
}

__all__ = [
    "LESION_CLASSES",
    "MEDMNIST",
    "ImageTable",
    "Inspection",
    "PublicDataset",
    "Source",
    "inspect",
    "make_lesions",
    "read_aptos2019",
    "read_busi",
    "read_chestxray14",
    "read_csv",
    "read_folders",
    "read_ham10000",
    "read_idrid",
    "read_isic2018",
    "read_medmnist",
]


def __getattr__(name: str) -> Any:
    """Import what needs torch on first use."""
    if name not in _ROOMS:
        raise AttributeError(f"module 'diffmic.datasets' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_ROOMS[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
