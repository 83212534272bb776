"""Classification metrics of probabilities, over all classes and of each, and their names."""

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError
from ..random import imported
from .reliability import classwise_calibration_error, expected_calibration_error, top_error

_sklearn = partial(imported, "sklearn.metrics")  # takes a second
CLASS_METRICS = ("sensitivity", "specificity", "precision", "f1", "auc")

# Names in words, for tables and cards.
METRIC_WORDS = {
    "accuracy": "accuracy",
    "label_accuracy": "accuracy of single labels",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "auc": "macro AUC",
    "kappa": "quadratic kappa",
    "nll": "negative log-likelihood",
    "brier": "Brier score",
    "ece": "expected calibration error",
    "ece_mass": "ECE in bins of equal mass",
    "ece_classwise": "classwise calibration error",
}
CLASS_WORDS = {"f1": "F1", "auc": "AUC"}  # of a single class, where they differ from their names

_NOTHING_KNOWN = "No label of any image is known, so that there is nothing to measure."


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
        Labels, or an indicator matrix for multi-label, in which NaN is an unknown label.
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
        ``accuracy`` (multi-label: fraction of images with all known labels right),
        ``label_accuracy`` (multi-label: fraction of single labels that are right),
        ``balanced_accuracy``, ``macro_f1``, ``auc`` (macro, one-vs-rest), ``kappa`` (quadratic, if
        ordered), ``nll``, ``brier``, ``ece`` (15 bins of equal width), ``ece_mass`` (15 bins of
        equal numbers of images) and ``ece_classwise`` (the mean over classes of the latter).
        Classes without positives, or without negatives, are left out of averages for which they are
        undefined. Unknown labels are left out of every metric.

    Raises
    ------
    InputError
        A label is not among the classes, or no label is known.
    """
    truth, p = np.asarray(y_true), np.asarray(proba, dtype=np.float64)
    if truth.ndim == 2 and truth.shape[1] == 1:
        truth = truth[:, 0]
    if truth.ndim == 2:
        truth = truth.astype(float)
        if not (np.isin(truth, (0, 1)) | np.isnan(truth)).all():
            raise InputError("y_true holds values other than 0, 1 and NaN (an unknown label).")
        return multilabel_metrics(truth, p, (p >= np.asarray(thresholds)).astype(int))
    labels = np.arange(p.shape[1]) if classes is None else np.asarray(classes)
    return multiclass_metrics(truth, p, labels, ordered=ordered)


def multiclass_metrics(
    truth: NDArray[Any],
    p: NDArray[np.float64],
    classes: NDArray[Any],
    *,
    ordered: bool = False,
    predicted: NDArray[Any] | None = None,
) -> dict[str, float]:
    """Multi-class metrics of labels (n,) and probabilities (n, C).

    ``predicted`` are the decisions (n,); None: the most probable classes. Calibration errors are of
    the most probable classes, whatever was decided.
    """
    unknown = np.setdiff1d(truth, classes)
    if len(unknown):
        raise InputError(
            f"y_true holds {unknown.tolist()[:10]}; the classes are {classes.tolist()}."
        )
    onehot = (truth[:, None] == classes[None]).astype(float)
    likeliest = classes[p.argmax(axis=1)]
    predicted = likeliest if predicted is None else predicted
    of_classes = class_metrics(onehot, p, predicted[:, None] == classes[None])
    metrics = {
        "accuracy": float((truth == predicted).mean()),
        "balanced_accuracy": _mean(of_classes["sensitivity"]),
        "macro_f1": _mean(of_classes["f1"]),
        "auc": _mean(of_classes["auc"]),
    }
    if ordered:
        metrics["kappa"] = _quadratic_kappa(truth, predicted, classes)
    metrics["nll"] = _log_loss(onehot, p)
    metrics["brier"] = float(((p - onehot) ** 2).sum(axis=1).mean())
    metrics["ece"] = expected_calibration_error(p.max(axis=1), likeliest == truth)
    metrics["ece_mass"] = top_error(onehot, p)
    metrics["ece_classwise"] = classwise_calibration_error(onehot, p)
    return metrics


def multilabel_metrics(
    truth: NDArray[Any], p: NDArray[np.float64], predicted: NDArray[Any]
) -> dict[str, float]:
    """Multi-label metrics of true labels, probabilities and decisions, each (n, L).

    Labels that are NaN are not known, and are left out of every metric; so is an image without any
    known label.
    """
    known = ~np.isnan(truth.astype(float))
    if not known.any():
        raise InputError(_NOTHING_KNOWN)
    right = (predicted == truth) & known
    of_labels = class_metrics(truth, p, predicted)
    y, all_p = truth[known].astype(int), p[known]
    clipped = all_p.clip(1e-15, 1 - 1e-15)
    return {
        "accuracy": multilabel_accuracy(truth, predicted),
        "label_accuracy": float(right.sum() / known.sum()),
        "balanced_accuracy": _mean((of_labels["sensitivity"] + of_labels["specificity"]) / 2),
        "macro_f1": _mean(of_labels["f1"]),
        "auc": _mean(of_labels["auc"]),
        "nll": float(-np.where(y == 1, np.log(clipped), np.log1p(-clipped)).mean()),
        "brier": float(((all_p - y) ** 2).mean()),
        "ece": expected_calibration_error(all_p, y == 1),
        "ece_mass": expected_calibration_error(all_p, y == 1, bins="mass"),
        "ece_classwise": classwise_calibration_error(truth, p),
    }


def multilabel_accuracy(
    truth: NDArray[Any], predicted: NDArray[Any], weights: NDArray[np.float64] | None = None
) -> float:
    """Fraction of the images with known labels for which every known label is right."""
    unknown = np.isnan(truth.astype(float))
    some = ~unknown.all(axis=1)
    if not some.any():
        raise InputError(_NOTHING_KNOWN)
    right = ((predicted == truth) | unknown).all(axis=1)[some]
    if weights is not None and not weights[some].any():
        raise InputError("sample_weight is zero for every image of which a label is known.")
    return float(np.average(right, weights=None if weights is None else weights[some]))


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


def _mean(values: NDArray[np.float64]) -> float:
    """Mean of the classes for which a metric is defined; NaN if there is none."""
    found = values[~np.isnan(values)]
    return float(found.mean()) if len(found) else float("nan")


def _quadratic_kappa(truth: NDArray[Any], predicted: NDArray[Any], labels: NDArray[Any]) -> float:
    if len(np.union1d(truth, predicted)) < 2:
        return float("nan")
    # All grades are passed: if one that does not occur were left out, the distances would shrink.
    return float(_sklearn().cohen_kappa_score(truth, predicted, weights="quadratic", labels=labels))


def _log_loss(onehot: NDArray[np.float64], p: NDArray[np.float64]) -> float:
    sums = p.sum(axis=1, keepdims=True)
    if np.allclose(sums, 1, atol=1e-5):  # float32 rows miss 1 by more than scikit-learn allows
        p = p / sums
    return float(_sklearn().log_loss(onehot.argmax(axis=1), p, labels=np.arange(p.shape[1])))
