"""What belongs to the doubt of a model, as values of its configuration, and back."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..inference import Alone, AnyCalibration, FittedModel


def plain_alone(model: FittedModel) -> dict[str, Any] | None:
    """Calibration of the diffusion alone as JSON values; None: there is none."""
    alone = model.alone
    if alone is None or "diffusion" not in model.calibrations:
        return None
    thresholds = None if alone.thresholds is None else alone.thresholds.tolist()
    return {"calibration": alone.calibration.to_dict(), "thresholds": thresholds}


def read_alone(
    saved: dict[str, Any] | None, calibration: Callable[[dict[str, Any]], AnyCalibration]
) -> Alone | None:
    """Calibration of the diffusion alone from saved values."""
    if saved is None:
        return None
    thresholds = None if saved["thresholds"] is None else np.asarray(saved["thresholds"], float)
    return Alone(calibration(saved["calibration"]), thresholds)
