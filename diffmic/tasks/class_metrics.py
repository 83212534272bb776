"""Metrics of single classes: each class against all others."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..random import imported

CLASS_METRICS = ("sensitivity", "specificity", "precision", "f1", "auc")


def class_metrics(
    truth: NDArray[Any], proba: NDArray[np.float64], predicted: NDArray[Any]
) -> dict[str, NDArray[np.float64]]:
    """Metrics of each class against all others.

    Parameters
    ----------
    truth : ndarray of shape (n, C)
        One-hot or indicator rows; NaN: a label that is not known, which is left out.
    proba : ndarray of shape (n, C)
        Probabilities.
    predicted : ndarray of shape (n, C)
        Decisions, as one-hot or indicator rows.

    Returns
    -------
    dict of str to ndarray of shape (C,)
        ``sensitivity`` (recall), ``specificity``, ``precision`` (positive predictive value), ``f1``
        and ``auc``. NaN where one is undefined: of a class that does not occur, or of which every
        image is; the precision of a class that is never predicted.
    """
    known = ~np.isnan(truth.astype(float))
    present, decided = (truth == 1) & known, (predicted == 1) & known
    n_present, n_decided = present.sum(axis=0), decided.sum(axis=0)
    n_absent, hits = known.sum(axis=0) - n_present, (present & decided).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "sensitivity": hits / n_present,
            "specificity": 1 - (n_decided - hits) / n_absent,
            "precision": hits / n_decided,
            "f1": np.where(n_present > 0, 2 * hits / (n_present + n_decided), np.nan),
            "auc": _areas(present, known, proba),
        }


def _areas(
    present: NDArray[np.bool_], known: NDArray[np.bool_], proba: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Areas under the ROC curve (C,), from the ranks of the positives (Mann and Whitney, 1947)."""
    # Unknown labels get ranks above all others, which change no rank below them.
    ranks = imported("scipy.stats").rankdata(np.where(known, proba, np.inf), axis=0)
    n = present.sum(axis=0)
    sums = np.where(present, ranks, 0.0).sum(axis=0)
    areas: NDArray[np.float64] = (sums - n * (n + 1) / 2) / (n * (known.sum(axis=0) - n))
    return areas
