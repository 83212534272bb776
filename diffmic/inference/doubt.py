"""What a fitted model keeps of held-out images, by which it knows its doubt."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..tasks import Task
from .evidence import SamplingOptions, Stage
from .reference import LEVELS, EmbeddingReference

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ConformalScores:
    """Probabilities of what was true, on images that calibration has not seen.

    Nothing tells which image or class a probability belongs to.

    Attributes
    ----------
    true_proba : dict of str to ndarray of shape (n, K)
        For each stage, the probabilities of the true labels of each image, sorted; K is 1 for
        exclusive classes. NaN: the image has fewer true labels.
    sampling : SamplingOptions
        Sampling options for which they hold.
    """

    true_proba: Mapping[Stage, Floats]
    sampling: SamplingOptions

    def __len__(self) -> int:
        return len(next(iter(self.true_proba.values())))


@dataclass(frozen=True, eq=False)
class Doubt:
    """What is kept of held-out images: how sure predictions were, and where embeddings lie.

    Attributes
    ----------
    confidence : dict of str to ndarray of shape (101, 1) or (101, L)
        For each stage, quantiles of the confidence of predictions, see :func:`confidences`.
    reference : EmbeddingReference or None
        Embeddings of the validation part; None: it had fewer than 10 images.
    conformal : ConformalScores or None
        What ``conformalize`` has learnt; None: it has not been called.
    """

    confidence: Mapping[Stage, Floats] = field(default_factory=dict)
    reference: EmbeddingReference | None = None
    conformal: ConformalScores | None = None


def confidences(proba: Floats, task: Task, thresholds: Floats | None) -> Floats:
    """Confidence of each decision, (n, 1), or (n, L) for multi-label.

    For exclusive classes it is the largest probability, which with calibrated probabilities is the
    chance that the decision is right (Chow, 1970). For multi-label it is the distance of a
    probability from its threshold, as logits: at the threshold the decision turns over.
    """
    if task.exclusive:
        largest: Floats = proba.max(axis=1, keepdims=True)
        return largest
    from_threshold: Floats = np.abs(_logit(proba) - _logit(_thresholds(thresholds)))
    return from_threshold


def confidence_quantiles(proba: Floats, task: Task, thresholds: Floats | None) -> Floats:
    """Quantiles of the confidence over images, (101, 1) or (101, L)."""
    found: Floats = np.quantile(confidences(proba, task, thresholds), LEVELS, axis=0)
    return found


def abstained(
    proba: Floats, task: Task, thresholds: Floats | None, quantiles: Floats, share: float
) -> NDArray[np.bool_]:
    """Which decisions are left open, (n, 1) or (n, L), for a share of the held-out images."""
    limits = [np.interp(share, LEVELS, column) for column in quantiles.T]
    open_: NDArray[np.bool_] = confidences(proba, task, thresholds) < np.array(limits)
    return open_ if share > 0 else np.zeros_like(open_)


def _thresholds(thresholds: Floats | None) -> Floats:
    return np.array(0.5) if thresholds is None else thresholds


def _logit(p: Floats) -> Floats:
    p = np.clip(p, 1e-9, 1 - 1e-9)
    logits: Floats = np.log(p) - np.log1p(-p)
    return logits
