"""Types of classification tasks: multi-class, multi-label and ordinal."""

from .kinds import (
    MULTICLASS,
    MULTILABEL,
    ORDINAL,
    TASKS,
    Task,
    class_shares,
    known_shares,
    learnt,
    task_named,
)
from .metrics import (
    CLASS_METRICS,
    CLASS_WORDS,
    METRIC_WORDS,
    class_metrics,
    classification_metrics,
)
from .reliability import ErrorInterval, calibration_errors, expected_calibration_error

__all__ = [
    "CLASS_METRICS",
    "CLASS_WORDS",
    "METRIC_WORDS",
    "MULTICLASS",
    "MULTILABEL",
    "ORDINAL",
    "TASKS",
    "ErrorInterval",
    "Task",
    "calibration_errors",
    "class_metrics",
    "class_shares",
    "classification_metrics",
    "expected_calibration_error",
    "known_shares",
    "learnt",
    "task_named",
]
