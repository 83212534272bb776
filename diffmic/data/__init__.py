"""Reading, checking and batching of the X and y passed to the estimator."""

from .augmentation import AUGMENTS, Augment, named_augment
from .inputs import Inputs, read_inputs
from .items import Keys
from .labelled import LabelledImages
from .preprocessing import (
    Item,
    PreparedImages,
    PreparedItems,
    PreparedStream,
    noticed,
    unit_range,
    views_of,
)
from .ranges import ValueRange
from .sources import ImageSource, OneImage
from .streams import Stream
from .targets import TargetEncoding
from .training_data import TrainingData, read_labelled, read_training_data

__all__ = [
    "AUGMENTS",
    "Augment",
    "ImageSource",
    "Inputs",
    "Item",
    "Keys",
    "LabelledImages",
    "OneImage",
    "PreparedImages",
    "PreparedItems",
    "PreparedStream",
    "Stream",
    "TargetEncoding",
    "TrainingData",
    "ValueRange",
    "named_augment",
    "noticed",
    "read_inputs",
    "read_labelled",
    "read_training_data",
    "unit_range",
    "views_of",
]
