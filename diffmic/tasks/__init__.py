"""Types of classification tasks: multi-class, multi-label and ordinal."""

from .kinds import MULTICLASS, MULTILABEL, ORDINAL, TASKS, Task, task_named
from .metrics import classification_metrics, expected_calibration_error

__all__ = [
    "MULTICLASS",
    "MULTILABEL",
    "ORDINAL",
    "TASKS",
    "Task",
    "classification_metrics",
    "expected_calibration_error",
    "task_named",
]
