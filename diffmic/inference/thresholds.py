"""Multi-label: from which probability a label counts as present."""

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve


def best_thresholds(
    targets: NDArray[np.float32], proba: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The threshold of each label with the largest F1 on held-out images, shape (L,).

    It lies midway between the least probability that it lets pass there and the greatest that it
    does not (or 0), so that new images have room on both sides. A label that never occurs keeps
    0.5.
    """
    thresholds = np.full(targets.shape[1], 0.5)
    for label in range(targets.shape[1]):
        if targets[:, label].any():
            precision, recall, candidates = precision_recall_curve(
                targets[:, label], proba[:, label]
            )
            f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
            passing = candidates[f1[:-1].argmax()]
            below = max(proba[proba[:, label] < passing, label], default=0.0)
            midway = (passing + below) / 2
            thresholds[label] = midway if midway > below else passing
    return thresholds
