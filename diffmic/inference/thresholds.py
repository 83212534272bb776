"""Decision thresholds on probabilities, chosen for a stated aim on held-out images."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..conventions import is_number
from ..errors import InputError

PRIOR_COUNT = 10  # with this many positives, labels and probabilities have equal weight
AIMS = ("f1", "youden")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ThresholdAim:
    """Aim for which thresholds are chosen.

    Attributes
    ----------
    name : {"f1", "youden", "rates"}
        Largest F1; largest sum of sensitivity and specificity (Youden, 1950); or the rates below.
    sensitivity : float or None
        Least sensitivity, with the largest specificity that goes with it.
    specificity : float or None
        Least specificity, with the largest sensitivity that goes with it. With both, the threshold
        is that of the sensitivity, which is reached first.
    """

    name: str = "f1"
    sensitivity: float | None = None
    specificity: float | None = None

    def __post_init__(self) -> None:
        if self.name not in (*AIMS, "rates"):
            raise InputError(f"aim is {self.name!r}; give one of {AIMS}, or a rate.")
        rates = {"sensitivity": self.sensitivity, "specificity": self.specificity}
        if (self.name == "rates") != any(value is not None for value in rates.values()):
            raise InputError(f"{self} is no aim: 'rates' needs a sensitivity or a specificity.")
        for name, value in rates.items():
            if value is not None and not (is_number(value) and 0 < value <= 1):
                raise InputError(f"{name} is {value!r}; give a rate above 0, at most 1.")

    def __str__(self) -> str:
        if self.name != "rates":
            return {"f1": "the largest F1", "youden": "the largest Youden index"}[self.name]
        rates = {"sensitivity": self.sensitivity, "specificity": self.specificity}
        return " and ".join(f"a {n} of {x:g}" for n, x in rates.items() if x is not None)

    def to_dict(self) -> dict[str, Any]:
        """Fields as plain values, for a configuration file."""
        return asdict(self)


LARGEST_F1 = ThresholdAim()


@dataclass(frozen=True, eq=False)
class Thresholds:
    """Thresholds with what they reach on the images on which they were chosen.

    Attributes
    ----------
    values : ndarray of shape (L,)
        Thresholds: a label is decided from this probability on.
    sensitivity, specificity : ndarray of shape (L,)
        Rates at the thresholds; NaN where no image with (or without) the label is known.
    n_positive, n_negative : ndarray of shape (L,)
        Numbers of images known to be with and without each label.
    """

    values: Floats
    sensitivity: Floats
    specificity: Floats
    n_positive: NDArray[np.int64]
    n_negative: NDArray[np.int64]

    def missed(self, aim: ThresholdAim, names: tuple[str, ...]) -> list[str]:
        """Sentences on the labels for which the aim was not reached, or reached by deciding alike.

        ``names`` are those of the labels.
        """
        told = []
        rates = zip(self.sensitivity, self.specificity, strict=True)
        counts = zip(self.n_positive, self.n_negative, strict=True)
        for name, (sens, spec), (n_pos, n_neg) in zip(names, rates, counts, strict=True):
            if not n_pos or not n_neg:
                kind = "with" if not n_pos else "without"
                told.append(
                    f"{name}: no image is known to be {kind} it; its threshold is as before"
                )
                continue
            reached = f"sensitivity {sens:.3f} and specificity {spec:.3f}"
            short = (aim.sensitivity is not None and sens < aim.sensitivity - 1e-9) or (
                aim.specificity is not None and spec < aim.specificity - 1e-9
            )
            if short:
                told.append(f"{name}: it has {reached} at best")
            elif aim.name == "rates" and (sens == 0 or spec == 0):
                decided = "never" if sens == 0 else "always"
                told.append(f"{name}: it is reached only by {decided} deciding it ({reached})")
        return told


def chosen_thresholds(
    targets: NDArray[Any],
    proba: Floats,
    aim: ThresholdAim = LARGEST_F1,
    *,
    weights: Floats | None = None,
    before: Floats | None = None,
    prior_count: float = PRIOR_COUNT,
) -> Thresholds:
    """Thresholds for an aim, from held-out images.

    A few positives determine a threshold poorly, while calibrated probabilities give the expected
    F1 of any threshold (Lipton et al., ECML 2014). For F1 and Youden's index each image therefore
    counts as positive with weight λ y + (1 − λ) p, where λ = n / (n + ``prior_count``) for a label
    with n positives (for Youden's index, positives or negatives, whichever are fewer). Rates are
    those of the labels alone.

    The threshold is midway between the smallest probability above it and the largest one below it
    (or 0), which leaves a margin on both sides for new images.

    Parameters
    ----------
    targets, proba : ndarray of shape (n, L)
        Indicator targets and calibrated probabilities of held-out images. Images whose label is
        unknown (NaN) are left out for this label.
    aim : ThresholdAim
    weights : ndarray of shape (n,) or None
        Weight of each image.
    before : ndarray of shape (L,) or None
        Thresholds of labels for which none can be chosen, because no image is known to be with them
        (or, but for F1, without them); None: ½.
    prior_count : float
        Number of positives at which λ is ½; 0: only the labels are used.
    """
    n_labels = targets.shape[1]
    values = np.full(n_labels, 0.5) if before is None else np.array(before, float)
    weights = np.ones(len(targets)) if weights is None else weights
    rates = np.full((2, n_labels), np.nan)
    counts = np.zeros((2, n_labels), dtype=np.int64)
    for label in range(n_labels):
        known = np.flatnonzero(~np.isnan(targets[:, label]) & (weights > 0))
        order = known[np.argsort(-proba[known, label], kind="stable")]
        p, w = proba[order, label], weights[order]
        y = targets[order, label].astype(np.float64)
        counts[:, label] = (y > 0).sum(), (y == 0).sum()
        if counts[0, label] and (counts[1, label] or aim.name == "f1"):
            values[label] = _threshold(p, y, w, aim, prior_count)
        passed = p >= values[label]
        for row, kind in enumerate((y * w, (1 - y) * w)):
            if counts[row, label]:
                rates[row, label] = kind[passed if row == 0 else ~passed].sum() / kind.sum()
    return Thresholds(values, *rates, *counts)


def best_thresholds(
    targets: NDArray[Any], proba: Floats, *, prior_count: float = PRIOR_COUNT
) -> Floats:
    """Thresholds (L,) of the largest expected F1; a label that never occurs gets ½.

    Parameters are those of :func:`chosen_thresholds`.
    """
    return chosen_thresholds(targets, proba, prior_count=prior_count).values


def _threshold(p: Floats, y: Floats, w: Floats, aim: ThresholdAim, prior_count: float) -> float:
    """Threshold of one label, from probabilities in falling order, labels and weights, (n,)."""
    positive = y
    if aim.name != "rates":
        n = y.sum() if aim.name == "f1" else min(y.sum(), (1 - y).sum())
        trust = n / (n + prior_count)
        positive = trust * y + (1 - trust) * p
    found, negative = (w * positive).cumsum(), (w * (1 - positive)).cumsum()
    separable = np.append(p[1:] != p[:-1], True)  # equal probabilities cannot be separated
    if aim.name == "f1":
        value = 2 * found / (found[-1] + w.cumsum())
    elif aim.name == "youden":
        value = found / found[-1] - negative / negative[-1]
    elif aim.sensitivity is not None:
        # The first that is sensitive enough is the most specific one.
        value = -np.arange(len(p), dtype=float)
        value[found / found[-1] < aim.sensitivity - 1e-12] = -math.inf
    else:
        assert aim.specificity is not None
        value = np.arange(len(p), dtype=float)
        value[1 - negative / negative[-1] < aim.specificity - 1e-12] = -math.inf
    value = np.where(separable, value, -math.inf)
    if not np.isfinite(value).any():  # none passes
        return float((p[0] + 1) / 2) if p[0] < 1 else 1.0
    best = int(value.argmax())
    below = p[best + 1] if best + 1 < len(p) else 0.0
    midway = float((p[best] + below) / 2)
    return midway if midway > below else float(p[best])
