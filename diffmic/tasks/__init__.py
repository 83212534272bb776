"""Types of classification tasks: multi-class, multi-label and ordinal."""

from .kinds import MULTICLASS, MULTILABEL, ORDINAL, TASKS, Task, known_shares, task_named
from .metrics import classification_metrics, expected_calibration_error

__all__ = [
    "MULTICLASS",
    "MULTILABEL",
    "ORDINAL",
    "TASKS",
    "Task",
    "classification_metrics",
    "expected_calibration_error",
    "known_shares",
    "task_named",
]
