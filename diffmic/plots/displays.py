"""Figures of predictions whose labels are known: reliability, risk and coverage, confusion.

They follow scikit-learn's displays: ``from_estimator`` predicts, ``from_predictions`` takes
probabilities, ``plot`` draws again on other axes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError
from ..inference import STAGES, Stage
from .style import LINES, axes_of, bare

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]
Z = 1.959964  # of a 95 % interval


def wilson_interval(successes: ArrayLike, trials: ArrayLike) -> tuple[Floats, Floats]:
    """95 % interval of proportions (Wilson, 1927), (…) and (…); 0 to 1 where nothing was tried."""
    k, n = np.asarray(successes, float), np.asarray(trials, float)
    with np.errstate(invalid="ignore", divide="ignore"):
        share, spread = k / n, Z**2 / n
        middle = (share + spread / 2) / (1 + spread)
        half = Z * np.sqrt(share * (1 - share) / n + spread / n / 4) / (1 + spread)
    low, high = np.nan_to_num(middle - half, nan=0.0), np.nan_to_num(middle + half, nan=1.0)
    return low.clip(0, 1), high.clip(0, 1)


@dataclass(repr=False)
class ReliabilityDisplay:
    """Reliability diagram: how often a prediction is right, against how probable it was said to be.

    Bins hold the same number of predictions each. For exclusive classes a prediction is the most
    probable class of an image; for multi-label each known label of an image.

    Attributes
    ----------
    curves : dict of str to tuple of ndarray
        For each name the mean probability, the observed frequency, and the lower and upper end of
        its 95 % interval, in each bin.
    """

    curves: Mapping[str, tuple[Floats, Floats, Floats, Floats]]

    @classmethod
    def from_estimator(
        cls, clf: Any, X: Any, y: Any = None, *, n_bins: int = 10, ax: "Axes | None" = None
    ) -> Self:
        """Figure of the prior and the diffusion of an estimator; X and y as in ``evaluate``."""
        truth, proba = _evaluated(clf, X, y)
        return cls.from_predictions(truth, proba, classes=clf.classes_, n_bins=n_bins, ax=ax)

    @classmethod
    def from_predictions(
        cls,
        y_true: ArrayLike,
        proba: ArrayLike | Mapping[str, ArrayLike],
        *,
        classes: ArrayLike | None = None,
        n_bins: int = 10,
        ax: "Axes | None" = None,
    ) -> Self:
        """Figure of probabilities.

        Parameters
        ----------
        y_true : array-like of shape (n,) or (n, L)
            Labels, or an indicator matrix in which NaN is an unknown label.
        proba : array-like of shape (n, C), or a dict of names to such arrays
            Probabilities of one or more classifiers.
        classes : array-like of shape (C,) or None
            Labels of the columns; None: 0 to C − 1.
        n_bins : int, default=10
            Number of bins, fewer where there are fewer predictions.
        ax : Axes or None

        Raises
        ------
        InputError
            Shapes or labels do not fit.
        """
        curves = {}
        for name, p in _named(proba).items():
            right, said = _claims(y_true, p, classes)
            order = np.argsort(said, kind="stable")
            parts = np.array_split(order, min(n_bins, len(order)))
            counts = np.array([len(part) for part in parts])
            hits = np.array([right[part].sum() for part in parts])
            means = np.array([said[part].mean() for part in parts])
            curves[name] = (means, hits / counts, *wilson_interval(hits, counts))
        display = cls(curves)
        display.plot(ax)
        return display

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw on axes, or on those of a new figure."""
        ax = axes_of(ax, (4, 4))
        ax.plot([0, 1], [0, 1], color="#888888", linewidth=0.8)
        for (name, (said, found, low, high)), line in zip(
            self.curves.items(), cycle(LINES), strict=False
        ):
            ax.errorbar(
                said,
                found,
                yerr=[(found - low).clip(0), (high - found).clip(0)],
                label=name,
                markersize=4,
                linewidth=1.2,
                elinewidth=0.7,
                capsize=2,
                **line,
            )
        ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        ax.set_xlabel("predicted probability")
        ax.set_ylabel("observed frequency (95 % interval)")
        bare(ax)
        ax.legend(frameon=False, loc="upper left")
        return ax


@dataclass(repr=False)
class RiskCoverageDisplay:
    """Risk–coverage curve: the share of errors among the images that are most certain.

    Attributes
    ----------
    curves : dict of str to tuple of ndarray
        For each name the coverage, 1/n to 1, and the risk at it.
    areas : dict of str to float
        Area under each curve: the mean risk over all coverages; lower is better.
    """

    curves: Mapping[str, tuple[Floats, Floats]]
    areas: Mapping[str, float]

    @classmethod
    def from_estimator(cls, clf: Any, X: Any, y: Any = None, *, ax: "Axes | None" = None) -> Self:
        """Figure of the prior and the diffusion of an estimator, by their largest probability."""
        truth, proba = _evaluated(clf, X, y)
        return cls.from_predictions(truth, proba, classes=clf.classes_, ax=ax)

    @classmethod
    def from_predictions(
        cls,
        y_true: ArrayLike,
        proba: ArrayLike | Mapping[str, ArrayLike],
        *,
        doubt: Mapping[str, ArrayLike] | None = None,
        classes: ArrayLike | None = None,
        ax: "Axes | None" = None,
    ) -> Self:
        """Figure of probabilities of exclusive classes.

        Parameters
        ----------
        y_true : array-like of shape (n,)
        proba : array-like of shape (n, C), or a dict of names to such arrays
        doubt : dict of str to array-like of shape (n,), or None
            Further orders of the images, from the least to the most doubtful, for the predictions
            of the first classifier: for example fields of ``predict_uncertainty``.
        classes : array-like of shape (C,) or None
        ax : Axes or None

        Raises
        ------
        InputError
            Shapes or labels do not fit, or labels are those of a multi-label task.
        """
        if np.ndim(y_true) == 2 and np.shape(y_true)[1] > 1:
            raise InputError(
                "y_true is an indicator matrix; risk is defined for one class an image."
            )
        named = _named(proba)
        claims = {name: _claims(y_true, p, classes) for name, p in named.items()}
        orders = {name: (right, -said) for name, (right, said) in claims.items()}
        first = next(iter(claims.values()))[0]
        for name, values in (doubt or {}).items():
            found = np.asarray(values, float)
            if found.shape != first.shape:
                raise InputError(
                    f"doubt[{name!r}] has the shape {found.shape}; expected {first.shape}."
                )
            orders[name] = first, found
        curves = {}
        for name, (right, found) in orders.items():
            wrong = 1 - right[np.argsort(found, kind="stable")]
            numbers = np.arange(1, len(wrong) + 1)
            curves[name] = numbers / len(wrong), wrong.cumsum() / numbers
        display = cls(curves, {name: float(risk.mean()) for name, (_, risk) in curves.items()})
        display.plot(ax)
        return display

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw on axes, or on those of a new figure."""
        ax = axes_of(ax, (4.5, 3.5))
        for (name, (coverage, risk)), line in zip(self.curves.items(), cycle(LINES), strict=False):
            label = f"{name} (area {self.areas[name]:.3f})"
            every = max(1, len(coverage) // 10)
            ax.plot(
                coverage, risk, label=label, linewidth=1.2, markersize=4, markevery=every, **line
            )
        ax.set_xlim(0, 1)
        ax.set_ylim(bottom=0)
        ax.set_xlabel("coverage: share of images that are decided")
        ax.set_ylabel("risk: share of errors among them")
        bare(ax)
        ax.legend(frameon=False)
        return ax


@dataclass(repr=False)
class ConfusionDisplay:
    """Confusion matrix: for each true class, the share of its images that each class is given.

    Attributes
    ----------
    counts : ndarray of shape (C, C)
        Number of images by true class (rows) and predicted class (columns).
    class_names : sequence of str
        Names of the C classes.
    """

    counts: NDArray[np.int64]
    class_names: Sequence[str]

    @classmethod
    def from_estimator(
        cls,
        clf: Any,
        X: Any,
        y: Any = None,
        *,
        stage: Stage = "diffusion",
        ax: "Axes | None" = None,
    ) -> Self:
        """Figure of a stage of an estimator; X and y as in ``evaluate``."""
        truth, proba = _evaluated(clf, X, y)
        if stage not in proba:
            raise InputError(f"stage is {stage!r}; the model has {list(proba)}.")
        predicted = clf.model_.decisions(proba[stage], stage)
        return cls.from_predictions(
            truth, predicted, classes=clf.classes_, class_names=clf.class_names_, ax=ax
        )

    @classmethod
    def from_predictions(
        cls,
        y_true: ArrayLike,
        y_pred: ArrayLike,
        *,
        classes: ArrayLike | None = None,
        class_names: Sequence[str] | None = None,
        ax: "Axes | None" = None,
    ) -> Self:
        """Figure of predicted labels.

        Parameters
        ----------
        y_true, y_pred : array-like of shape (n,)
        classes : array-like of shape (C,) or None
            Labels in the order of rows and columns; None: those that occur, sorted.
        class_names : sequence of str or None
            Their names; None: the labels.
        ax : Axes or None

        Raises
        ------
        InputError
            A label is not among the classes, or labels are those of a multi-label task.
        """
        from sklearn.metrics import confusion_matrix  # takes a second to import

        truth, predicted = _column(y_true), _column(y_pred)
        if truth.ndim != 1 or truth.shape != predicted.shape:
            raise InputError(
                f"y_true and y_pred have the shapes {np.shape(y_true)} and {np.shape(y_pred)}; one "
                "label an image is needed."
            )
        labels = np.union1d(truth, predicted) if classes is None else np.asarray(classes)
        _check_labels(truth, labels)
        counts = confusion_matrix(truth, predicted, labels=labels)
        display = cls(counts, list(class_names or map(str, labels.tolist())))
        display.plot(ax)
        return display

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw on axes, or on those of a new figure."""
        n = len(self.class_names)
        ax = axes_of(ax, (1.6 + 1.0 * n, 1.2 + 0.85 * n))
        totals = self.counts.sum(axis=1, keepdims=True)
        shares = self.counts / np.maximum(totals, 1)
        low, high = wilson_interval(self.counts, totals)
        ax.imshow(shares, cmap="Greys", vmin=0, vmax=1)
        for row, column in np.ndindex(n, n):
            told = f"{shares[row, column]:.2f}"
            if totals[row]:
                told += f"\n{low[row, column]:.2f}–{high[row, column]:.2f}"
            else:
                told = "–"
            colour = "white" if shares[row, column] > 0.5 else "black"
            ax.text(column, row, told, ha="center", va="center", fontsize=7, color=colour)
        ticks = np.arange(n)
        ax.set_xticks(ticks, self.class_names)
        if max(map(len, self.class_names)) > 6:
            ax.set_xticks(ticks, self.class_names, rotation=30, ha="right")
        named = zip(self.class_names, totals[:, 0], strict=True)
        ax.set_yticks(ticks, [f"{name} ({total})" for name, total in named])
        ax.set_xlabel("predicted class")
        ax.set_ylabel("true class (images)")
        return ax


def _evaluated(clf: Any, X: Any, y: Any) -> tuple[NDArray[Any], dict[str, Floats]]:
    """Labels, and probabilities of each trained stage of an estimator, the diffusion first."""
    report = clf.evaluate(X, y, n_bootstrap=0)
    return report.truth, {str(s): report.proba[s] for s in STAGES if s in report.proba}


def _named(proba: Any) -> dict[str, Floats]:
    named = proba if isinstance(proba, Mapping) else {"predictions": proba}
    return {str(name): np.asarray(p, float) for name, p in named.items()}


def _claims(y_true: ArrayLike, proba: Floats, classes: ArrayLike | None) -> tuple[Floats, Floats]:
    """Whether each prediction came true, 0 or 1, and its probability."""
    truth = _column(y_true)
    if proba.ndim != 2 or len(truth) != len(proba) or len(truth) == 0:
        raise InputError(
            f"y_true and the probabilities have the shapes {np.shape(y_true)} and {proba.shape}; "
            "give (n,) or (n, L), and (n, C)."
        )
    if truth.ndim == 2:
        known = ~np.isnan(truth.astype(float))
        return truth[known].astype(float), proba[known]
    labels = np.arange(proba.shape[1]) if classes is None else np.asarray(classes)
    _check_labels(truth, labels)
    chosen = proba.argmax(axis=1)
    return (labels[chosen] == truth).astype(float), proba.max(axis=1)


def _column(y: ArrayLike) -> NDArray[Any]:
    """Labels (n,), also from (n, 1); an indicator matrix as it is."""
    labels = np.asarray(y)
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels


def _check_labels(truth: NDArray[Any], labels: NDArray[Any]) -> None:
    unknown = np.setdiff1d(truth, labels)
    if len(unknown):
        raise InputError(
            f"y_true holds {unknown.tolist()[:10]}; the classes are {labels.tolist()[:20]}."
        )
