"""Logits of held-out images beside the truth: their calibration, and cross-fitted metrics."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..inference import (
    AnyCalibration,
    Calibration,
    OwnCalibration,
    chosen_thresholds,
    confidence_quantiles,
)
from ..inference.decisions import kappa_cuts
from ..inference.prevalence import log_ratio
from ..tasks import Task, class_shares, known_shares, learnt

N_FOLDS = 5


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
    if n < 2:
        return {}, np.zeros(n)
    folds = balanced_folds(reading.targets, min(N_FOLDS, n), seed)
    logits = torch.zeros_like(reading.logits)
    usual = task.usual_thresholds(reading.targets.shape[1])
    thresholds = np.tile(usual, (n, 1)) if task.has_thresholds else None
    for inside, others, calibration in without_each(reading, folds, own):
        part = reading[inside]
        logits[inside] = calibration.logits(part.logits, part.prior_logits)
        if thresholds is not None:
            thresholds[inside.numpy()] = others.best_thresholds(calibration)
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


def without_each(
    reading: Reading, folds: Tensor, own: Any
) -> Iterator[tuple[Tensor, Reading, AnyCalibration]]:
    """Of each fold: which images are in it, the others, and the calibration fitted on those."""
    for fold in range(int(folds.max()) + 1):
        inside = folds == fold
        others = reading[~inside]
        yield inside, others, others.fitted(own)


def balanced_folds(targets: Tensor, n_folds: int, seed: int) -> Tensor:
    """Fold index of each image, (n,): shuffled, with each class spread over the folds."""
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed % 2**63))
    by_class = order[targets[order].nan_to_num().argmax(dim=1).argsort(stable=True)]
    folds = torch.empty(len(targets), dtype=torch.long)
    folds[by_class] = torch.arange(len(targets)) % n_folds
    return folds
