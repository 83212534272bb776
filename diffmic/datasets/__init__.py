"""Synthetic images, and image datasets on disk."""

from .folders import read_folders
from .lesions import LESION_CLASSES, make_lesions
from .table import ImageTable
from .tables import read_csv

__all__ = ["LESION_CLASSES", "ImageTable", "make_lesions", "read_csv", "read_folders"]
