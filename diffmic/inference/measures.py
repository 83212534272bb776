"""Measures of probabilities against the truth, from scikit-learn; calibration error is ours."""

from typing import Any

import numpy as np
import sklearn  # its metrics are imported when the first is used
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError


def measure(
    y_true: ArrayLike,
    proba: ArrayLike,
    *,
    classes: ArrayLike | None = None,
    ordered: bool = False,
    thresholds: ArrayLike = 0.5,
) -> dict[str, float]:
    """The usual measures of a classifier's probabilities.

    Parameters
    ----------
    y_true : array-like of shape (n,), (n, 1) or (n, L)
        Labels, or an indicator matrix for multi-label.
    proba : array-like of shape (n, C)
        Probabilities, columns in the order of ``classes``.
    classes : array-like of shape (C,) or None
        Labels of the columns; None: 0 to C − 1.
    ordered : bool
        Whether classes are grades, so that quadratic kappa means something.
    thresholds : float or array-like of shape (L,)
        Multi-label: from which probability a label counts as present.

    Returns
    -------
    dict of str to float
        ``accuracy`` (multi-label: of single labels), ``balanced_accuracy``, ``macro_f1``, ``auc``
        (macro, one against the rest), ``kappa`` (quadratic, if ordered), ``nll``, ``brier``,
        ``ece`` (15 bins of equal width). Classes that do not occur, or occur alone, are left out
        of the means that need them.

    Raises
    ------
    InputError
        A label that is none of the classes.
    """
    truth, p = np.asarray(y_true), np.asarray(proba, dtype=np.float64)
    if truth.ndim == 2 and truth.shape[1] == 1:
        truth = truth[:, 0]
    if truth.ndim == 2:
        return _multilabel(truth, p, thresholds)
    labels = np.arange(p.shape[1]) if classes is None else np.asarray(classes)
    unknown = np.setdiff1d(truth, labels)
    if len(unknown):
        raise InputError(
            f"y_true holds {unknown.tolist()[:10]}; the classes are {labels.tolist()}."
        )
    onehot = (truth[:, None] == labels[None]).astype(float)
    predicted = labels[p.argmax(axis=1)]
    measures = {
        "accuracy": float(sklearn.metrics.accuracy_score(truth, predicted)),
        "balanced_accuracy": _balanced_accuracy(truth, predicted),
        "macro_f1": float(
            sklearn.metrics.f1_score(
                truth, predicted, average="macro", labels=np.unique(truth), zero_division=0
            )
        ),
        "auc": _macro_auc(onehot, p),
    }
    if ordered:
        measures["kappa"] = _quadratic_kappa(truth, predicted, labels)
    measures["nll"] = _log_loss(onehot, p)
    measures["brier"] = float(((p - onehot) ** 2).sum(axis=1).mean())
    measures["ece"] = expected_calibration_error(p.max(axis=1), predicted == truth)
    return measures


def _multilabel(
    truth: NDArray[Any], p: NDArray[np.float64], thresholds: ArrayLike
) -> dict[str, float]:
    predicted = (p >= np.asarray(thresholds)).astype(int)
    present = np.flatnonzero(truth.any(axis=0))
    balanced = [
        _balanced_accuracy(truth[:, c], predicted[:, c])
        for c in range(truth.shape[1])
        if 0 < truth[:, c].sum() < len(truth)
    ]
    clipped = p.clip(1e-15, 1 - 1e-15)
    return {
        "accuracy": float((predicted == truth).mean()),
        "balanced_accuracy": float(np.mean(balanced)) if balanced else float("nan"),
        "macro_f1": float(
            sklearn.metrics.f1_score(
                truth, predicted, average="macro", labels=present, zero_division=0
            )
        )
        if len(present)
        else float("nan"),
        "auc": _macro_auc(truth, p),
        "nll": float(-np.where(truth == 1, np.log(clipped), np.log1p(-clipped)).mean()),
        "brier": float(((p - truth) ** 2).mean()),
        "ece": expected_calibration_error(p.ravel(), truth.ravel() == 1),
    }


def expected_calibration_error(
    confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 15
) -> float:
    """Mean distance of confidence from accuracy over bins of equal width (Guo et al., 2017).

    Parameters
    ----------
    confidence : array-like of shape (n,)
        Probability of what was predicted, in 0–1.
    correct : array-like of shape (n,)
        Whether it was right.
    """
    confidence, correct = np.asarray(confidence, float), np.asarray(correct, float)
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    gaps = np.bincount(bins, weights=correct - confidence, minlength=n_bins)
    return float(np.abs(gaps).sum() / len(confidence))


def _quadratic_kappa(truth: NDArray[Any], predicted: NDArray[Any], labels: NDArray[Any]) -> float:
    if len(np.union1d(truth, predicted)) < 2:
        return float("nan")
    # All grades are named: without one that does not occur, its neighbours would move together.
    return float(
        sklearn.metrics.cohen_kappa_score(truth, predicted, weights="quadratic", labels=labels)
    )


def _log_loss(onehot: NDArray[np.float64], p: NDArray[np.float64]) -> float:
    sums = p.sum(axis=1, keepdims=True)
    if np.allclose(sums, 1, atol=1e-5):  # rows of float32 miss 1 by more than scikit-learn allows
        p = p / sums
    return float(sklearn.metrics.log_loss(onehot.argmax(axis=1), p, labels=np.arange(p.shape[1])))


def _balanced_accuracy(truth: NDArray[Any], predicted: NDArray[Any]) -> float:
    """Mean recall of the classes that occur; one that is predicted alone has none to average."""
    return float(
        sklearn.metrics.recall_score(truth, predicted, average="macro", labels=np.unique(truth))
    )


def _macro_auc(truth: NDArray[Any], p: NDArray[np.float64]) -> float:
    """Mean of the AUCs of the columns that hold both values."""
    aucs = [
        sklearn.metrics.roc_auc_score(truth[:, c], p[:, c])
        for c in range(truth.shape[1])
        if 0 < truth[:, c].sum() < len(truth)
    ]
    return float(np.mean(aucs)) if aucs else float("nan")
