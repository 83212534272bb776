"""Probabilities for a population with other class shares, and these shares from its images."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .tables import data_frame

Floats = NDArray[np.float64]

MOST_ITERATIONS = 10_000
TOLERANCE = 1e-8  # of a share, in one step
BOOTSTRAP_TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False)
class PrevalenceEstimate:
    """Class shares of a population, estimated from unlabelled images.

    ``predict_proba(X, prevalence=estimate)`` takes it as it is.

    Attributes
    ----------
    classes : ndarray of shape (C,)
        Class labels; for multi-label, the column indices.
    names : tuple of str
        Display names of the classes.
    shares : ndarray of shape (C,)
        Estimated shares, which sum to 1; for multi-label, the share of images with each label.
    training_shares : ndarray of shape (C,)
        Shares for which the model's probabilities hold without a correction.
    standard_error : ndarray of shape (C,) or None
        Bootstrap standard error of each share; None: it was not asked for. It tells of the number
        of images alone: that the images of a class look as in training, and that the probabilities
        are calibrated, is taken for granted.
    n_images : int
        Number of images.
    n_iterations : int
        Number of iterations until the shares no longer changed; for multi-label, the largest.
    converged : bool
        Whether they no longer changed.
    """

    classes: NDArray[Any]
    names: tuple[str, ...]
    shares: Floats
    training_shares: Floats
    standard_error: Floats | None
    n_images: int
    n_iterations: int
    converged: bool

    def to_dict(self) -> dict[Any, float]:
        """Shares by class label."""
        return dict(zip(self.classes.tolist(), self.shares.tolist(), strict=True))

    def to_frame(self) -> Any:
        """pandas frame with a row per class: share, training share, standard error."""
        columns = {
            "class": self.names,
            "share": self.shares,
            "training_share": self.training_shares,
            "standard_error": self.standard_error,
        }
        told = {name: values for name, values in columns.items() if values is not None}
        return data_frame(told).set_index("class")


def log_ratio(prevalence: Floats, shares: Floats, *, exclusive: bool) -> Floats:
    """What is added to logits (n, C) for a population with other class shares, (C,).

    π are the shares of the new population (``prevalence``), s those for which the logits hold. For
    exclusive classes p'(c|x) ∝ p(c|x) π_c / s_c, so that log π_c − log s_c is added; for
    multi-label the same holds for each label and its absence: logit π_c − logit s_c.

    References
    ----------
    Saerens, Latinne and Decaestecker, "Adjusting the outputs of a classifier to new a priori
    probabilities", Neural Computation, 2002, equation 4.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Floats = np.log(prevalence) - np.log(shares)
        if not exclusive:
            found = found - np.log1p(-prevalence) + np.log1p(-shares)
    return np.where(prevalence == shares, 0.0, found)


def estimated_shares(
    proba: Floats,
    shares: Floats,
    *,
    exclusive: bool,
    weights: Floats | None = None,
    start: Floats | None = None,
    tolerance: float = TOLERANCE,
    max_iterations: int = MOST_ITERATIONS,
) -> tuple[Floats, int, bool]:
    """Class shares of unlabelled images, by expectation–maximisation.

    π_c ← mean over images of π_c r_ic / Σ_j π_j r_ij, where r_ic = p(c|x_i) / s_c is proportional
    to the density of the image in its class: the shares of the largest likelihood.

    Parameters
    ----------
    proba : ndarray of shape (n, C)
        Probabilities for the shares s.
    shares : ndarray of shape (C,)
        The shares s.
    exclusive : bool
        Whether each image has exactly one class; if not, each label is estimated on its own.
    weights : ndarray of shape (n,) or None
        Weight of each image.
    start : ndarray of shape (C,) or None
        Shares to start from; None: s.
    tolerance : float
        Largest change of a share at which the iteration stops.

    Returns
    -------
    tuple
        Shares (C,), the number of iterations, and whether they converged. A class with s_c = 0, of
        which the model knows nothing, keeps 0; a label that is always or never present in training
        keeps its share.

    References
    ----------
    Saerens, Latinne and Decaestecker, 2002, equation 9.
    """
    begin = shares if start is None else start
    if exclusive:
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(shares > 0, proba / shares, 0.0)
        return _em(ratio, begin, weights, tolerance, max_iterations)
    found, most, converged = begin.astype(float).copy(), 0, True
    for label in np.flatnonzero((shares > 0) & (shares < 1)):
        s, p = shares[label], proba[:, label]
        two, n, good = _em(
            np.column_stack([(1 - p) / (1 - s), p / s]),
            np.array([1 - begin[label], begin[label]]),
            weights,
            tolerance,
            max_iterations,
        )
        found[label], most, converged = two[1], max(most, n), converged and good
    return found, most, converged


def _em(
    ratio: Floats, start: Floats, weights: Floats | None, tolerance: float, max_iterations: int
) -> tuple[Floats, int, bool]:
    if weights is not None:
        ratio, weights = ratio[weights > 0], weights[weights > 0]
    share = np.full(len(ratio), 1 / len(ratio)) if weights is None else weights / weights.sum()
    pi = start / start.sum()
    for number in range(1, max_iterations + 1):
        density = ratio @ pi
        new = pi * ((share / np.maximum(density, np.finfo(float).tiny)) @ ratio)
        new /= new.sum()
        change, pi = float(np.abs(new - pi).max()), new
        if change < tolerance:
            return pi, number, True
    return pi, max_iterations, False


def bootstrap_errors(
    proba: Floats, shares: Floats, found: Floats, *, exclusive: bool, n_bootstrap: int, seed: int
) -> Floats:
    """Standard errors (C,) of estimated shares ``found``, from at least 2 resamples of the images.

    Other parameters are those of :func:`estimated_shares`.
    """
    rng = np.random.default_rng(seed)
    n = len(proba)
    # A share of 0 would stay there.
    start = found.clip(1e-3, 1 - 1e-3)
    start = np.where((shares > 0) & ((shares < 1) | exclusive), start, found)
    estimates = [
        estimated_shares(
            proba,
            shares,
            exclusive=exclusive,
            weights=rng.multinomial(n, np.full(n, 1 / n)).astype(float),
            start=start,
            tolerance=BOOTSTRAP_TOLERANCE,
        )[0]
        for _ in range(n_bootstrap)
    ]
    errors: Floats = np.std(estimates, axis=0, ddof=1)
    return errors
