"""What a point estimate cannot tell: when to abstain, and which labels come together."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
FLOOR = 1e-7  # of a probability


def risk_coverage_area(correct: NDArray[np.bool_], confidence: Floats) -> float:
    """Mean error over all coverages, the most confident first; 0 is the best.

    Parameters
    ----------
    correct : ndarray of bool, shape (n,)
    confidence : ndarray of shape (n,)
        Among equals the order is that of chance: their errors count as their mean.
    """
    order = np.argsort(-confidence, kind="stable")
    errors, ranked = (~correct[order]).astype(float), confidence[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    sizes = np.diff(np.r_[starts, len(errors)])
    errors = np.repeat(np.add.reduceat(errors, starts) / sizes, sizes)
    return float(np.mean(np.cumsum(errors) / np.arange(1, len(errors) + 1)))


def abstaining(targets: Floats, proba: Floats, of_draws: Floats | None) -> dict[str, float]:
    """Area under the risk–coverage curve by the largest probability, and by the draws' agreement.

    Parameters
    ----------
    targets, proba : ndarray of shape (n, C)
    of_draws : ndarray of shape (n, S, C) or None
        Probabilities of each draw.
    """
    predicted = proba.argmax(axis=1)
    correct = targets.argmax(axis=1) == predicted
    found = {"aurc": risk_coverage_area(correct, proba.max(axis=1))}
    if of_draws is not None:
        spread = of_draws.std(axis=1)[np.arange(len(proba)), predicted]
        found["aurc_spread"] = risk_coverage_area(correct, -spread)
    return found


def label_sets(targets: Floats, proba: Floats, of_draws: Floats | None) -> dict[str, float]:
    """Negative log-likelihood of an image's whole set of labels.

    As if labels were independent of each other; and, with draws, independent within each draw
    alone: labels that change together from draw to draw are likelier together.
    """
    found = {"set_nll": float(-_log_likelihood(targets, proba).mean())}
    if of_draws is not None:
        each = _log_likelihood(targets[:, None], of_draws)  # (n, S)
        largest = each.max(axis=1, keepdims=True)
        together = largest[:, 0] + np.log(np.exp(each - largest).mean(axis=1))
        found["set_nll_draws"] = float(-together.mean())
    return found


def _log_likelihood(targets: Floats, proba: Floats) -> Floats:
    """Of all labels of an image, (..., C) → (...)."""
    kept = proba.clip(FLOOR, 1 - FLOOR)
    found: Floats = np.where(targets > 0, np.log(kept), np.log1p(-kept)).sum(axis=-1)
    return found
