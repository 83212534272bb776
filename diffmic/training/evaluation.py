"""Validation: metrics after each epoch, then calibration and cross-fitted metrics."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data import LabelledImages
from ..inference import (
    Alone,
    AnyCalibration,
    Calibration,
    Doubt,
    EmbeddingReference,
    Engine,
    Evidence,
    OwnCalibration,
    SamplingOptions,
    Stage,
    chosen_thresholds,
    confidence_quantiles,
    encode_images,
    evidence_of,
)
from ..inference.calibration import mean_nll
from ..inference.decisions import kappa_cuts
from ..inference.prevalence import log_ratio
from ..model import Conditions, DiffMICNetwork
from ..tasks import Task, class_shares, known_shares, learnt
from .options import TrainingOptions

N_FOLDS = 5


@dataclass(frozen=True)
class Gain:
    """Gain in log-likelihood of the diffusion over its prior, on held-out images.

    Attributes
    ----------
    mean : float
        Mean negative log-likelihood of the prior minus that of the diffusion.
    standard_error : float
        Standard error of the mean over the images.
    """

    mean: float
    standard_error: float


@dataclass
class Verdict:
    """Calibration and validation metrics of a network.

    Attributes
    ----------
    calibrations, thresholds : dict of str
        Calibration and, for multi-label and grades, thresholds of each stage, fitted on the whole
        validation part.
    scores : dict of str to dict of str to float
        Cross-fitted metrics; see :class:`~diffmic.inference.FitRecord`.
    alone : Alone or None
        Calibration of the diffusion without the prior's logits; None if it was not trained.
    doubt : Doubt or None
        What predictions on the validation part tell of doubt; None without one.
    gain : Gain or None
        Cross-fitted gain of the diffusion; None if the diffusion was not trained.
    """

    calibrations: dict[Stage, AnyCalibration] = field(default_factory=dict)
    thresholds: dict[Stage, NDArray[np.float64]] = field(default_factory=dict)
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    alone: Alone | None = None
    doubt: Doubt | None = None
    gain: Gain | None = None


class Evaluation:
    """Evaluation of a network on the validation part.

    During training, a stage is evaluated on the original images; the final metrics and the
    calibration use as many test-time views as predictions. While the encoders are frozen,
    conditions are encoded only once: for all of stage two if it trains on cached conditions.

    Parameters
    ----------
    part : LabelledImages
        Validation part.
    options : TrainingOptions
    drawing_ratio : Tensor of shape (C,) or None
        As in :func:`~diffmic.inference.evidence_of`.
    conditions : Conditions or None
        Conditions of the validation part, if available while the encoders are frozen.
    """

    def __init__(
        self,
        part: LabelledImages,
        options: TrainingOptions,
        drawing_ratio: Tensor | None = None,
        conditions: Conditions | None = None,
    ) -> None:
        self.part = part
        self.options = options
        self.drawing_ratio = drawing_ratio
        self._conditions = conditions

    def prior(self, network: DiffMICNetwork) -> dict[str, float]:
        """Metrics of the fused prior during stage one."""
        return self._metrics("prior", network, frozen=False)

    def diffusion(self, network: DiffMICNetwork) -> dict[str, float]:
        """Metrics of the diffusion during stage two."""
        own_encoders = network.image_encoder is not None or network.region_encoder is not None
        frozen = not own_encoders and not self.options.recipe.joint
        return self._metrics("diffusion", network, frozen=frozen)

    def verdict(self, network: DiffMICNetwork, stages: Sequence[Stage]) -> Verdict:
        """Calibration, thresholds and cross-fitted metrics of the stages, after training."""
        self._conditions = None
        last: Stage = "diffusion" if "diffusion" in stages else "prior"
        evidence = self._evidence(last, network, self.options.sampling, embeddings=True)
        readings = {stage: self._reading(stage, evidence, network.task) for stage in stages}
        found = Verdict()
        for stage, reading in readings.items():
            found.calibrations[stage] = reading.fitted(self.options.recipe.calibration)
            if network.task.has_thresholds:
                found.thresholds[stage] = reading.best_thresholds(found.calibrations[stage])
        measured: dict[str, Reading] = {str(stage): r for stage, r in readings.items()}
        if "diffusion" in stages:
            alone = Reading(evidence.logits("diffusion", network.task), None, *self._truth(network))
            measured["diffusion_alone"] = alone
            calibration = alone.fitted(self.options.recipe.calibration)
            found.alone = Alone(
                calibration,
                alone.best_thresholds(calibration) if network.task.has_thresholds else None,
            )
        assert evidence.embeddings is not None  # asked for above
        sure = {
            stage: reading.confidence(found.calibrations[stage], found.thresholds.get(stage))
            for stage, reading in readings.items()
        }
        if found.alone is not None:
            sure["diffusion_alone"] = alone.confidence(calibration, found.alone.thresholds)
        found.doubt = Doubt(sure, EmbeddingReference.fit(evidence.embeddings.numpy()))
        errors = {}
        for name, reading in measured.items():
            found.scores[name], errors[name] = cross_fitted(
                reading, self.options.seed, self.options.recipe.calibration
            )
        if "diffusion" in stages and len(self.part) > 1:
            difference = errors["prior"] - errors["diffusion"]
            spread = float(difference.std(ddof=1)) / len(difference) ** 0.5
            found.gain = Gain(float(difference.mean()), spread)
        return found

    def _metrics(self, stage: Stage, network: DiffMICNetwork, *, frozen: bool) -> dict[str, float]:
        task = network.task
        evidence = self._evidence(stage, network, frozen=frozen)
        reading = self._reading(stage, evidence, task)
        # At the best temperature, so that a network is not judged by its confidence.
        logits = reading.fitted().logits(reading.logits, reading.prior_logits)
        weights = self.part.weights if self.part.loss_weights is None else self.part.loss_weights
        nll = mean_nll(logits, self.part.targets, task, weights)
        right = task.correct(logits, self.part.targets)
        return {"score": -nll, "nll": nll, "accuracy": float(right.float().mean())}

    def _reading(self, stage: Stage, evidence: Evidence, task: Task) -> "Reading":
        stacked = stage == "diffusion" and self.options.recipe.stacked
        prior = evidence.prior_logits.double() if stacked else None
        return Reading(
            evidence.logits(stage, task), prior, self.part.targets, self.part.weights, task
        )

    def _truth(self, network: DiffMICNetwork) -> tuple[Tensor, Tensor, Task]:
        return self.part.targets, self.part.weights, network.task

    def _evidence(
        self,
        stage: Stage,
        network: DiffMICNetwork,
        sampling: SamplingOptions | None = None,
        *,
        frozen: bool = True,
        embeddings: bool = False,
    ) -> Evidence:
        options = self.options
        usual = options.sampling
        sampling = sampling or SamplingOptions(usual.num_steps, usual.n_draws)
        network.eval()
        engine = Engine(network)
        conditions = self._encoded(engine, sampling.n_views, frozen=frozen)
        rows = max(1, options.batch_size // sampling.n_views) * sampling.n_views
        return evidence_of(
            engine,
            (conditions[start : start + rows] for start in range(0, len(conditions), rows)),
            stage,
            sampling,
            seed=options.seed,
            drawing_ratio=self.drawing_ratio,
            embeddings=embeddings,
        )

    def _encoded(self, engine: Engine, n_views: int, *, frozen: bool) -> Conditions:
        """Conditions of the validation part, kept while the encoders are frozen."""
        if frozen and self._conditions is not None:
            return self._conditions
        encoded = encode_images(
            engine,
            self.options.prepared(self.part),
            batch_size=self.options.batch_size,
            num_workers=self.options.num_workers,
            n_views=n_views,
            augment=self.options.augment,
            seed=self.options.seed,
        )
        conditions = Conditions.cat([c.without_pictures() for c, _ in encoded])
        self._conditions = conditions if frozen else None
        return conditions


@dataclass(frozen=True)
class Reading:
    """Logits of one stage with their targets, on which a calibration is fitted.

    Attributes
    ----------
    logits : Tensor of shape (n, C)
        Uncalibrated logits of the stage.
    prior_logits : Tensor of shape (n, C) or None
        Logits of the prior that the calibration adds with a fitted weight; None: none.
    targets : Tensor of shape (n, C)
        One-hot or indicator targets; NaN: a label that is not known.
    weights : Tensor of shape (n,)
        Sample weights.
    task : Task
    former : Tensor of shape (C,) or None
        Class shares for which the logits hold, where those of these images may be others: offsets
        of the classes are then fitted, too. NaN: not known. None: they are the same.
    """

    logits: Tensor
    prior_logits: Tensor | None
    targets: Tensor
    weights: Tensor
    task: Task
    former: Tensor | None = None

    def __getitem__(self, index: Tensor) -> "Reading":
        prior = None if self.prior_logits is None else self.prior_logits[index]
        return replace(
            self,
            logits=self.logits[index],
            prior_logits=prior,
            targets=self.targets[index],
            weights=self.weights[index],
        )

    def fitted(self, own: Any = None) -> AnyCalibration:
        """Calibration fitted on these images; that of one's own if there is one."""
        if own is not None:
            return OwnCalibration.fit(
                own,
                self.logits,
                self.targets,
                self.task,
                prior_logits=self.prior_logits,
                weights=self.weights,
            )
        return Calibration.fit(
            self.logits,
            self.targets,
            self.task,
            prior_logits=self.prior_logits,
            weights=self.weights,
            offsets=None if self.former is None else self._expected_offsets(self.former),
        )

    def _expected_offsets(self, former: Tensor) -> Tensor:
        """Offsets (C,) of the change of shares alone; 0 for classes of which nothing is known."""
        new = class_shares(self.targets, self.weights, self.task)
        change = log_ratio(new.numpy(), former.numpy(), exclusive=self.task.exclusive)
        counts = learnt(self.targets).numpy() & np.isfinite(change)
        return torch.from_numpy(np.where(counts, change, 0.0))

    def proba(self, calibration: AnyCalibration) -> NDArray[np.float64]:
        """Probabilities (n, C) by a calibration."""
        logits = calibration.logits(self.logits, self.prior_logits)
        found: NDArray[np.float64] = self.task.probabilities(logits).numpy()
        return found

    def confidence(
        self, calibration: AnyCalibration, thresholds: NDArray[np.float64] | None
    ) -> NDArray[np.float64]:
        """Quantiles of the confidence of decisions, (101, 1) or (101, L)."""
        return confidence_quantiles(self.proba(calibration), self.task, thresholds)

    def best_thresholds(self, calibration: AnyCalibration) -> NDArray[np.float64]:
        """Thresholds of the largest expected F1, (L,); of grades, of kappa, (C − 1,)."""
        proba = self.proba(calibration)
        weights = self.weights.double().numpy()
        if self.task.exclusive:
            return kappa_cuts(proba, weights)
        return chosen_thresholds(self.targets.numpy(), proba, weights=weights).values


def cross_fitted(
    reading: Reading, seed: int, own: Any = None
) -> tuple[dict[str, float], NDArray[np.float64]]:
    """Cross-fitted metrics: no image is evaluated with a calibration that was fitted on it.

    Calibration and thresholds of each fold are fitted on the other folds; the metrics are computed
    over all folds together.

    Returns
    -------
    dict of str to float
        Metrics; empty for a single image.
    ndarray of shape (n,)
        Negative log-likelihood of each image.
    """
    n, task = len(reading.targets), reading.task
    folds = balanced_folds(reading.targets, min(N_FOLDS, n), seed)
    logits = torch.zeros_like(reading.logits)
    usual = task.usual_thresholds(reading.targets.shape[1])
    thresholds = np.tile(usual, (n, 1)) if task.has_thresholds else None
    for fold in range(int(folds.max()) + 1) if n > 1 else ():
        inside, others = folds == fold, reading[folds != fold]
        calibration = others.fitted(own)
        part = reading[inside]
        logits[inside] = calibration.logits(part.logits, part.prior_logits)
        if thresholds is not None:
            thresholds[inside.numpy()] = others.best_thresholds(calibration)
    if n < 2:
        return {}, np.zeros(n)
    # Scaled so that their mean is the mean over known labels.
    losses = task.loss(logits, reading.targets.double())
    errors = (losses / known_shares(reading.targets).mean()).numpy()
    numbers = np.arange(reading.targets.shape[1])
    metrics = task.metrics(
        task.labels(reading.targets.numpy(), numbers),
        task.probabilities(logits).numpy(),
        numbers,
        thresholds,
    )
    return metrics, errors


def balanced_folds(targets: Tensor, n_folds: int, seed: int) -> Tensor:
    """Fold index of each image, (n,): shuffled, with each class spread over the folds."""
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed % 2**63))
    by_class = order[targets[order].nan_to_num().argmax(dim=1).argsort(stable=True)]
    folds = torch.empty(len(targets), dtype=torch.long)
    folds[by_class] = torch.arange(len(targets)) % n_folds
    return folds
