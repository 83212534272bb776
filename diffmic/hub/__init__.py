"""Saved models: files, short names, model cards, and the Hugging Face Hub."""

from .card import ModelCard, checked_card
from .files import DType
from .names import check_repository, list_pretrained, locate
from .publish import push_folder
from .saved_model import SavedModel, load_model, save_model

__all__ = [
    "DType",
    "ModelCard",
    "SavedModel",
    "check_repository",
    "checked_card",
    "list_pretrained",
    "load_model",
    "locate",
    "push_folder",
    "save_model",
]
