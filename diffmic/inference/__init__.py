"""From a trained network to probabilities, explanations and measures."""

from .calibration import STAGES, Calibration, Stage
from .explanation import Explanation, explain
from .measures import expected_calibration_error, measure
from .predict import encode_images, inference_dtype, over_views, sample_scores
from .thresholds import best_thresholds

__all__ = [
    "STAGES",
    "Calibration",
    "Explanation",
    "Stage",
    "best_thresholds",
    "encode_images",
    "expected_calibration_error",
    "explain",
    "inference_dtype",
    "measure",
    "over_views",
    "sample_scores",
]
