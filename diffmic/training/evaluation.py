"""The validation part: measures after each epoch, and the calibration at the end."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..inference.calibration import Calibration, Stage, negative_log_likelihood
from ..inference.measures import measure
from ..inference.predict import encode_images, over_views, sample_scores
from ..inference.thresholds import best_thresholds
from ..model import Conditions, DiffMICNetwork
from .options import Part, TrainingOptions


class Verdict(NamedTuple):
    """What the validation part says of a stage; thresholds for multi-label alone."""

    calibration: Calibration
    thresholds: NDArray[np.float64] | None
    measures: dict[str, float]


class Evaluation:
    """Scores of the validation part under a network.

    While a stage learns it is measured on the images as they are; in the end, and for the
    calibration, on as many views as predictions are made of. Conditions are encoded once for as
    long as the encoders are frozen: for the whole of stage two where it learns on cached ones.

    Parameters
    ----------
    part : Part
        The validation part.
    options : TrainingOptions
    conditions : Conditions or None
        Of the validation part, where they are at hand and the encoders frozen.
    """

    def __init__(
        self, part: Part, options: TrainingOptions, conditions: Conditions | None = None
    ) -> None:
        self.part = part
        self.options = options
        self._conditions = conditions

    def prior(self, network: DiffMICNetwork) -> dict[str, float]:
        """Measures of the fused prior while it learns."""
        return self._measures("prior", network, frozen=False)

    def diffusion(self, network: DiffMICNetwork) -> dict[str, float]:
        """Measures of the diffusion stage while it learns."""
        own_encoders = network.image_encoder is not None or network.region_encoder is not None
        return self._measures("diffusion", network, frozen=not own_encoders)

    def verdicts(self, network: DiffMICNetwork, stages: Sequence[Stage]) -> dict[Stage, Verdict]:
        """Calibration, thresholds and all measures of the stages, once training is over."""
        self._conditions = None
        return {stage: self._verdict(stage, network) for stage in stages}

    def _verdict(self, stage: Stage, network: DiffMICNetwork) -> Verdict:
        n_views, targets = self.options.n_views, self.part.targets
        scores = self._scores(stage, network, frozen=True, n_views=n_views)
        calibration = self._fitted(stage, scores, network)
        proba = calibration(*scores).numpy()
        if not network.multilabel:
            return Verdict(calibration, None, measure(targets.argmax(dim=1).numpy(), proba))
        thresholds = best_thresholds(targets.numpy(), proba)
        return Verdict(calibration, thresholds, measure(targets, proba, thresholds=thresholds))

    def _measures(self, stage: Stage, network: DiffMICNetwork, *, frozen: bool) -> dict[str, float]:
        scores = self._scores(stage, network, frozen=frozen)
        calibration = self._fitted(stage, scores, network)
        targets = self.part.targets
        # With the temperature that suits it best a network is judged by what it knows, and not
        # by how loudly it says so.
        logits = calibration.logits(*(part.double() for part in scores))
        nll = negative_log_likelihood(logits, targets, network.multilabel, self.part.weights)
        if network.multilabel:
            right = (logits > 0) == (targets > 0.5)
        else:
            right = logits.argmax(dim=1) == targets.argmax(dim=1)
        return {"score": -nll, "nll": nll, "accuracy": float(right.float().mean())}

    def _fitted(
        self, stage: Stage, scores: tuple[Tensor, ...], network: DiffMICNetwork
    ) -> Calibration:
        return Calibration.fit(
            stage,
            scores[0],
            self.part.targets,
            multilabel=network.multilabel,
            prior_logits=scores[1] if self._stacked(stage) else None,
            weights=self.part.weights,
        )

    def _stacked(self, stage: Stage) -> bool:
        return stage == "diffusion" and self.options.recipe.stacked

    def _scores(
        self, stage: Stage, network: DiffMICNetwork, *, frozen: bool, n_views: int = 1
    ) -> tuple[Tensor, ...]:
        """Scores of a stage and, for the diffusion, the prior's logits beside them."""
        options = self.options
        conditions = self._encoded(network, frozen=frozen, n_views=n_views)
        prior_logits = over_views(conditions.fused_logits.float(), n_views).cpu()
        if stage == "prior":
            return (prior_logits,)
        scores = [
            sample_scores(
                network,
                conditions[start : start + options.batch_size],
                num_steps=options.num_steps,
                n_samples=options.n_samples,
                seed=options.seed,
            ).mean(dim=1)
            for start in range(0, len(conditions), options.batch_size)
        ]
        return over_views(torch.cat(scores), n_views).cpu(), prior_logits

    def _encoded(self, network: DiffMICNetwork, *, frozen: bool, n_views: int) -> Conditions:
        """Conditions of the validation part, kept while the encoders are frozen."""
        if frozen and self._conditions is not None:
            return self._conditions
        encoded = encode_images(
            network,
            self.part.prepared(self.options),
            batch_size=self.options.batch_size,
            num_workers=self.options.num_workers,
            device=self.options.device,
            n_views=n_views,
            augment=self.options.augment,
            seed=self.options.seed,
        )
        conditions = Conditions.cat([c.without_pictures() for c, _ in encoded])
        self._conditions = conditions if frozen else None
        return conditions
