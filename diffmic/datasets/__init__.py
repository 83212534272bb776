"""Synthetic images, and image datasets on disk."""

from .folders import ImageTable, read_csv, read_folders
from .lesions import LESION_CLASSES, make_lesions

__all__ = ["LESION_CLASSES", "ImageTable", "make_lesions", "read_csv", "read_folders"]
