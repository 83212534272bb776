"""Reading, checking and batching of the X and y passed to the estimator."""

from .augmentation import AUGMENTS, Augment, named_augment
from .inputs import Inputs, read_inputs
from .items import Keys
from .labelled import LabelledImages
from .preprocessing import (
    PreparedImages,
    PreparedStream,
    unit_range,
    views_of,
)
from .ranges import ValueRange
from .sources import ImageSource
from .streams import Stream
from .targets import TargetEncoding
from .training_data import TrainingData, read_labelled, read_training_data

__all__ = [
    "AUGMENTS",
    "Augment",
    "ImageSource",
    "Inputs",
    "Keys",
    "LabelledImages",
    "PreparedImages",
    "PreparedStream",
    "Stream",
    "TargetEncoding",
    "TrainingData",
    "ValueRange",
    "named_augment",
    "read_inputs",
    "read_labelled",
    "read_training_data",
    "unit_range",
    "views_of",
]
