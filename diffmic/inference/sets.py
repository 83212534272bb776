"""Prediction sets through MAPIE: sets of classes that hold the truth as often as asked for."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError
from ..random import imported
from ..tasks import Task
from .tables import Brief, data_frame

Floats = NDArray[np.float64]
N_LIMITS = 100  # candidates for the limit of multi-label probabilities


@dataclass(frozen=True, eq=False, repr=False)
class PredictionSets(Brief):
    """Sets of classes, returned by :meth:`DiffMICClassifier.predict_set`.

    Attributes
    ----------
    included : ndarray of bool, shape (n, C)
        Which classes are in the set of each image.
    classes : ndarray of shape (C,)
        Labels of the columns.
    coverage : float
        Coverage that was asked for.
    exclusive : bool
        Whether the classes exclude each other; not so in multi-label tasks.
    """

    included: NDArray[np.bool_]
    classes: NDArray[Any]
    coverage: float
    exclusive: bool = True

    def __len__(self) -> int:
        return len(self.included)

    def __getitem__(self, index: int) -> list[Any]:
        """Labels in the set of one image."""
        labels: list[Any] = self.classes[self.included[index]].tolist()
        return labels

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Number of classes in each set, (n,)."""
        sizes: NDArray[np.int64] = self.included.sum(axis=1)
        return sizes

    def coverage_of(self, y: ArrayLike) -> list[dict[str, Any]]:
        """Coverage measured on labels: of all images, then of those of each class.

        Parameters
        ----------
        y : array-like of shape (n,) or (n, L)
            Labels as in ``classes``, or an indicator matrix, in which NaN is an unknown label.

        Returns
        -------
        list of dict
            Keys ``class`` (None: all), ``n_images``, ``coverage``, ``low``, ``high`` (95 % binomial
            interval, Clopper and Pearson) and ``mean_size`` of the sets. Multi-label: ``coverage``
            of all is the mean share of an image's labels that are in its set, over the images that
            have labels; of a label, the share of the images with it whose set holds it.

        Raises
        ------
        InputError
            Labels are of another number or are unknown.
        """
        truth = _indicator(np.asarray(y), self)
        n_true = truth.sum(axis=1)
        some = n_true > 0
        shares = (truth & self.included).sum(axis=1)[some] / n_true[some]
        rows = [self._row(None, shares, some)]
        for c, label in enumerate(self.classes.tolist()):
            of_class = truth[:, c]
            rows.append(self._row(label, self.included[of_class, c].astype(float), of_class))
        return rows

    def _row(self, label: Any, covered: Floats, images: NDArray[np.bool_]) -> dict[str, Any]:
        n, hits = len(covered), float(covered.sum())
        beta = imported("scipy.stats").beta
        low = float(beta.ppf(0.025, hits, n - hits + 1)) if hits > 0 else 0.0
        high = float(beta.ppf(0.975, hits + 1, n - hits)) if hits < n else 1.0
        return {
            "class": label,
            "n_images": n,
            "coverage": hits / n if n else float("nan"),
            "low": low if n else float("nan"),
            "high": high if n else float("nan"),
            "mean_size": float(self.sizes[images].mean()) if n else float("nan"),
        }

    def to_frame(self) -> Any:
        """One row per image and one column per class, as a pandas data frame of booleans.

        Raises
        ------
        ImportError
            pandas is not installed.
        """
        labels = self.classes.tolist()
        return data_frame({label: self.included[:, c] for c, label in enumerate(labels)})


def true_probabilities(proba: Floats, truth: NDArray[np.bool_]) -> Floats:
    """Probabilities of the true labels of each image that has any, sorted, (n, K).

    Rows, too, are sorted, so that nothing tells which image or class they belong to; NaN fills up.
    """
    some = truth.any(axis=1)
    found = np.where(truth, proba, np.nan)[some]
    found = -np.sort(-found, axis=1)[:, : max(1, int(truth.sum(axis=1).max(initial=1)))]
    rows: Floats = found[np.lexsort(found.T[::-1])]
    return rows


def fewest_images(coverage: float) -> int:
    """Number of images from which a coverage can be had."""
    missed = 1 - coverage  # rounded as MAPIE does
    return int(np.ceil(max(1 / missed, 1 / (1 - missed))))


def included_classes(
    true_proba: Floats, proba: Floats, task: Task, coverage: float
) -> NDArray[np.bool_]:
    """Sets of classes (n, C) for probabilities (n, C), by MAPIE.

    Exclusive classes: split conformal prediction with the score 1 − p of the true class (Sadinle et
    al., 2019). Multi-label: conformal risk control of the recall (Angelopoulos et al., 2022).

    Raises
    ------
    ImportError
        MAPIE is not installed.
    """
    if task.exclusive:
        return _exclusive(true_proba[:, 0], proba, coverage)
    return _multilabel(true_proba, proba, coverage)


def _exclusive(true_proba: Floats, proba: Floats, coverage: float) -> NDArray[np.bool_]:
    mapie, n_classes = _mapie("mapie.classification"), proba.shape[1]
    # Scores do not depend on which class was the true one: classes take turns.
    y = np.arange(len(true_proba)) % n_classes
    rows = np.repeat((1 - true_proba)[:, None] / (n_classes - 1), n_classes, axis=1)
    rows[np.arange(len(y)), y] = true_proba
    conformal = mapie.SplitConformalClassifier(
        _Given(n_classes), confidence_level=coverage, conformity_score="lac", prefit=True
    ).conformalize(rows, y)
    included: NDArray[np.bool_] = conformal.predict_set(proba)[1][:, :, 0]
    return included


def _multilabel(true_proba: Floats, proba: Floats, coverage: float) -> NDArray[np.bool_]:
    mapie = _mapie("mapie.risk_control")
    known = ~np.isnan(true_proba)
    values = np.unique(true_proba[known])
    if len(values) > N_LIMITS - 1:
        values = np.quantile(values, np.linspace(0, 1, N_LIMITS - 1), method="lower")
    # Recall changes at these values alone; a label is in a set if its probability is above a limit.
    limits = np.append(0.0, np.nextafter(values, 0))
    controller = mapie.MultiLabelClassificationController(
        predict_function=lambda rows: rows,
        risk="recall",
        method="crc",
        target_level=coverage,
        predict_params=limits,
    ).calibrate(np.where(known, true_proba, 0.0), known.astype(int))
    included: NDArray[np.bool_] = controller.predict(proba)[:, :, 0].astype(bool)
    return included


def _indicator(y: NDArray[Any], sets: PredictionSets) -> NDArray[np.bool_]:
    """Which labels are known to be true, (n, C)."""
    n_classes = len(sets.classes)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    wanted = (len(sets),) if sets.exclusive else (len(sets), n_classes)
    if y.shape != wanted:
        raise InputError(f"y has shape {y.shape}; {wanted} is needed, as there are sets.")
    if not sets.exclusive:
        present: NDArray[np.bool_] = y.astype(float) == 1
        return present
    truth: NDArray[np.bool_] = y[:, None] == sets.classes[None]
    if not truth.any(axis=1).all():
        strange = list(dict.fromkeys(y[~truth.any(axis=1)].tolist()))[:10]
        raise InputError(f"y holds {strange}; the classes are {sets.classes.tolist()}.")
    return truth


def _mapie(name: str) -> Any:
    try:
        return imported(name)
    except ImportError as reason:
        raise ImportError(
            "Prediction sets need MAPIE, which is not installed: pip install 'diffmic[sets]'"
        ) from reason


class _Given:
    """Classifier for MAPIE whose input are the probabilities themselves."""

    def __init__(self, n_classes: int) -> None:
        self.classes_ = np.arange(n_classes)

    def fit(self, X: Floats, y: NDArray[Any]) -> "_Given":
        return self

    def predict_proba(self, X: Floats) -> Floats:
        return X

    def predict(self, X: Floats) -> NDArray[np.int64]:
        found: NDArray[np.int64] = X.argmax(axis=1)
        return found
