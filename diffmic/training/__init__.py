"""Training: recipe, training loop, and the two stages."""

from .fit import FitResult, Learnt, fit_network
from .options import TrainingOptions
from .precision import resolve_device
from .recipe import Recipe, resolve_recipe

__all__ = [
    "FitResult",
    "Learnt",
    "Recipe",
    "TrainingOptions",
    "fit_network",
    "resolve_device",
    "resolve_recipe",
]
