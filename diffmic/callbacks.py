"""Callbacks of a fit: progress of one's own, stopping, pruning, trackers.

Pass them as ``DiffMICClassifier(callbacks=[...])``. They are no part of a model: nothing of them is
saved, and results do not depend on them unless they stop the fit.
"""

from .training.callbacks import Callback, Moment, StopTraining
from .training.trackers import Trackers

__all__ = ["Callback", "Moment", "StopTraining", "Trackers"]
