"""Inference with a trained network: evidence, probabilities, explanations and metrics."""

from ..tasks import classification_metrics, expected_calibration_error
from .calibration import Calibration
from .engine import Engine, inference_dtype
from .evidence import (
    STAGES,
    Evidence,
    SamplingOptions,
    Stage,
    encode_images,
    evidence_of,
    over_views,
)
from .explanation import Explanation, explain
from .fitted import Alone, AnyCalibration, FitRecord, FittedModel
from .own_calibration import OwnCalibration
from .report import EvaluationReport, Measured
from .thresholds import best_thresholds

__all__ = [
    "STAGES",
    "Alone",
    "AnyCalibration",
    "Calibration",
    "Engine",
    "EvaluationReport",
    "Evidence",
    "Explanation",
    "FitRecord",
    "FittedModel",
    "Measured",
    "OwnCalibration",
    "SamplingOptions",
    "Stage",
    "best_thresholds",
    "classification_metrics",
    "encode_images",
    "evidence_of",
    "expected_calibration_error",
    "explain",
    "inference_dtype",
    "over_views",
]
