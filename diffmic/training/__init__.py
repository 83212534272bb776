"""Training: the recipe, the loop, and the two stages."""

from .fit import FitResult, fit_network
from .options import Part, TrainingOptions
from .precision import resolve_device
from .recipe import Recipe, resolve_recipe

__all__ = [
    "FitResult",
    "Part",
    "Recipe",
    "TrainingOptions",
    "fit_network",
    "resolve_device",
    "resolve_recipe",
]
