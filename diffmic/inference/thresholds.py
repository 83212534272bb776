"""Multi-label: from which probability a label counts as present."""

import numpy as np
from numpy.typing import NDArray

PRIOR_COUNT = 10  # as many positives make held-out labels count as much as probabilities


def best_thresholds(
    targets: NDArray[np.float32],
    proba: NDArray[np.float64],
    *,
    prior_count: float = PRIOR_COUNT,
) -> NDArray[np.float64]:
    """The threshold of each label with the largest F1 to be expected, shape (L,).

    A few positives say little of where the threshold lies, while calibrated probabilities say what
    F1 to expect of any (Lipton et al., ECML 2014). So each image counts as positive with
    λ y + (1 − λ) p, where λ = n / (n + ``prior_count``) for a label with n positives.

    The threshold lies midway between the least probability that it lets pass here and the greatest
    that it does not (or 0), so that new images have room on both sides. A label that never occurs
    keeps 0.5.

    Parameters
    ----------
    targets, proba : ndarray of shape (n, L)
        Of held-out images; probabilities are calibrated.
    prior_count : float
        0: the labels alone count.
    """
    thresholds = np.full(targets.shape[1], 0.5)
    for label in np.flatnonzero(targets.any(axis=0)):
        order = np.argsort(-proba[:, label], kind="stable")
        p, y = proba[order, label], targets[order, label].astype(np.float64)
        trust = y.sum() / (y.sum() + prior_count)
        positive = trust * y + (1 - trust) * p
        f1 = 2 * positive.cumsum() / (positive.sum() + np.arange(1, len(p) + 1))
        f1[:-1][p[1:] == p[:-1]] = -1  # equals pass together
        below = np.append(p[1:], 0.0)
        best = f1.argmax()
        midway = (p[best] + below[best]) / 2
        thresholds[label] = midway if midway > below[best] else p[best]
    return thresholds
