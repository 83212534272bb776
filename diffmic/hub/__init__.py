"""Saved models: files, short names, model cards, and the Hugging Face Hub."""

from .card import ModelCard, card_of_finetuned, checked_card
from .getting import get_model
from .names import check_repository, locate, origin_of
from .publish import push_folder
from .saved_model import SavedModel, load_model
from .saving import save_model
from .stored import DType

__all__ = [
    "DType",
    "ModelCard",
    "SavedModel",
    "card_of_finetuned",
    "check_repository",
    "checked_card",
    "get_model",
    "load_model",
    "locate",
    "origin_of",
    "push_folder",
    "save_model",
]
