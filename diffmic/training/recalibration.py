"""Calibration of a fitted model on other images, without training."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import InputError, warn_user
from ..inference import (
    Alone,
    AnyCalibration,
    Doubt,
    Evidence,
    FittedModel,
    OwnCalibration,
    Recalibration,
    SamplingOptions,
    Stage,
    ThresholdAim,
    chosen_thresholds,
)
from ..inference.decisions import kappa_cuts
from ..tasks import Task, class_shares, known_shares, learnt
from .readings import N_FOLDS, Reading, balanced_folds, without_each

FEWEST_IMAGES = 10


def recalibrated(
    model: FittedModel,
    evidence: Evidence,
    targets: Tensor,
    weights: Tensor,
    sampling: SamplingOptions,
    *,
    stacked: bool,
    names: tuple[str, ...],
    groups: NDArray[np.intp] | None = None,
) -> FittedModel:
    """The model with calibrations, thresholds and class shares of labelled images.

    For each stage temperature, weight of the prior and, for multi-label, shift are fitted as after
    training; and so are offsets of the classes, which are expected to be those of the change of
    their shares (Saerens et al., 2002). A calibration of one's own is fitted anew, as it is.
    Probabilities then hold for the population of the images.

    Parameters
    ----------
    model : FittedModel
    evidence : Evidence
        Evidence of the images; with draws if the diffusion was trained.
    targets : Tensor of shape (n, C)
        One-hot or indicator targets; NaN: not known.
    weights : Tensor of shape (n,)
        Sample weights.
    sampling : SamplingOptions
        Sampling options of the evidence.
    stacked : bool
        Whether the prior's logits are weighed with those of the diffusion by a calibration that was
        not fitted before.
    names : tuple of str
        Display names of the classes, for messages.
    groups : ndarray of shape (n,) or None
        Group of each image; cross-fitting never divides one.

    Raises
    ------
    InputError
        There are too few images, or too few classes among them.
    """
    task = model.task
    _check(targets, task, names)
    former = torch.full((targets.shape[1],), torch.nan, dtype=torch.float64)
    if model.shares is not None:
        former = torch.from_numpy(model.shares)
    calibrations: dict[Stage, AnyCalibration] = {}
    thresholds: dict[Stage, NDArray[np.float64]] = {}
    confidence: dict[Stage, NDArray[np.float64]] = {}
    before: dict[str, float] = {}
    after: dict[str, float] = {}
    spread: dict[str, float] = {}
    w, folds = weights.double(), _folds(targets, groups, model.seed)
    total = float(w @ known_shares(targets))
    for stage in model.stages:
        old = model.calibration(stage)
        own = old.part if isinstance(old, OwnCalibration) else None
        if isinstance(old, OwnCalibration):
            weighed = old.stacked
        else:
            weighed = stage == "diffusion" and (stacked or old.prior_weight > 0)
        prior = evidence.prior_logits.double() if weighed else None
        logits = evidence.logits(stage, task)
        reading = Reading(logits, prior, targets, weights, task, former)
        calibrations[stage] = reading.fitted(own)
        errors = [
            task.loss(found, targets.double())
            for found in (
                old.logits(logits, evidence.prior_logits.double()),
                _cross_fitted(reading, folds, own),
            )
        ]
        before[str(stage)], after[str(stage)] = (float(w @ each) / total for each in errors)
        changes = w * (errors[1] - errors[0]) * len(w) / total
        spread[str(stage)] = float(changes.std()) / len(w) ** 0.5
        if model.thresholds_of(stage) is not None or task.has_thresholds:
            thresholds[stage] = thresholds_of(
                model, reading.proba(calibrations[stage]), targets, weights, stage, names
            )
        confidence[stage] = reading.confidence(calibrations[stage], thresholds.get(stage))
    _compare(before, after, spread, len(targets))
    if model.doubt is not None and model.doubt.conformal is not None:
        warn_user(
            "predict_set was prepared for the probabilities before this calibration: call "
            "conformalize again, with other images than these."
        )
    new = class_shares(targets, weights, task)
    kept = torch.where(learnt(targets), new, former)
    if task.exclusive:  # classes that are absent keep their shares, the others have the rest
        absent = (~learnt(targets)) & ~former.isnan()
        kept = torch.where(absent, former, new * (1 - former[absent].sum()))
    kept = torch.where(kept.isnan(), new, kept)
    alone = model.alone
    if "diffusion_alone" in calibrations:
        of_alone = thresholds.pop("diffusion_alone", None)
        alone = Alone(calibrations.pop("diffusion_alone"), of_alone)
    return replace(
        model,
        calibrations=calibrations,
        thresholds=thresholds,
        alone=alone,
        # Prediction sets hold for the probabilities with which they were prepared.
        doubt=replace(model.doubt or Doubt(), confidence=confidence, conformal=None),
        sampling=sampling,
        shares=kept.numpy(),
        recalibration=Recalibration(len(targets), (targets > 0).sum(dim=0).tolist(), before, after),
    )


def thresholds_of(
    model: FittedModel,
    proba: NDArray[np.float64],
    targets: Tensor,
    weights: Tensor,
    stage: Stage,
    names: tuple[str, ...],
    aim: ThresholdAim | None = None,
) -> NDArray[np.float64]:
    """Thresholds of a stage for an aim (None: the model's); it is said where it is not reached.

    The probabilities (n, C) are those of the new calibration. The model's thresholds are kept for
    labels about which the images say nothing. Grades, unless there are two and an aim is given,
    have cut points that maximise quadratic kappa.
    """
    task, w = model.task, weights.double().numpy()
    if task.ordered and (aim is None or len(names) > 2):
        return kappa_cuts(proba, w)
    labels = slice(1, None) if task.exclusive else slice(None)
    aim = model.aim if aim is None else aim
    found = chosen_thresholds(
        targets.numpy()[:, labels],
        proba[:, labels],
        aim,
        weights=w,
        before=model.thresholds_of(stage),
    )
    if missed := found.missed(aim, names[labels]):
        warn_user(
            f"The aim of the thresholds of the {stage}, {aim}, is not reached for "
            f"{len(missed)} of {len(found.values)} labels. {'; '.join(missed[:10])}."
        )
    return found.values


def _check(targets: Tensor, task: Task, names: tuple[str, ...]) -> None:
    n_images = len(targets)
    if n_images < FEWEST_IMAGES:
        raise InputError(
            f"There are {n_images} images with a label and a weight above zero; a calibration "
            f"needs at least {FEWEST_IMAGES}, and is worth something from about 100 on."
        )
    known = learnt(targets)
    absent = [name for name, there in zip(names, known.tolist(), strict=True) if not there]
    if not known.any():
        raise InputError(
            "y holds a single class, or labels that are the same for every image: a calibration "
            "needs images of at least two classes."
        )
    if absent:
        what = "with" if task.exclusive else "with and without"
        warn_user(
            f"There are no images {what} {', '.join(map(repr, absent[:10]))} to calibrate on: the "
            "frequency of such images is taken to be as before."
        )


def _compare(
    before: Mapping[str, float],
    after: Mapping[str, float],
    spread: Mapping[str, float],
    n_images: int,
) -> None:
    """Warn if the new calibration is worse by more than the standard error of the difference."""
    worse = [
        f"{stage}: {after[stage]:.4f} instead of {before[stage]:.4f}"
        for stage in before
        if after[stage] > before[stage] + spread[stage]
    ]
    if worse:
        warn_user(
            f"On these {n_images} images the new calibration, cross-fitted, has a larger negative "
            f"log-likelihood than the one before ({'; '.join(worse)}): there are too few images, "
            "or the one before was right for them. It is used all the same; keep a copy of the "
            "estimator to go back."
        )


def _cross_fitted(reading: Reading, folds: Tensor, own: Any) -> Tensor:
    """Logits of each image by a calibration that was fitted on the other folds."""
    found = torch.zeros_like(reading.logits)
    for inside, _, calibration in without_each(reading, folds, own):
        part = reading[inside]
        found[inside] = calibration.logits(part.logits, part.prior_logits)
    return found


def _folds(targets: Tensor, groups: NDArray[np.intp] | None, seed: int) -> Tensor:
    if groups is None:
        return balanced_folds(targets, N_FOLDS, seed)
    names, first, units = np.unique(groups, return_index=True, return_inverse=True)
    if len(names) < 2:
        raise InputError("groups holds a single group: cross-fitting needs at least two.")
    # Groups are dealt out by the class of their first image.
    of_units = balanced_folds(targets[torch.from_numpy(first)], min(N_FOLDS, len(names)), seed)
    return of_units[torch.from_numpy(units)]
