"""What belongs to the doubt of a model, as values and tensors of its files, and back."""

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ModelFileError
from ..inference import (
    Alone,
    AnyCalibration,
    ConformalScores,
    Doubt,
    EmbeddingReference,
    FittedModel,
    SamplingOptions,
)
from ..inference.reference import LEVELS, N_DIRECTIONS
from .files import Stored
from .parameters import instance

PREFIX = "doubt."
_STAGE = "(prior|diffusion|diffusion_alone)"
_NAME = re.compile(rf"doubt\.(confidence\.{_STAGE}|true_proba\.{_STAGE}|reference\.\w+)")
_REFERENCE = ("mean", "directions", "variances", "held_out")


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


def doubt_tensors(doubt: Doubt | None) -> dict[str, Tensor]:
    """Arrays that are stored beside the weights, by name; directions in float32."""
    if doubt is None:
        return {}
    found: dict[str, Any] = {f"confidence.{s}": q for s, q in doubt.confidence.items()}
    if doubt.reference is not None:
        found |= {f"reference.{name}": getattr(doubt.reference, name) for name in _REFERENCE}
        found["reference.directions"] = found["reference.directions"].astype(np.float32)
    if doubt.conformal is not None:
        found |= {f"true_proba.{s}": p for s, p in doubt.conformal.true_proba.items()}
    return {
        PREFIX + name: torch.from_numpy(np.ascontiguousarray(values))
        for name, values in found.items()
    }


def plain_doubt(doubt: Doubt | None) -> dict[str, Any] | None:
    """What the configuration says of the stored arrays."""
    if doubt is None:
        return None
    conformal, tensors = doubt.conformal, doubt_tensors(doubt)
    return {
        "shapes": {name: list(tensors[name].shape) for name in sorted(tensors)},
        "sampling": None if conformal is None else asdict(conformal.sampling),
    }


def announced(stored: Mapping[str, Stored], saved: Any) -> dict[str, Stored]:
    """Stored tensors without those of a doubt of which the configuration says nothing."""
    return {n: of for n, of in stored.items() if saved is not None or not n.startswith(PREFIX)}


def stored_doubt(saved: Any, exclusive: bool, n_classes: int) -> dict[str, Stored]:
    """Shapes and types of the arrays that the configuration announces.

    They are checked to be those of a model with these classes; else a ModelFileError.
    """
    if saved is None:
        return {}
    if not _is_sound(saved, 1 if exclusive else n_classes):
        raise ModelFileError(
            f"doubt is {str(saved)[:200]}, not the shapes of what is kept of held-out images. It "
            "may have been changed by hand; save the model again."
        )
    return {
        name: Stored(shape, "F32" if name.endswith(".directions") else "F64")
        for name, shape in saved["shapes"].items()
    }


def _is_sound(saved: Any, columns: int) -> bool:
    """Whether announced shapes are those of a model whose decisions have so many confidences."""
    if not isinstance(saved, dict) or set(saved) != {"shapes", "sampling"}:
        return False
    shapes, start = saved["shapes"], f"{PREFIX}reference."
    if not isinstance(shapes, dict) or not all(map(_NAME.fullmatch, shapes)):
        return False
    rows = set()
    for name, shape in shapes.items():
        if not isinstance(shape, list) or not all(type(n) is int and n > 0 for n in shape):
            return False
        part = name.removeprefix(PREFIX).split(".")[0]
        if part == "confidence" and shape != [len(LEVELS), columns]:
            return False
        if part == "true_proba":
            if len(shape) != 2 or shape[1] > columns:
                return False
            rows.add(shape[0])
    if of := {n.removeprefix(start): s for n, s in shapes.items() if n.startswith(start)}:
        d, k = (of.get("mean") or [0])[-1], (of.get("directions") or [0])[0]
        wanted = {"mean": [d], "directions": [k, d], "variances": [k + 1], "held_out": [101]}
        if of != wanted or not 1 <= k <= N_DIRECTIONS:
            return False
    return len(rows) == (0 if saved["sampling"] is None else 1)


def read_doubt(
    saved: Any, tensors: Mapping[str, Tensor], n_features: int, *, where: str
) -> Doubt | None:
    """Doubt from the stored arrays, whose shapes have been checked; damaged: a ModelFileError."""
    if saved is None:
        return None
    arrays = {n.removeprefix(PREFIX): t.double().numpy() for n, t in tensors.items()}
    found: dict[str, dict[Any, Any]] = {"confidence": {}, "reference": {}, "true_proba": {}}
    for name, values in arrays.items():
        kind, _, what = name.partition(".")
        found[kind][what] = values
    of, shares = found["reference"], list(found["true_proba"].values())
    quantiles = [*found["confidence"].values(), *([of["held_out"]] if of else [])]
    sound = (
        all(np.isfinite(v).all() for v in [*found["confidence"].values(), *of.values()])
        and all((np.diff(values, axis=0) >= 0).all() for values in quantiles)
        and (not of or ((of["variances"] > 0).all() and len(of["mean"]) == n_features))
        and all((((p >= 0) & (p <= 1)) | np.isnan(p)).all() for p in shares)
        and all(np.isfinite(p[:, 0]).all() for p in shares)
    )
    if not sound:
        raise ModelFileError(
            f"What {where!r} says of held-out images is damaged: its tensors {sorted(tensors)[:9]} "
            "hold NaN, or values out of range. Save the model again."
        )
    conformal = None
    if shares:
        sampling = instance(SamplingOptions, saved["sampling"])
        conformal = ConformalScores(found["true_proba"], sampling)
    return Doubt(found["confidence"], EmbeddingReference(**of) if of else None, conformal)
