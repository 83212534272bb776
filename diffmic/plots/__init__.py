"""Figures for people; needs matplotlib (``pip install 'diffmic[plots]'``)."""

from .displays import ConfusionDisplay, ReliabilityDisplay, RiskCoverageDisplay
from .images import plot_predictions, plot_regions
from .training import DenoisingDisplay, HistoryDisplay

__all__ = [
    "ConfusionDisplay",
    "DenoisingDisplay",
    "HistoryDisplay",
    "ReliabilityDisplay",
    "RiskCoverageDisplay",
    "plot_predictions",
    "plot_regions",
]
