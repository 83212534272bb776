"""Calibration and thresholds on images of a user's own, without training."""

from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from ..data.splits import group_numbers
from ..data.targets import TargetEncoding
from ..data.weights import sample_weights
from ..errors import InputError
from ..hub import ModelCard
from ..inference import (
    Doubt,
    Evidence,
    FittedModel,
    SamplingOptions,
    ThresholdAim,
    confidence_quantiles,
)
from ..settings import undisturbed
from ..training import resolve_recipe
from ..training.recalibration import recalibrated, thresholds_of
from .engines import Engines
from .parameters import sampling_options
from .prediction import labelled_evidence


class Calibrating(Engines):
    """Methods of the estimator that fit its probabilities and thresholds to other images."""

    card_: ModelCard

    @undisturbed
    def calibrate(
        self,
        X: Any,
        y: Any = None,
        *,
        sample_weight: Any = None,
        groups: Any = None,
        num_steps: int | None = None,
        n_draws: int | None = None,
        n_views: int | None = None,
        aim: str | None = None,
        sensitivity: float | None = None,
        specificity: float | None = None,
    ) -> Self:
        """Refit the calibration of both stages on labelled images of your own, without training.

        Afterwards probabilities hold for the population of these images, also in its class shares,
        which ``shares_`` gives. If classes were sampled on purpose, such as as many cases as
        controls, restore their frequencies by ``sample_weight``, or predict with ``prevalence``.

        Parameters
        ----------
        X, y : as in ``fit``
            Images that the model was not trained on, and their labels.
        sample_weight : array-like of shape (n,) or None
            Weight of each image.
        groups : array-like of shape (n,) or None
            Group of each image, such as its patient, for the cross-fitted comparison.
        num_steps, n_draws, n_views : int or None
            Sampling options to calibrate for, which become parameters of the estimator; None: the
            parameters as they are.
        aim, sensitivity, specificity
            Aim of the thresholds, as in :meth:`tune_thresholds`; None: that of the present ones.

        Returns
        -------
        DiffMICClassifier
            The estimator itself. ``recalibration_`` compares the mean negative log-likelihood on
            the images with that of the former calibration.

        Raises
        ------
        InputError
            Images, labels or options cannot be used, fewer than 10 images have a label, or all are
            of one class. The former calibration is kept, as after any error.
        NotFittedError
            There is no fitted model.
        RuntimeError
            A fit has replaced the model meanwhile.

        Notes
        -----
        For each stage temperature, weight of the prior and, for multi-label, shift are fitted as
        after training, and an offset for each class, which a penalty with the weight of one image
        keeps near the change of the class shares (Saerens et al., 2002; Alexandari et al., 2020).
        ``validation_scores_`` remain those of the former calibration, and the card says so; scores
        on a test part are taken out of ``card_``, as by :meth:`tune_thresholds`.
        """
        model, parameters = self._fitted(), self._parameters
        wanted = _aim(model, aim, sensitivity, specificity)
        asked = {"num_steps": num_steps, "n_draws": n_draws, "n_views": n_views}
        options = sampling_options(model, parameters, asked)
        evidence, targets, weights, units = self._labelled(
            model, X, y, options, sample_weight=sample_weight, groups=groups
        )
        if wanted is not None:
            model = replace(_with_thresholds(model), aim=wanted)
        new = recalibrated(
            model,
            evidence,
            targets,
            weights,
            options,
            stacked=resolve_recipe(parameters["recipe"]).stacked,
            names=tuple(self.class_names_),
            groups=units,
        )
        self._put(
            model,
            calibrations=new.calibrations,
            thresholds=new.thresholds,
            alone=new.alone,
            doubt=new.doubt,
            sampling=new.sampling,
            shares=new.shares,
            aim=new.aim,
            recalibration=new.recalibration,
        )
        for name, value in asked.items():
            if value is not None:
                setattr(self, name, value)
        return self

    @undisturbed
    def tune_thresholds(
        self,
        X: Any,
        y: Any = None,
        *,
        aim: str | None = None,
        sensitivity: float | None = None,
        specificity: float | None = None,
        sample_weight: Any = None,
    ) -> Self:
        """Choose the decision thresholds anew; probabilities stay as they are.

        For multi-label tasks each label has a threshold; with two exclusive classes the second of
        ``classes_`` is decided from a threshold on.

        Parameters
        ----------
        X, y : as in ``fit``
            Images that the model was not trained on, and their labels.
        aim : {"f1", "youden"} or None
            Largest F1, or largest sum of sensitivity and specificity. None without a rate: "f1".
        sensitivity, specificity : float or None
            Least rate, in 0–1, on these images; the other rate is as large as it can be. With both,
            the sensitivity is reached first, and a warning says where the specificity is not.
        sample_weight : array-like of shape (n,) or None
            Weight of each image.

        Returns
        -------
        DiffMICClassifier
            The estimator itself; ``thresholds_`` holds the thresholds of each stage.

        Raises
        ------
        InputError
            Images or labels cannot be used, or the classes have no thresholds.
        NotFittedError
            There is no fitted model.
        RuntimeError
            A fit has replaced the model meanwhile.
        """
        model = self._fitted()
        wanted = _aim(
            model,
            aim or ("f1" if sensitivity is specificity is None else None),
            sensitivity,
            specificity,
        )
        evidence, targets, weights, _ = self._labelled(
            model, X, y, model.sampling, sample_weight=sample_weight
        )
        names = tuple(self.class_names_)
        model = _with_thresholds(model)
        proba = {stage: model.probabilities(evidence, stage) for stage in model.stages}
        thresholds = {
            stage: thresholds_of(model, p, targets, weights, stage, names, wanted)
            for stage, p in proba.items()
        }
        confidence = {
            stage: confidence_quantiles(p, model.task, thresholds[stage])
            for stage, p in proba.items()
        }
        doubt = replace(model.doubt or Doubt(), confidence=confidence)
        own = thresholds.pop("diffusion_alone", None)
        alone = model.alone and replace(model.alone, thresholds=own)
        self._put(model, thresholds=thresholds, alone=alone, aim=wanted, doubt=doubt)
        return self

    def _labelled(
        self,
        model: FittedModel,
        X: Any,
        y: Any,
        options: SamplingOptions,
        *,
        sample_weight: Any = None,
        groups: Any = None,
    ) -> tuple[Evidence, torch.Tensor, torch.Tensor, NDArray[np.intp] | None]:
        """Evidence, targets, weights and groups of the images with a label and a weight."""
        columns = {"sample_weight": sample_weight, "groups": groups}
        evidence, truth = labelled_evidence(
            model, self._parameters, X, y, model.main_stage, vars(options), refit=True, **columns
        )
        weights = torch.from_numpy(sample_weights(sample_weight, len(truth)))
        units = None if groups is None else group_numbers(groups)
        encoding = TargetEncoding(model.classes, model.task)
        targets = torch.from_numpy(encoding.encode(truth))
        used = (weights > 0) & (~targets.isnan()).any(dim=1)
        kept = used.nonzero().flatten()
        return (
            evidence[kept],
            targets[kept],
            weights[kept],
            None if units is None else units[kept.numpy()],
        )

    def _put(self, model: FittedModel, **changes: Any) -> None:
        """Change the present model, unless a fit has replaced it meanwhile."""
        while True:
            present = self._fitted()
            if present.record is not model.record:
                raise RuntimeError(
                    "A fit has replaced the model meanwhile, which is kept as it is. Call again."
                )
            if self._replaced(present, replace(present, **changes)):
                break
        if (card := vars(self).get("card_")) is not None and card.test_scores:
            self.card_ = replace(card, test_scores={}, n_test=None)


def _aim(
    model: FittedModel, aim: str | None, sensitivity: float | None, specificity: float | None
) -> ThresholdAim | None:
    """The aim that was asked for, after a check; None: none was."""
    if aim is None and sensitivity is None and specificity is None:
        return None
    if aim is not None and not (sensitivity is None and specificity is None):
        raise InputError(f"aim is {aim!r}, and a rate was given, too: give one or the other.")
    if model.task.exclusive and len(model.classes) > 2:
        raise InputError(
            f"There are {len(model.classes)} exclusive classes, which have no thresholds on their "
            "probabilities. Decide by cost: predict(X, costs=...)."
        )
    if aim is not None:
        return ThresholdAim(aim)
    return ThresholdAim("rates", sensitivity, specificity)


def _with_thresholds(model: FittedModel) -> FittedModel:
    """The model with thresholds of every stage, ½ where there are none yet."""
    usual = np.full(model.task.n_thresholds(len(model.classes)), 0.5)
    alone = model.alone
    if alone is not None and alone.thresholds is None:
        alone = replace(alone, thresholds=usual)
    thresholds = {stage: model.thresholds.get(stage, usual) for stage in model.calibrations}
    return replace(model, thresholds=thresholds, alone=alone)
