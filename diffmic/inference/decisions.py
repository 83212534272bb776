"""Decisions from probabilities: by expected cost, and for grades by quadratic kappa."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEAST_KAPPA = 0.1  # below, grades are hardly told apart, and no stretching helps
MOST_ROUNDS = 100


def cheapest(proba: Floats, costs: Floats) -> NDArray[np.intp]:
    """Decision of the smallest expected cost, (n,): argmin over d of Σ_t p(t|x) costs[t, d].

    ``proba`` is (n, C), ``costs`` (C, D): of each decision where each class is the truth.
    """
    found: NDArray[np.intp] = (proba @ costs).argmin(axis=1)
    return found


def present_by_cost(proba: Floats, costs: Floats) -> NDArray[np.int64]:
    """Labels (n, L) whose presence costs no more than their absence, of probabilities (n, L).

    ``costs`` is (L, 2, 2): rows: absent, present in truth; columns: decided absent, present.
    """
    both = np.stack([1 - proba, proba], axis=2)  # (n, L, 2)
    expected = np.einsum("nlt,ltd->nld", both, costs)
    found: NDArray[np.int64] = (expected[..., 1] <= expected[..., 0]).astype(int)
    return found


def named_costs(name: str, shares: Floats) -> Floats:
    """Cost matrix (C, C) of a name.

    "equal": every error costs 1, so that the most probable class is decided. "balanced": an error
    costs the inverse of the share of the true class, all of which are above 0; its smallest
    expectation is the largest expected balanced accuracy. "quadratic": an error costs the square of
    its distance in the order of the classes.
    """
    positions = np.arange(len(shares))
    wrong = (positions[:, None] != positions).astype(float)
    if name == "balanced":
        wrong = wrong / shares[:, None]
    elif name == "quadratic":
        wrong = (positions[:, None] - positions).astype(float) ** 2
    return np.asarray(wrong, dtype=np.float64)


def expected_position(proba: Floats) -> Floats:
    """Expected grade (n,), as a position in the order of the classes: Σ_c c p(c|x)."""
    found: Floats = proba @ np.arange(proba.shape[1])
    return found


def kappa_cuts(proba: Floats, weights: Floats | None = None) -> Floats:
    """Cut points on the expected grade that maximise the expected quadratic kappa, (C − 1,).

    Kappa is 1 − N / D with the mean squared distance N of truth and decision, and its value D if
    they were independent. The decision that maximises a ratio minimises N − (1 − κ) D, where κ is
    the largest kappa itself (Dinkelbach, 1967). For an image with the expected grade e that is
    (e − d)² − (1 − κ)(d − μ)², where μ is the mean grade of the population, and is smallest for the
    d nearest to μ + (e − μ) / κ: the expected grade is moved away from the mean, because a kappa
    punishes decisions that keep to it. So the cut between grades k and k + 1 is μ + κ (k + ½ − μ).
    κ and μ are of the probabilities alone, so that few labels cannot lead them astray.

    ``proba`` (n, C) are calibrated probabilities of images of the population, ``weights`` (n,).
    """
    n, n_classes = proba.shape
    share = np.full(n, 1 / n) if weights is None else weights / weights.sum()
    grades = np.arange(n_classes)
    expected, second = proba @ grades, proba @ grades**2
    mean = float(share @ expected)
    spread = float(share @ second) - mean**2  # variance of the true grade
    kappa = 1.0
    for _ in range(MOST_ROUNDS):
        decided = (expected[:, None] >= _cuts(mean, kappa, n_classes)).sum(axis=1)
        apart = float(share @ (second - 2 * expected * decided + decided**2))
        by_chance = spread + float(share @ (decided - mean) ** 2)
        new = max(LEAST_KAPPA, 1 - apart / by_chance) if by_chance > 0 else 1.0
        if new == kappa:
            break
        kappa = new
    return _cuts(mean, kappa, n_classes)


def _cuts(mean: float, kappa: float, n_classes: int) -> Floats:
    cuts = mean + kappa * (np.arange(n_classes - 1, dtype=np.float64) + 0.5 - mean)
    return np.asarray(cuts.clip(0, n_classes - 1), dtype=np.float64)


def recentred_cuts(cuts: Floats, shares: Floats) -> Floats:
    """Cut points for a population with other shares of the grades: about its mean grade.

    Kappa is taken to be as it was; it is the distance of two cuts that lie inside the grades.
    """
    grades = np.arange(len(shares))
    inner = cuts[(cuts > 0) & (cuts < grades[-1])]
    kappa = float(np.diff(inner).mean()) if len(inner) > 1 else 1.0
    return _cuts(float(shares @ grades), kappa, len(shares))


def moved_thresholds(thresholds: Floats, odds: Floats) -> Floats:
    """Thresholds on probabilities whose log-odds are moved by ``odds``: the same images pass.

    A threshold is an operating point, with a sensitivity and a specificity, and these do not depend
    on how frequent a class is.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        logits = np.log(thresholds) - np.log1p(-thresholds) + odds
        moved = 1 / (1 + np.exp(-logits))
    # A label that never occurs is not to be decided, whatever the threshold.
    return np.where(odds == -np.inf, 1.0, np.where(odds == np.inf, 0.0, moved))
