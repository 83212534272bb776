"""What a model knows of the population it is for, as values of its configuration file."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from ..inference import FittedModel, Recalibration, ThresholdAim
from .parameters import instance

POPULATION_KEYS = {"shares", "aim", "recalibration"}


def plain_population(model: FittedModel) -> dict[str, Any]:
    """Class shares, aim of the thresholds and record of a later calibration."""
    return {
        "shares": None if model.shares is None else model.shares.tolist(),
        "aim": model.aim.to_dict(),
        "recalibration": None if model.recalibration is None else asdict(model.recalibration),
    }


def read_population(config: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of the model from what :func:`plain_population` made; earlier files have none."""
    shares, record = config.get("shares"), config.get("recalibration")
    return {
        "shares": None if shares is None else np.asarray(shares, float),
        "aim": instance(ThresholdAim, config.get("aim") or {}),
        "recalibration": None if record is None else Recalibration(**record),
    }
