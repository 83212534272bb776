"""Uncertainty of predictions: entropy, disagreement of draws, and distance of embeddings."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..conventions import is_number
from ..errors import InputError
from ..random import imported
from ..tasks import Task
from .evidence import SCORE_FLOOR, Evidence, of_training_population
from .fitted import FittedModel
from .tables import Brief, data_frame

Floats = NDArray[np.float64]
TAIL = 0.025  # of the draws on either side of an interval
MEASURES = ("entropy", "mutual_information", "interval_width", "p_value", "distance", "farther")


@dataclass(frozen=True, eq=False, repr=False)
class Uncertainty(Brief):
    """Uncertainty of each prediction, returned by :meth:`DiffMICClassifier.predict_uncertainty`.

    Shapes are (n,), or (n, L) for multi-label, where each label has its own; distances are (n,).

    Attributes
    ----------
    proba : ndarray of shape (n, C)
        Calibrated probabilities, those of ``predict_proba`` with as many draws.
    entropy : ndarray
        Entropy of the probabilities, in nats.
    mutual_information : ndarray
        Part of the entropy that is disagreement between draws: the entropy of the mean of their
        probabilities less the mean of their entropies. It is at most ``entropy``.
    interval_width : ndarray
        Width of the central interval that holds 95 % of the draws' probabilities of the most
        probable class; for multi-label, of each label.
    p_value : ndarray
        Paired t-test over the draws between the probabilities of the two most probable classes
        (Han et al., 2022); for multi-label, between a label's probability and its threshold. It
        tells whether other draws may decide otherwise, not whether the decision is right.
    distance : ndarray of shape (n,) or None
        Distance to the held-out images in the embeddings, see :class:`EmbeddingReference`; None:
        the model has no reference.
    farther : ndarray of shape (n,) or None
        Share of the held-out images that are farther away: near 0, the image is unlike them.
    classes : ndarray of shape (C,)
        Labels of the columns.
    exclusive : bool
        Whether the classes exclude each other; not so in multi-label tasks.
    """

    proba: Floats
    entropy: Floats
    mutual_information: Floats
    interval_width: Floats
    p_value: Floats
    distance: Floats | None
    farther: Floats | None
    classes: NDArray[Any]
    exclusive: bool = True

    def __len__(self) -> int:
        return len(self.proba)

    def most_uncertain(self, share: float, by: str = "entropy") -> NDArray[np.bool_]:
        """Mark the most uncertain share of these images, (n,), or (n, L) for multi-label.

        Parameters
        ----------
        share : float
            Share of the images, 0 to 1; the number of images is rounded.
        by : str
            Measure: ``"entropy"``, ``"mutual_information"``, ``"interval_width"``, ``"p_value"``,
            ``"distance"``, or ``"farther"``.

        Raises
        ------
        InputError
            ``share`` is no number from 0 to 1, or there is no such measure.
        """
        if not is_number(share) or not 0 <= float(share) <= 1:
            raise InputError(f"share is {share!r}; give a number from 0 to 1.")
        values = getattr(self, by, None) if by in MEASURES else None
        if values is None:
            known = [name for name in MEASURES if getattr(self, name) is not None]
            raise InputError(f"by is {by!r}; give one of {known}.")
        order = np.argsort(values if by == "farther" else -values, axis=0, kind="stable")
        marked = np.zeros(values.shape, bool)
        count = round(share * len(values))
        np.put_along_axis(marked, order[:count], True, axis=0)
        return marked

    def to_frame(self) -> Any:
        """One row per image, as a pandas data frame; multi-label: a column for each label.

        Raises
        ------
        ImportError
            pandas is not installed.
        """
        columns: dict[str, Any] = {}
        if self.exclusive:
            columns["predicted"] = self.classes[self.proba.argmax(axis=1)]
            columns["proba"] = self.proba.max(axis=1)
        for name in MEASURES if self.exclusive else ("proba", *MEASURES):
            values = getattr(self, name)
            if values is None:
                continue
            if values.ndim == 1:
                columns[name] = values
            else:
                labels = self.classes.tolist()
                columns |= {f"{name}_{labels[c]}": values[:, c] for c in range(len(labels))}
        return data_frame(columns)


def uncertainty_of(model: FittedModel, evidence: Evidence) -> Uncertainty:
    """Uncertainty from the evidence of the diffusion with at least two draws."""
    task, proba = model.task, model.probabilities(evidence, "diffusion")
    draws = draw_probabilities(model, evidence)
    entropy = _entropy(proba, task)
    mean = draws.mean(axis=1)
    disagreement = _entropy(mean, task) - _entropy(draws, task).mean(axis=1)
    low, high = np.quantile(draws, [TAIL, 1 - TAIL], axis=1)  # each (n, C)
    rows = np.arange(len(proba))
    if task.exclusive:
        first, second = np.argsort(-proba, axis=1, kind="stable")[:, :2].T
        width = (high - low)[rows, first]
        gaps = draws[rows, :, first] - draws[rows, :, second]
    else:
        thresholds = model.thresholds_of("diffusion")
        width = high - low
        gaps = (draws - (0.5 if thresholds is None else thresholds)).swapaxes(1, 2)
    reference = None if model.doubt is None else model.doubt.reference
    distance = farther = None
    if reference is not None and evidence.embeddings is not None:
        distance = reference.distances(evidence.embeddings.numpy())
        farther = reference.shares_farther(distance)
    return Uncertainty(
        proba=proba,
        entropy=entropy,
        mutual_information=np.clip(disagreement, 0, entropy),
        interval_width=width,
        p_value=_paired_test(gaps),
        distance=distance,
        farther=farther,
        classes=model.classes,
        exclusive=task.exclusive,
    )


def draw_probabilities(model: FittedModel, evidence: Evidence) -> Floats:
    """Calibrated probabilities of each draw of the diffusion, (n, S, C)."""
    assert evidence.draws is not None  # of the diffusion
    n, n_draws, n_classes = evidence.draws.shape
    scores = evidence.draws.double()
    if evidence.drawing_ratio is not None:
        scores = of_training_population(scores, evidence.drawing_ratio)
    logits = model.task.logits(scores.clamp(SCORE_FLOOR, 1 - SCORE_FLOOR))
    prior = evidence.prior_logits.double().repeat_interleave(n_draws, dim=0)
    calibrated = model.calibration("diffusion").logits(logits.reshape(-1, n_classes), prior)
    proba: Floats = model.task.probabilities(calibrated).numpy()
    return proba.reshape(n, n_draws, n_classes)


def _entropy(p: Floats, task: Task) -> Floats:
    """Entropy in nats, (..., C) → (...), or of each label, (..., L) → (..., L)."""
    entr = imported("scipy.special").entr
    found: Floats = entr(p).sum(axis=-1) if task.exclusive else entr(p) + entr(1 - p)
    return found


def _paired_test(gaps: Floats) -> Floats:
    """Two-sided p-values of paired t-tests over the last axis, t = mean √S / deviation."""
    n_draws, mean = gaps.shape[-1], gaps.mean(axis=-1)
    error = gaps.std(axis=-1, ddof=1) / n_draws**0.5
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(mean == 0, 0.0, np.abs(mean) / error)  # draws that are all alike decide
    p: Floats = 2 * imported("scipy.stats").t.sf(t, n_draws - 1)
    return p
