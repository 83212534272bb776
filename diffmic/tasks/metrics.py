"""Classification metrics of probabilities: scikit-learn's, and the calibration error."""

from typing import Any

import numpy as np
import sklearn  # sklearn.metrics is imported on first use
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError


def classification_metrics(
    y_true: ArrayLike,
    proba: ArrayLike,
    *,
    classes: ArrayLike | None = None,
    ordered: bool = False,
    thresholds: ArrayLike = 0.5,
) -> dict[str, float]:
    """Common classification metrics of predicted probabilities.

    Parameters
    ----------
    y_true : array-like of shape (n,), (n, 1) or (n, L)
        Labels, or an indicator matrix for multi-label.
    proba : array-like of shape (n, C)
        Probabilities, with columns in the order of ``classes``.
    classes : array-like of shape (C,) or None
        Labels of the columns; None: 0 to C − 1.
    ordered : bool
        Whether classes are ordered grades, for which quadratic kappa is computed.
    thresholds : float or array-like of shape (L,) or (n, L)
        Multi-label: decision thresholds; a label is predicted from this probability on.

    Returns
    -------
    dict of str to float
        ``accuracy`` (multi-label: fraction of images with all labels right),
        ``label_accuracy`` (multi-label: fraction of single labels that are right),
        ``balanced_accuracy``, ``macro_f1``, ``auc`` (macro, one-vs-rest), ``kappa`` (quadratic, if
        ordered), ``nll``, ``brier``, ``ece`` (15 bins of equal width). Classes without positives,
        or without negatives, are left out of averages for which they are undefined.

    Raises
    ------
    InputError
        A label is not among the classes.
    """
    truth, p = np.asarray(y_true), np.asarray(proba, dtype=np.float64)
    if truth.ndim == 2 and truth.shape[1] == 1:
        truth = truth[:, 0]
    if truth.ndim == 2:
        return multilabel_metrics(truth, p, (p >= np.asarray(thresholds)).astype(int))
    labels = np.arange(p.shape[1]) if classes is None else np.asarray(classes)
    return multiclass_metrics(truth, p, labels, ordered=ordered)


def multiclass_metrics(
    truth: NDArray[Any],
    p: NDArray[np.float64],
    classes: NDArray[Any],
    *,
    ordered: bool = False,
) -> dict[str, float]:
    """Multi-class metrics of labels (n,) and probabilities (n, C)."""
    unknown = np.setdiff1d(truth, classes)
    if len(unknown):
        raise InputError(
            f"y_true holds {unknown.tolist()[:10]}; the classes are {classes.tolist()}."
        )
    onehot = (truth[:, None] == classes[None]).astype(float)
    predicted = classes[p.argmax(axis=1)]
    metrics = {
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
        metrics["kappa"] = _quadratic_kappa(truth, predicted, classes)
    metrics["nll"] = _log_loss(onehot, p)
    metrics["brier"] = float(((p - onehot) ** 2).sum(axis=1).mean())
    metrics["ece"] = expected_calibration_error(p.max(axis=1), predicted == truth)
    return metrics


def multilabel_metrics(
    truth: NDArray[Any], p: NDArray[np.float64], predicted: NDArray[Any]
) -> dict[str, float]:
    """Multi-label metrics of true labels, probabilities and decisions, each (n, L)."""
    present = np.flatnonzero(truth.any(axis=0))
    balanced = [
        _balanced_accuracy(truth[:, c], predicted[:, c])
        for c in range(truth.shape[1])
        if 0 < truth[:, c].sum() < len(truth)
    ]
    clipped = p.clip(1e-15, 1 - 1e-15)
    return {
        "accuracy": float((predicted == truth).all(axis=1).mean()),
        "label_accuracy": float((predicted == truth).mean()),
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
    """Expected calibration error over bins of equal width (Guo et al., ICML 2017).

    Parameters
    ----------
    confidence : array-like of shape (n,)
        Probability of each prediction, in 0–1.
    correct : array-like of shape (n,)
        Whether each prediction is correct.
    n_bins : int
        Number of bins.

    Returns
    -------
    float
        Weighted mean of absolute differences of accuracy and confidence over the bins.
    """
    confidence, correct = np.asarray(confidence, float), np.asarray(correct, float)
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    gaps = np.bincount(bins, weights=correct - confidence, minlength=n_bins)
    return float(np.abs(gaps).sum() / len(confidence))


def _quadratic_kappa(truth: NDArray[Any], predicted: NDArray[Any], labels: NDArray[Any]) -> float:
    if len(np.union1d(truth, predicted)) < 2:
        return float("nan")
    # All grades are passed: if one that does not occur were left out, the distances would shrink.
    return float(
        sklearn.metrics.cohen_kappa_score(truth, predicted, weights="quadratic", labels=labels)
    )


def _log_loss(onehot: NDArray[np.float64], p: NDArray[np.float64]) -> float:
    sums = p.sum(axis=1, keepdims=True)
    if np.allclose(sums, 1, atol=1e-5):  # float32 rows miss 1 by more than scikit-learn allows
        p = p / sums
    return float(sklearn.metrics.log_loss(onehot.argmax(axis=1), p, labels=np.arange(p.shape[1])))


def _balanced_accuracy(truth: NDArray[Any], predicted: NDArray[Any]) -> float:
    """Mean recall of the classes that occur; a class that is only predicted has no recall."""
    return float(
        sklearn.metrics.recall_score(truth, predicted, average="macro", labels=np.unique(truth))
    )


def _macro_auc(truth: NDArray[Any], p: NDArray[np.float64]) -> float:
    """Mean AUC of the columns that contain both values."""
    aucs = [
        sklearn.metrics.roc_auc_score(truth[:, c], p[:, c])
        for c in range(truth.shape[1])
        if 0 < truth[:, c].sum() < len(truth)
    ]
    return float(np.mean(aucs)) if aucs else float("nan")
