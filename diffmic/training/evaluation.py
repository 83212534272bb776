"""Validation: metrics after each epoch, then calibration and cross-fitted metrics."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data import LabelledImages
from ..inference import (
    Alone,
    AnyCalibration,
    Doubt,
    EmbeddingReference,
    Engine,
    Evidence,
    SamplingOptions,
    Stage,
    encode_images,
    evidence_of,
)
from ..inference.calibration import mean_nll
from ..model import Conditions, DiffMICNetwork
from ..tasks import Task
from .options import TrainingOptions
from .readings import Reading, cross_fitted


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
        return self.options.processes.from_main(lambda: self._verdict(network, stages, evidence))

    def _verdict(
        self, network: DiffMICNetwork, stages: Sequence[Stage], evidence: Evidence
    ) -> Verdict:
        task, own = network.task, self.options.recipe.calibration
        readings = {stage: self._reading(stage, evidence, task) for stage in stages}
        if "diffusion" in stages:
            readings["diffusion_alone"] = replace(readings["diffusion"], prior_logits=None)
        assert evidence.embeddings is not None  # asked for above
        found, sure, errors = Verdict(), {}, {}
        for stage, reading in readings.items():
            calibration = found.calibrations[stage] = reading.fitted(own)
            if task.has_thresholds:
                found.thresholds[stage] = reading.best_thresholds(calibration)
            sure[stage] = reading.confidence(calibration, found.thresholds.get(stage))
            scored = cross_fitted(reading, self.options.seed, own)
            found.scores[stage], errors[stage] = scored
        found.doubt = Doubt(sure, EmbeddingReference.fit(evidence.embeddings.numpy()))
        if "diffusion" in stages:
            of_alone = found.thresholds.pop("diffusion_alone", None)
            found.alone = Alone(found.calibrations.pop("diffusion_alone"), of_alone)
        if "diffusion" in stages and len(self.part) > 1:
            difference = errors["prior"] - errors["diffusion"]
            spread = float(difference.std(ddof=1)) / len(difference) ** 0.5
            found.gain = Gain(float(difference.mean()), spread)
        return found

    def _metrics(self, stage: Stage, network: DiffMICNetwork, *, frozen: bool) -> dict[str, float]:
        task = network.task
        evidence = self._evidence(stage, network, frozen=frozen)
        return self.options.processes.from_main(lambda: self._measured(stage, task, evidence))

    def _measured(self, stage: Stage, task: Task, evidence: Evidence) -> dict[str, float]:
        reading = self._reading(stage, evidence, task)
        # At the best temperature, so that a network is not judged by its confidence.
        logits = reading.fitted().logits(reading.logits, reading.prior_logits)
        weights = self.part.weights if self.part.loss_weights is None else self.part.loss_weights
        nll = mean_nll(logits, self.part.targets, task, weights)
        right = task.correct(logits, self.part.targets)
        return {"score": -nll, "nll": nll, "accuracy": float(right.float().mean())}

    def _reading(self, stage: Stage, evidence: Evidence, task: Task) -> Reading:
        stacked = stage == "diffusion" and self.options.recipe.stacked
        prior = evidence.prior_logits.double() if stacked else None
        logits = evidence.logits(stage, task)
        return Reading(logits, prior, self.part.targets, self.part.weights, task)

    def _evidence(
        self,
        stage: Stage,
        network: DiffMICNetwork,
        sampling: SamplingOptions | None = None,
        *,
        frozen: bool = True,
        embeddings: bool = False,
    ) -> Evidence:
        """Evidence of all images, of which each process computes that of its share."""
        options, processes, n = self.options, self.options.processes, len(self.part)
        usual = options.sampling
        sampling = sampling or SamplingOptions(usual.num_steps, usual.n_draws)

        def of_share() -> Evidence | None:
            if not processes.share(n):
                return None
            network.eval()
            engine = Engine(network)
            conditions = self._encoded(engine, sampling.n_views, frozen=frozen)
            rows = max(1, options.own_batch_size // sampling.n_views) * sampling.n_views
            return evidence_of(
                engine,
                (conditions[start : start + rows] for start in range(0, len(conditions), rows)),
                stage,
                sampling,
                seed=options.seed,
                drawing_ratio=self.drawing_ratio,
                embeddings=embeddings,
            )

        found = processes.together(of_share)
        order = [i for rank in range(processes.count) for i in range(rank, n, processes.count)]
        whole = Evidence.cat([evidence for evidence in found if evidence is not None])
        return whole if processes.count == 1 else whole[torch.tensor(order).argsort()]

    def _encoded(self, engine: Engine, n_views: int, *, frozen: bool) -> Conditions:
        """Conditions of the validation part, kept while the encoders are frozen."""
        if frozen and self._conditions is not None:
            return self._conditions
        encoded = encode_images(
            engine,
            self.options.prepared(self.part),
            batch_size=self.options.own_batch_size,
            num_workers=self.options.num_workers,
            n_views=n_views,
            augment=self.options.augment,
            seed=self.options.seed,
            only=self.options.processes.share(len(self.part)),
        )
        conditions = Conditions.cat([c.without_pictures() for c, _ in encoded])
        self._conditions = conditions if frozen else None
        return conditions
