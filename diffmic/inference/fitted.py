"""Fitted model: a frozen object with everything that predictions depend on."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data import PreparedImages, PreparedStream, ValueRange
from ..data.augmentation import Augment
from ..errors import InputError
from ..model import Conditions, DiffMICNetwork, NetworkPlan
from ..tasks import Task
from .calibration import Calibration
from .decisions import (
    cheapest,
    moved_thresholds,
    named_costs,
    present_by_cost,
    recentred_cuts,
)
from .doubt import Doubt
from .engine import Engine
from .evidence import Evidence, SamplingOptions, Stage, encode_images, evidence_of
from .history import FitRecord, Recalibration
from .own_calibration import OwnCalibration
from .prevalence import log_ratio
from .thresholds import LARGEST_F1, ThresholdAim

AnyCalibration = Calibration | OwnCalibration


@dataclass(frozen=True, eq=False)
class Alone:
    """Calibration of the diffusion without the logits of the prior, for comparison.

    Attributes
    ----------
    calibration : Calibration
    thresholds : ndarray of shape (L,) or None
        Multi-label: decision thresholds.
    """

    calibration: AnyCalibration
    thresholds: NDArray[np.float64] | None = None


@dataclass(frozen=True, eq=False)
class FittedModel:
    """Trained network with its calibration, produced by a fit and saved or loaded by the hub.

    Attributes
    ----------
    network : DiffMICNetwork
        Trained network, in evaluation mode.
    plan : NetworkPlan
        Plan from which the network was built, with every "auto" resolved.
    classes : ndarray of shape (C,)
        Class labels as passed to ``fit``; for multi-label, the column indices.
    channels : int
        Number of channels of the training images, 1 or 3.
    calibrations : dict of str to Calibration
        Calibration of each trained stage: maps logits to probabilities.
    thresholds : dict of str to ndarray
        Decision thresholds of each stage. Multi-label: on the probability of each label, (L,).
        Ordinal: cut points on the expected grade, (C − 1,). Two classes: on the probability of the
        second one, (1,), if one was chosen. Other classes: none.
    sampling : SamplingOptions
        Sampling options for which calibrations and thresholds were fitted.
    seed : int
        Seed of the noise of predictions.
    engine : Engine
        Engine with which predictions run the network.
    drawing_ratio : ndarray of shape (C,) or None
        Ratio of the sampling frequency of each class in stage two to its actual frequency, up to a
        common factor; None: all equal.
    record : FitRecord
        Record of the fit.
    value_range : ValueRange or None
        Range of pixel values, which was given or found over the training images; None: they had 8
        bits, or were floats in 0–1.
    class_names : tuple of str or None
        Display names of the classes; None: their labels are their names.
    data_names : tuple of str or None
        Names that the training data had for the classes, by which labels of other data are
        compared; None: they had none.
    alone : Alone or None
        Calibration of the diffusion without the prior's logits; None: the diffusion was not
        trained, or the model was saved without it.
    doubt : Doubt or None
        What is kept of held-out images; None: there was no validation part, or the model was saved
        without it.
    shares : ndarray of shape (C,) or None
        Shares of the classes in the population for which the probabilities hold: that of the
        training images, by their weights, or of the images of a later calibration. For multi-label,
        the share of images with each label. None: not known, in a model saved without them.
    aim : ThresholdAim
        Aim for which the thresholds on probabilities were chosen.
    recalibration : Recalibration or None
        Record of a calibration after the fit; None: there was none.
    """

    network: DiffMICNetwork
    plan: NetworkPlan
    classes: NDArray[Any]
    channels: int
    calibrations: Mapping[Stage, AnyCalibration]
    thresholds: Mapping[Stage, NDArray[np.float64]]
    sampling: SamplingOptions
    seed: int
    engine: Engine
    drawing_ratio: NDArray[np.float64] | None = None
    record: FitRecord = field(default_factory=FitRecord)
    value_range: ValueRange | None = None
    class_names: tuple[str, ...] | None = None
    data_names: tuple[str, ...] | None = None
    alone: Alone | None = None
    doubt: Doubt | None = None
    shares: NDArray[np.float64] | None = None
    aim: ThresholdAim = LARGEST_F1
    recalibration: Recalibration | None = None

    @property
    def task(self) -> Task:
        """Type of task."""
        return self.plan.task

    @property
    def image_size(self) -> int:
        """Side of the whole image as the backbone sees it, in pixels."""
        return self.plan.image_size

    @property
    def input_size(self) -> int:
        """Side of the images that the network takes, in pixels; larger in a zoom."""
        return self.plan.input_size

    @property
    def crop(self) -> str:
        """Part of each image that the network sees: ``"none"`` or ``"square"``."""
        return self.plan.architecture.crop

    @property
    def zoom_size(self) -> int | None:
        """Side of the images from which a zoom cuts regions as they are; None: there is none."""
        return self.plan.zoom_size

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return self.engine.device

    def with_engine(self, engine: Engine) -> "FittedModel":
        """The same model with another engine."""
        return replace(self, engine=engine)

    def noise(self, n_draws: int) -> Tensor:
        """Noise of predictions with S draws, the same for every image, on the CPU."""
        return self.network.noise(n_draws, torch.Generator().manual_seed(self.seed))

    def conditions(
        self,
        images: PreparedImages | PreparedStream,
        *,
        batch_size: int = 32,
        num_workers: int = 0,
        n_views: int = 1,
        augment: Augment | None = None,
    ) -> Iterator[tuple[Conditions, Tensor]]:
        """Conditions of each batch, and the original sizes (B, 2) of its images, in pixels."""
        return encode_images(
            self.engine,
            images,
            batch_size=batch_size,
            num_workers=num_workers,
            n_views=n_views,
            augment=augment,
            seed=self.seed,
        )

    def evidence(
        self,
        images: PreparedImages | PreparedStream,
        stage: Stage = "diffusion",
        options: SamplingOptions | None = None,
        *,
        batch_size: int = 32,
        num_workers: int = 0,
        augment: Augment | None = None,
        embeddings: bool = False,
    ) -> Evidence:
        """Evidence of a stage for the images; it always contains the logits of the prior."""
        options = options or self.sampling
        batches = self.conditions(
            images,
            batch_size=batch_size,
            num_workers=num_workers,
            n_views=options.n_views,
            augment=augment if options.n_views > 1 else None,
        )
        encoded = (conditions for conditions, _ in batches)
        return self.evidence_from(encoded, stage, options, embeddings=embeddings)

    def evidence_from(
        self,
        batches: Iterable[Conditions],
        stage: Stage,
        options: SamplingOptions,
        *,
        embeddings: bool = False,
    ) -> Evidence:
        """Evidence of a stage from batches of conditions; see :func:`evidence_of`."""
        ratio = self.drawing_ratio
        return evidence_of(
            self.engine,
            batches,
            stage,
            options,
            seed=self.seed,
            drawing_ratio=None if ratio is None else torch.from_numpy(ratio),
            embeddings=embeddings,
        )

    def probabilities(
        self, evidence: Evidence, stage: Stage, prevalence: NDArray[np.float64] | None = None
    ) -> NDArray[np.float64]:
        """Calibrated probabilities (n, C), for a population with the shares ``prevalence`` (C,)."""
        logits = self.calibration(stage).logits(
            evidence.logits(stage, self.task), evidence.prior_logits.double()
        )
        if prevalence is not None:
            logits = logits + torch.from_numpy(self._log_ratio(prevalence))
        proba: NDArray[np.float64] = self.task.probabilities(logits).numpy()
        return proba

    def decisions(
        self,
        proba: NDArray[np.float64],
        stage: Stage,
        prevalence: NDArray[np.float64] | None = None,
        costs: NDArray[np.float64] | str | None = None,
    ) -> NDArray[Any]:
        """Predicted labels (n,), or an indicator matrix (n, L), from probabilities.

        Parameters
        ----------
        proba : ndarray of shape (n, C)
            Probabilities for the shares ``prevalence``.
        stage : {"diffusion", "prior"}
        prevalence : ndarray of shape (C,) or None
            Shares of the classes for which the probabilities hold; None: ``shares``.
        costs : ndarray, str or None
            Cost matrix (C, C), for multi-label (L, 2, 2), or the name of one; None: decisions are
            made by the thresholds, where there are some, or else for the most probable class.
        """
        if costs is not None:
            return self._by_cost(proba, self.shares if prevalence is None else prevalence, costs)
        return self.task.decide(proba, self.classes, self.thresholds_of(stage, prevalence))

    def _by_cost(
        self,
        proba: NDArray[np.float64],
        shares: NDArray[np.float64] | None,
        costs: NDArray[np.float64] | str,
    ) -> NDArray[Any]:
        exclusive = self.task.exclusive
        if isinstance(costs, str):
            if costs == "balanced":
                shares = self._known(shares)
                if not (shares > 0).all() or not (exclusive or (shares < 1).all()):
                    raise InputError(
                        "costs='balanced' weighs an error by one over the share of the true class, "
                        f"but some shares are 0{'' if exclusive else ' or 1'}: {shares.tolist()}. "
                        "Give the costs as a matrix."
                    )
            if shares is None:
                shares = np.full(len(self.classes), 1.0)
            if not exclusive:
                pairs = np.column_stack([1 - shares, shares])
                costs = np.stack([named_costs(costs, pair) for pair in pairs])
            else:
                costs = named_costs(costs, shares)
        if not exclusive:
            return present_by_cost(proba, costs)
        decided: NDArray[Any] = self.classes[cheapest(proba, costs)]
        return decided

    def thresholds_of(
        self, stage: Stage, prevalence: NDArray[np.float64] | None = None
    ) -> NDArray[np.float64] | None:
        """Thresholds of a stage for a population with other shares of the classes; None: none.

        Thresholds on probabilities are moved with them, so that the same images pass, with the same
        sensitivity and specificity; cut points between grades lie about the new mean grade.
        """
        if stage == "diffusion_alone":
            thresholds = None if self.alone is None else self.alone.thresholds
        else:
            thresholds = self.thresholds.get(stage)
        if thresholds is None or prevalence is None:
            return thresholds
        ratio = self._log_ratio(prevalence)
        if not self.task.exclusive:
            return moved_thresholds(thresholds, ratio)
        if len(self.classes) == 2:
            return moved_thresholds(thresholds, ratio[1:] - ratio[:1])
        return recentred_cuts(thresholds, prevalence)

    def _log_ratio(self, prevalence: NDArray[np.float64]) -> NDArray[np.float64]:
        return log_ratio(prevalence, self._known(self.shares), exclusive=self.task.exclusive)

    def _known(self, shares: NDArray[np.float64] | None) -> NDArray[np.float64]:
        """Shares, after a check that they are known."""
        if shares is None:
            raise InputError(
                "The shares of the classes for which the probabilities of this model hold are not "
                "known, because it was saved by an earlier version of diffmic. "
                "clf.calibrate(X, y) on labelled images makes them known."
            )
        return shares

    @property
    def stages(self) -> list[Stage]:
        """Stages that have probabilities: those trained, and the diffusion alone."""
        order: tuple[Stage, ...] = ("prior", "diffusion")
        trained = [stage for stage in order if stage in self.calibrations]
        return trained if self.alone is None or len(trained) < 2 else [*trained, "diffusion_alone"]

    @property
    def main_stage(self) -> Stage:
        """Stage whose probabilities count: the diffusion, or the prior of a model without one."""
        return "diffusion" if "diffusion" in self.calibrations else "prior"

    def calibration(self, stage: Stage) -> AnyCalibration:
        """Calibration of a stage."""
        if stage != "diffusion_alone":
            return self.calibrations[stage]
        assert self.alone is not None  # checked by whoever offers the stage
        return self.alone.calibration
