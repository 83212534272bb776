"""diffmic: medical image classification by diffusion, behind a scikit-learn style estimator."""

import importlib
import logging
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .classifier import DiffMICClassifier
    from .errors import (
        BackboneError,
        CheckpointError,
        DiffMICError,
        DiffMICWarning,
        HubError,
        InputError,
        ModelFileError,
        PartError,
        PretrainedWeightsError,
        ProcessesError,
        TrainingDivergedError,
    )
    from .estimator.presets import list_presets
    from .hub import ModelCard
    from .published import list_pretrained

__version__ = version("diffmic")
logging.getLogger("diffmic").addHandler(logging.NullHandler())

_ROOMS = {
    "DiffMICClassifier": "classifier",
    "ModelCard": "hub",
    "list_presets": "estimator.presets",
    "list_pretrained": "published",
    **dict.fromkeys(
        (
            "BackboneError",
            "CheckpointError",
            "DiffMICError",
            "DiffMICWarning",
            "HubError",
            "InputError",
            "ModelFileError",
            "PartError",
            "PretrainedWeightsError",
            "ProcessesError",
            "TrainingDivergedError",
        ),
        "errors",
    ),
}

__all__ = [
    "BackboneError",
    "CheckpointError",
    "DiffMICClassifier",
    "DiffMICError",
    "DiffMICWarning",
    "HubError",
    "InputError",
    "ModelCard",
    "ModelFileError",
    "PartError",
    "PretrainedWeightsError",
    "ProcessesError",
    "TrainingDivergedError",
    "__version__",
    "list_presets",
    "list_pretrained",
]


def __getattr__(name: str) -> Any:
    """Import public names on first use, so that ``import diffmic`` alone is fast."""
    if name not in _ROOMS:
        raise AttributeError(f"module 'diffmic' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_ROOMS[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
