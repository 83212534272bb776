"""Calibration errors: how far probabilities are from the frequencies of what they predict."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError

N_BINS = 15

Floats = NDArray[np.float64]


def expected_calibration_error(
    confidence: ArrayLike,
    correct: ArrayLike,
    *,
    n_bins: int = N_BINS,
    bins: Literal["width", "mass"] = "width",
) -> float:
    """Expected calibration error of predicted probabilities (Guo et al., ICML 2017).

    Parameters
    ----------
    confidence : array-like of shape (n,)
        Probability of each prediction, in 0–1.
    correct : array-like of shape (n,)
        Whether each prediction is correct.
    n_bins : int
        Number of bins.
    bins : {"width", "mass"}
        Bins of equal width in probability, or of equal numbers of predictions (Nguyen and
        O'Connor, 2015). Predictions of equal probability count as their mean, wherever they lie.

    Returns
    -------
    float
        Weighted mean of absolute differences of accuracy and confidence over the bins. It is never
        negative, so that it is above 0 for perfect probabilities, too, the more so with few images.

    Raises
    ------
    InputError
        ``bins`` is neither "width" nor "mass".
    """
    confidence, correct = np.asarray(confidence, float), np.asarray(correct, float)
    if bins == "mass":
        return _error_of_equal_masses(confidence, correct, n_bins)
    if bins != "width":
        raise InputError(f"bins is {bins!r}; give 'width' or 'mass'.")
    numbers = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    gaps = np.bincount(numbers, weights=correct - confidence, minlength=n_bins)
    return float(np.abs(gaps).sum() / len(confidence))


def _error_of_equal_masses(confidence: Floats, correct: Floats, n_bins: int) -> float:
    order = np.argsort(confidence, kind="stable")
    p, y = confidence[order], correct[order]
    # Among equals the order is that of chance: they count as their mean.
    starts = np.flatnonzero(np.r_[True, p[1:] != p[:-1]])
    sizes = np.diff(np.r_[starts, len(p)])
    gaps = np.repeat(np.add.reduceat(y - p, starts) / sizes, sizes)
    edges = np.linspace(0, len(p), min(n_bins, len(p)) + 1).astype(int)[:-1]
    return float(np.abs(np.add.reduceat(gaps, edges)).sum() / len(p))


def classwise_calibration_error(
    targets: NDArray[Any], proba: Floats, *, n_bins: int = N_BINS
) -> float:
    """Classwise calibration error: the mean error over the columns (Kull et al., NeurIPS 2019).

    Parameters
    ----------
    targets : ndarray of shape (n, C)
        One-hot or indicator rows; NaN: a label that is not known, which is left out.
    proba : ndarray of shape (n, C)
        Probabilities.
    n_bins : int
        Number of bins of equal mass.
    """
    errors = []
    for y, p in zip(np.asarray(targets, float).T, proba.T, strict=True):
        known = ~np.isnan(y)
        if known.any():
            errors.append(_error_of_equal_masses(p[known], y[known], n_bins))
    return float(np.mean(errors)) if errors else float("nan")


@dataclass(frozen=True)
class ErrorInterval:
    """Calibration error with its bootstrap interval.

    Attributes
    ----------
    value : float
        Error of the images as they are.
    low, high : float
        Ends of the interval.
    of_chance : float
        Mean error if the probabilities were exactly right, with labels drawn from them: what so
        many images give by chance.
    """

    value: float
    low: float
    high: float
    of_chance: float


def calibration_errors(
    y_true: ArrayLike,
    proba: ArrayLike,
    *,
    classes: ArrayLike | None = None,
    n_bins: int = N_BINS,
    n_resamples: int = 1000,
    level: float = 0.95,
    groups: ArrayLike | None = None,
    random_state: int = 0,
) -> dict[str, ErrorInterval]:
    """Calibration errors over bins of equal mass, with bootstrap intervals.

    Parameters
    ----------
    y_true : array-like of shape (n,) or (n, L)
        Labels, or an indicator matrix for multi-label, in which NaN is an unknown label.
    proba : array-like of shape (n, C)
        Probabilities, with columns in the order of ``classes``.
    classes : array-like of shape (C,) or None
        Labels of the columns; None: 0 to C − 1.
    n_bins : int
        Number of bins.
    n_resamples : int
        Number of bootstrap samples.
    level : float
        Coverage of the intervals.
    groups : array-like of shape (n,) or None
        Group of each image, such as its patient: groups are resampled whole. None: images are.
    random_state : int
        Seed of the resampling.

    Returns
    -------
    dict of str to ErrorInterval
        ``ece_mass``: of the most probable class (multi-label: of all single labels together), and
        ``ece_classwise``: the mean over classes of that of each class. A resample repeats images,
        which raises such an error; intervals are of its change over resamples about the error
        itself (the basic bootstrap), cut off at 0.

    Raises
    ------
    InputError
        y_true has labels that are not among the classes, or its shape does not fit.
    """
    p = np.asarray(proba, dtype=np.float64)
    truth = np.asarray(y_true)
    exclusive = truth.ndim == 1 or truth.shape[1] == 1
    if exclusive:
        truth, columns = truth.reshape(-1), np.asarray(classes) if classes is not None else None
        columns = np.arange(p.shape[1]) if columns is None else columns
        if unknown := np.setdiff1d(truth, columns).tolist():
            raise InputError(f"y_true holds {unknown[:10]}; the classes are {columns.tolist()}.")
        targets = (truth[:, None] == columns[None]).astype(float)
    else:
        targets = truth.astype(float)
    if targets.shape != p.shape:
        raise InputError(f"y_true has shape {truth.shape}, proba {p.shape}: they do not fit.")
    units = np.arange(len(p)) if groups is None else np.asarray(groups)
    _, numbers = np.unique(units, return_inverse=True)
    members = np.split(np.argsort(numbers, kind="stable"), np.bincount(numbers).cumsum()[:-1])
    rng = np.random.RandomState(random_state)
    found = {}
    measures: dict[str, Callable[[Floats, Floats], float]] = {
        "ece_mass": lambda y, q: top_error(y, q, n_bins) if exclusive else _pooled(y, q, n_bins),
        "ece_classwise": lambda y, q: classwise_calibration_error(y, q, n_bins=n_bins),
    }
    values = {name: measure(targets, p) for name, measure in measures.items()}
    resampled: dict[str, list[float]] = {name: [] for name in measures}
    chance: dict[str, list[float]] = {name: [] for name in measures}
    for number in range(n_resamples):
        rows = np.concatenate([members[i] for i in rng.randint(len(members), size=len(members))])
        drawn = _drawn(p, targets, exclusive, rng) if number < 100 else None
        for name, measure in measures.items():
            resampled[name].append(measure(targets[rows], p[rows]))
            if drawn is not None:
                chance[name].append(measure(drawn, p))
    tails = 100 * (1 - level) / 2, 100 * (1 + level) / 2
    for name, value in values.items():
        # A resample is further from its own frequencies than the images are from theirs: the
        # centre of the resamples is moved back to the value.
        low, high = np.percentile(resampled[name], tails) if n_resamples else (np.nan, np.nan)
        bias = float(np.mean(resampled[name])) - value if n_resamples else 0.0
        found[name] = ErrorInterval(
            value,
            max(0.0, float(low) - bias),
            float(high) - bias,
            float(np.mean(chance[name])) if chance[name] else float("nan"),
        )
    return found


def top_error(targets: Floats, proba: Floats, n_bins: int = N_BINS) -> float:
    """Error of equal masses of the most probable class, from one-hot targets (n, C)."""
    top = proba.argmax(axis=1)
    rows = np.arange(len(top))
    return _error_of_equal_masses(proba[rows, top], targets[rows, top], n_bins)


def _pooled(targets: Floats, proba: Floats, n_bins: int) -> float:
    known = ~np.isnan(targets)
    return _error_of_equal_masses(proba[known], targets[known], n_bins)


def _drawn(p: Floats, targets: Floats, exclusive: bool, rng: np.random.RandomState) -> Floats:
    """Targets drawn from the probabilities; NaN where the label is not known."""
    if not exclusive:
        return np.where(np.isnan(targets), np.nan, (rng.rand(*p.shape) < p).astype(float))
    cumulative = p.cumsum(axis=1)
    drawn = (rng.rand(len(p), 1) * cumulative[:, -1:] < cumulative).argmax(axis=1)
    onehot: Floats = np.eye(p.shape[1])[drawn]
    return onehot
