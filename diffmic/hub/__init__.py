"""Saved models."""

from .estimator import load_estimator, save_estimator

__all__ = ["load_estimator", "save_estimator"]
