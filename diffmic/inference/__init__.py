"""Inference with a trained network: evidence, probabilities, explanations and metrics."""

from ..tasks import classification_metrics, expected_calibration_error
from .calibration import Calibration
from .doubt import ConformalScores, Doubt, abstained, confidence_quantiles
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
from .fitted import Alone, AnyCalibration, FittedModel
from .history import FitHistory, FitRecord, Recalibration
from .own_calibration import OwnCalibration
from .prevalence import PrevalenceEstimate
from .reference import EmbeddingReference
from .report import EvaluationReport, Measured
from .sets import PredictionSets, fewest_images, included_classes, true_probabilities
from .thresholds import ThresholdAim, best_thresholds, chosen_thresholds
from .uncertainty import Uncertainty, draw_probabilities, uncertainty_of

__all__ = [
    "STAGES",
    "Alone",
    "AnyCalibration",
    "Calibration",
    "ConformalScores",
    "Doubt",
    "EmbeddingReference",
    "Engine",
    "EvaluationReport",
    "Evidence",
    "Explanation",
    "FitHistory",
    "FitRecord",
    "FittedModel",
    "Measured",
    "OwnCalibration",
    "PredictionSets",
    "PrevalenceEstimate",
    "Recalibration",
    "SamplingOptions",
    "Stage",
    "ThresholdAim",
    "Uncertainty",
    "abstained",
    "best_thresholds",
    "chosen_thresholds",
    "classification_metrics",
    "confidence_quantiles",
    "draw_probabilities",
    "encode_images",
    "evidence_of",
    "expected_calibration_error",
    "explain",
    "fewest_images",
    "included_classes",
    "inference_dtype",
    "over_views",
    "true_probabilities",
    "uncertainty_of",
]
