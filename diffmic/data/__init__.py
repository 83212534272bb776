"""What people pass in → batches."""

from .inputs import ImageSource, Inputs, read_inputs
from .preprocessing import PreparedImages, default_augment, unit_range
from .targets import TargetEncoding
from .training_data import LabelledImages, TrainingData, read_training_data

__all__ = [
    "ImageSource",
    "Inputs",
    "LabelledImages",
    "PreparedImages",
    "TargetEncoding",
    "TrainingData",
    "default_augment",
    "read_inputs",
    "read_training_data",
    "unit_range",
]
