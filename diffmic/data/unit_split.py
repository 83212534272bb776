"""Stratified split of multi-label units: images, or groups of images."""

import numpy as np
from numpy.typing import NDArray

Chosen = NDArray[np.bool_]  # (units,): whether each unit is in the validation part
Counts = NDArray[np.float64]  # (units, 1 + labels): number of images per unit, then with each label

_STARTS = 10
_STEPS = 200
_CANDIDATES = 32  # number of units of each side considered in a step

# Cost of a label without an image on one side; deviations from the fraction cost at most 3.
_NOT_IN_TRAINING, _NOT_IN_VALIDATION = 1e6, 1e2


def split_units(counts: Counts, fraction: float, rng: np.random.RandomState) -> Chosen | None:
    """Choose the units of the validation part; None if the training part would lack a label.

    Iterative stratification gives several initial splits. Each is improved by moving a unit to the
    other side, or by exchanging two, until the cost does not decrease; the best one is returned.

    Parameters
    ----------
    counts : ndarray of shape (units, 1 + labels)
        Number of images of each unit, then number of its images with each label (or known to be
        without it, which is a column of its own).
    fraction : float
        Target fraction of the images, and of the images with each label.
    rng : RandomState
        Source of randomness.

    Returns
    -------
    ndarray of shape (units,), bool, or None

    References
    ----------
    Sechidis, Tsoumakas and Vlahavas (2011), "On the stratification of multi-label data".
    """
    counts = counts[:, counts.any(axis=0)]
    units = (counts > 0).sum(axis=0)
    alone = (counts[:, 1:] > 0)[:, units[1:] == 1].any(axis=1)  # the only unit with some label
    free = np.flatnonzero(~alone)
    if len(counts) < 2 or len(free) == 0:
        return None
    cost = _Cost(counts, fraction)
    best: tuple[float, Chosen] | None = None
    for _ in range(_STARTS):
        chosen = _iterative_stratification(counts, fraction, free, rng)
        found = _improved(chosen, counts, free, cost, rng)
        if best is None or found < best[0]:
            best = found, chosen
    assert best is not None
    return best[1] if best[0] < _NOT_IN_TRAINING else None


class _Cost:
    """Cost of a split: labels missing on one side, and deviations from the target fraction."""

    def __init__(self, counts: Counts, fraction: float) -> None:
        self.totals, self.fraction = counts.sum(axis=0), fraction
        self.divisible = (counts > 0).sum(axis=0) > 1

    def __call__(self, sums: Counts) -> NDArray[np.float64]:
        """Cost (...) of the counts of the validation part (..., 1 + labels)."""
        deviation = np.abs(sums / self.totals - self.fraction)
        missing = (sums == 0) & self.divisible
        # The deviation of all images has twice the weight of the mean deviation of the labels.
        n_labels = max(1, sums.shape[-1] - 1)
        cost = 2 * deviation[..., 0] + deviation[..., 1:].sum(axis=-1) / n_labels
        cost = cost + _NOT_IN_VALIDATION * missing.sum(axis=-1)
        # An empty validation part costs as much as a label missing from the training part.
        impossible = (sums == self.totals).sum(axis=-1) + (sums[..., 0] == 0)
        result: NDArray[np.float64] = cost + _NOT_IN_TRAINING * impossible
        return result


def _iterative_stratification(
    counts: Counts, fraction: float, free: NDArray[np.intp], rng: np.random.RandomState
) -> Chosen:
    """Initial split: units with the rarest label are assigned first, unlabelled ones last."""
    chosen = np.zeros(len(counts), bool)
    waiting = np.zeros(len(counts), bool)
    waiting[free] = True
    order = rng.permutation(free)
    wanted = fraction * counts.sum(axis=0)
    for column in [*(1 + np.argsort((counts[:, 1:] > 0).sum(axis=0), kind="stable")), 0]:
        units = order[waiting[order] & (counts[order, column] > 0)]
        held = counts[chosen, column].sum()
        cumulative = held + counts[units, column].cumsum() - counts[units, column] / 2
        n_taken = int((cumulative <= wanted[column]).sum())
        in_training = counts[~chosen & ~waiting, column].any()
        n_taken = min(max(n_taken, int(held == 0)), len(units) - int(not in_training))
        chosen[units[: max(n_taken, 0)]] = True
        waiting[units] = False
    return chosen


def _improved(
    chosen: Chosen,
    counts: Counts,
    free: NDArray[np.intp],
    cost: _Cost,
    rng: np.random.RandomState,
) -> float:
    """Move and exchange units in ``chosen`` until the cost does not decrease; the final cost."""
    sums = counts[chosen].sum(axis=0)
    current = float(cost(sums))
    for _ in range(_STEPS):
        inside = _candidates(free[chosen[free]], sums == cost.totals, counts, rng)
        outside = _candidates(free[~chosen[free]], (sums == 0) & cost.divisible, counts, rng)
        # Row and column 0 represent no unit: a move instead of an exchange.
        leaving = np.vstack([np.zeros(counts.shape[1]), counts[inside]])
        coming = np.vstack([np.zeros(counts.shape[1]), counts[outside]])
        costs = cost(sums - leaving[:, None] + coming[None])
        row, column = np.unravel_index(costs.argmin(), costs.shape)
        if costs[row, column] >= current - 1e-9:
            break
        current = float(costs[row, column])
        sums = sums - leaving[row] + coming[column]
        if row > 0:
            chosen[inside[row - 1]] = False
        if column > 0:
            chosen[outside[column - 1]] = True
    return current


def _candidates(
    units: NDArray[np.intp],
    missing: NDArray[np.bool_],
    counts: Counts,
    rng: np.random.RandomState,
) -> NDArray[np.intp]:
    """Random units of one side; if the other side lacks labels, units with one of these labels."""
    if missing.any():
        helpful = units[(counts[units][:, missing] > 0).any(axis=1)]
        units = helpful if len(helpful) else units
    if len(units) <= _CANDIDATES:
        return rng.permutation(units)
    return units[rng.randint(len(units), size=_CANDIDATES)]
