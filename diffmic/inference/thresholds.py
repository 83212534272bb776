"""Decision thresholds on multi-label probabilities."""

import numpy as np
from numpy.typing import NDArray

PRIOR_COUNT = 10  # with this many positives, labels and probabilities have equal weight


def best_thresholds(
    targets: NDArray[np.float32],
    proba: NDArray[np.float64],
    *,
    prior_count: float = PRIOR_COUNT,
) -> NDArray[np.float64]:
    """Thresholds that maximise the expected F1 of each label, shape (L,).

    A few positives determine a threshold poorly, while calibrated probabilities give the expected
    F1 of any threshold (Lipton et al., ECML 2014). Each image therefore counts as positive with
    weight λ y + (1 − λ) p, where λ = n / (n + ``prior_count``) for a label with n positives.

    The threshold is midway between the smallest probability above it and the largest one below it
    (or 0), which leaves a margin on both sides for new images. A label that never occurs gets 0.5.

    Parameters
    ----------
    targets, proba : ndarray of shape (n, L)
        Indicator targets and calibrated probabilities of held-out images. Images whose label is
        unknown (NaN) are left out for this label.
    prior_count : float
        Number of positives at which λ is ½; 0: only the labels are used.
    """
    thresholds = np.full(targets.shape[1], 0.5)
    for label in np.flatnonzero((targets > 0).any(axis=0)):
        known = np.flatnonzero(~np.isnan(targets[:, label]))
        order = known[np.argsort(-proba[known, label], kind="stable")]
        p, y = proba[order, label], targets[order, label].astype(np.float64)
        trust = y.sum() / (y.sum() + prior_count)
        positive = trust * y + (1 - trust) * p
        f1 = 2 * positive.cumsum() / (positive.sum() + np.arange(1, len(p) + 1))
        f1[:-1][p[1:] == p[:-1]] = -1  # equal probabilities cannot be separated
        below = np.append(p[1:], 0.0)
        best = f1.argmax()
        midway = (p[best] + below[best]) / 2
        thresholds[label] = midway if midway > below[best] else p[best]
    return thresholds
