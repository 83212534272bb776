"""Saved models."""

from .saved_model import FITTED, SavedModel, load_model, save_model

__all__ = ["FITTED", "SavedModel", "load_model", "save_model"]
