"""What people pass in → batches."""

from .inputs import ImageSource, Inputs, read_inputs
from .preprocessing import (
    AUGMENTS,
    PreparedImages,
    PreparedStream,
    named_augment,
    unit_range,
    views_of,
)
from .streams import Stream
from .targets import TargetEncoding
from .training_data import LabelledImages, TrainingData, read_training_data

__all__ = [
    "AUGMENTS",
    "ImageSource",
    "Inputs",
    "LabelledImages",
    "PreparedImages",
    "PreparedStream",
    "Stream",
    "TargetEncoding",
    "TrainingData",
    "named_augment",
    "read_inputs",
    "read_training_data",
    "unit_range",
    "views_of",
]
