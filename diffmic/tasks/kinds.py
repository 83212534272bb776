"""The three types of tasks, each with its probabilities, loss, decision and metrics."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ..errors import InputError
from ..random import imported
from .metrics import multiclass_metrics, multilabel_accuracy, multilabel_metrics


class Task(ABC):
    """Type of classification task, which determines how targets and logits are interpreted.

    The last dimension of logits, scores, probabilities and targets is the classes. A multi-label
    target that is not known is NaN, and has no influence on any loss or metric.

    Attributes
    ----------
    name : str
        Name in saved models and messages.
    exclusive : bool
        Whether each image has exactly one class and y one label per image; else y is an indicator
        matrix.
    ordered : bool
        Whether the classes are grades.
    has_thresholds : bool
        Whether ``fit`` chooses thresholds for the decisions: for each label on its probability, or
        between grades on the expected grade. Two exclusive classes may be given one, too.
    """

    name: ClassVar[str]
    exclusive: ClassVar[bool] = True
    ordered: ClassVar[bool] = False
    has_thresholds: ClassVar[bool] = False

    @abstractmethod
    def probabilities(self, logits: Tensor) -> Tensor:
        """Logits (..., C) → probabilities (..., C)."""

    @abstractmethod
    def logits(self, proba: Tensor) -> Tensor:
        """Probabilities → logits: an inverse of :meth:`probabilities`, for values in (0, 1)."""

    @abstractmethod
    def loss(self, logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        """Cross-entropy of each row, (..., C) → (...).

        Multi-label: binary cross-entropies over the number of labels; unknown ones add 0, so that
        every known label counts alike, whatever else is known of its image.
        """

    def training_loss(
        self,
        logits: Tensor,
        targets: Tensor,
        *,
        label_smoothing: float = 0.0,
        grade_weight: float = 0.0,
    ) -> Tensor:
        """Loss of each row for training, (..., C) → (...): the cross-entropy.

        Ordinal: ``grade_weight`` times the ranked probability score is added to it.
        """
        loss = self.loss(logits, targets, label_smoothing=label_smoothing)
        if self.ordered and grade_weight:
            loss = loss + grade_weight * ranked_probability_score(logits, targets)
        return loss

    def usual_thresholds(self, n_classes: int) -> NDArray[np.float64]:
        """Thresholds before any have been chosen: ½ for each label, or between two grades."""
        return np.full(n_classes, 0.5)

    def n_thresholds(self, n_classes: int) -> int:
        """Number of thresholds: one per label, one between each two grades, or one of a pair."""
        return n_classes if not self.exclusive else n_classes - 1

    @abstractmethod
    def confidence(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Probability of the true class, (..., C) → (...); multi-label: mean over known labels."""

    @abstractmethod
    def correct(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Whether the decision from uncalibrated logits is correct, (..., C) → (...), bool."""

    @abstractmethod
    def decide(
        self, proba: NDArray[np.float64], classes: NDArray[Any], thresholds: ArrayLike | None = None
    ) -> NDArray[Any]:
        """Predicted labels: of shape (n,), or an indicator matrix (n, L)."""

    def metrics(
        self,
        y_true: NDArray[Any],
        proba: NDArray[np.float64],
        classes: NDArray[Any],
        thresholds: ArrayLike | None = None,
        *,
        predicted: NDArray[Any] | None = None,
    ) -> dict[str, float]:
        """Metrics of probabilities (n, C) against labels (n,) or an indicator (n, L).

        ``predicted`` are the decisions; None: those of :meth:`decide` by the thresholds.
        """
        if predicted is None:
            predicted = self.decide(proba, classes, thresholds)
        if not self.exclusive:
            return multilabel_metrics(y_true, proba, predicted)
        return multiclass_metrics(y_true, proba, classes, ordered=self.ordered, predicted=predicted)

    def accuracy(
        self,
        y_true: NDArray[Any],
        predicted: NDArray[Any],
        weights: NDArray[np.float64] | None = None,
    ) -> float:
        """Fraction of the images whose label (multi-label: every known label) is right."""
        score = imported("sklearn.metrics").accuracy_score
        return float(score(y_true, predicted, sample_weight=weights))

    @abstractmethod
    def labels(self, targets: NDArray[Any], classes: NDArray[Any]) -> NDArray[Any]:
        """One-hot or indicator rows (n, C) as ``y_true`` of :meth:`metrics`."""

    @property
    @abstractmethod
    def squash(self) -> Literal["softmax", "sigmoid"]:
        """Name of the function that maps logits to probabilities."""

    def __repr__(self) -> str:
        return f"<task {self.name}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return task_named, (self.name,)  # unpickling returns the one instance of each task


class Multiclass(Task):
    """Multi-class task: each image has exactly one class."""

    name = "multiclass"
    squash = "softmax"

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.softmax(dim=-1)

    def logits(self, proba: Tensor) -> Tensor:
        return proba.log()

    def loss(self, logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        smooth = targets * (1 - label_smoothing) + label_smoothing / targets.shape[-1]
        return -(smooth * logits.log_softmax(dim=-1)).sum(dim=-1)

    def confidence(self, logits: Tensor, targets: Tensor) -> Tensor:
        return (logits.softmax(dim=-1) * targets).sum(dim=-1)

    def correct(self, logits: Tensor, targets: Tensor) -> Tensor:
        return logits.argmax(dim=-1) == targets.argmax(dim=-1)

    def decide(
        self, proba: NDArray[np.float64], classes: NDArray[Any], thresholds: ArrayLike | None = None
    ) -> NDArray[Any]:
        """The most probable class; with a threshold, of two classes the second one from it on.

        Thresholds of an ordinal task are cut points on the expected position Σ_c c p(c), of shape
        (C − 1,) or (n, C − 1); of two classes that is the probability of the second one.
        """
        if thresholds is None:
            position = proba.argmax(axis=1)
        else:
            expected = proba @ np.arange(proba.shape[1])
            position = (expected[:, None] >= np.asarray(thresholds)).sum(axis=1)
        predicted: NDArray[Any] = classes[position]
        return predicted

    def labels(self, targets: NDArray[Any], classes: NDArray[Any]) -> NDArray[Any]:
        found: NDArray[Any] = classes[targets.argmax(axis=1)]
        return found


class Ordinal(Multiclass):
    """Ordinal task: exclusive classes that are grades, in the order of ``classes_``.

    Probabilities are a softmax, so that the cumulative ones P(grade ≤ c) rise with c whatever the
    logits are. Decisions are made by cut points on the expected grade.
    """

    name = "ordinal"
    ordered = True
    has_thresholds = True

    def usual_thresholds(self, n_classes: int) -> NDArray[np.float64]:
        return np.arange(n_classes - 1, dtype=np.float64) + np.float64(0.5)


def ranked_probability_score(logits: Tensor, targets: Tensor) -> Tensor:
    """Ranked probability score of each row, (..., C) → (...): Σ_c (P(grade ≤ c) − 1[y ≤ c])².

    A proper score, in which a wrong grade costs more the further it is from the true one (Epstein,
    1969).
    """
    apart = (logits.softmax(dim=-1) - targets).cumsum(dim=-1)[..., :-1]
    return apart.square().sum(dim=-1)


def known_labels(targets: Tensor) -> tuple[Tensor, Tensor]:
    """Which targets are known, and the targets with 0 for those that are not (NaN)."""
    known = ~targets.isnan()
    return known, torch.where(known, targets, 0.0)


def known_shares(targets: Tensor) -> Tensor:
    """Share of the labels of each image that are known, (n,), float64; 1 for exclusive classes."""
    return (~targets.isnan()).double().mean(dim=1)


def class_shares(targets: Tensor, weights: Tensor, task: Task) -> Tensor:
    """Share of each class among images, by their weights: (C,), float64.

    Multi-label: among the images for which the label is known; NaN if it is for none.
    """
    weighted = weights.double()[:, None] * (~targets.isnan()).double()
    shares = (weighted * targets.double().nan_to_num()).sum(dim=0) / weighted.sum(dim=0)
    return shares / shares.sum() if task.exclusive else shares


def learnt(targets: Tensor) -> Tensor:
    """Of which classes there are images, and images without them: (C,), bool."""
    known = (~targets.isnan()).sum(dim=0)
    positive = targets.nansum(dim=0)
    return (positive > 0) & (positive < known)


class Multilabel(Task):
    """Multi-label task: each image has any number of independent labels."""

    name = "multilabel"
    squash = "sigmoid"
    exclusive = False
    has_thresholds = True

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()

    def logits(self, proba: Tensor) -> Tensor:
        return torch.logit(proba)

    def loss(self, logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        known, targets = known_labels(targets)
        smooth = targets * (1 - label_smoothing) + label_smoothing / 2
        errors = F.binary_cross_entropy_with_logits(
            logits, smooth.expand_as(logits), reduction="none"
        )
        return torch.where(known, errors, 0.0).mean(dim=-1)

    def confidence(self, logits: Tensor, targets: Tensor) -> Tensor:
        known, targets = known_labels(targets)
        proba = logits.sigmoid()
        right = torch.where(known, proba * targets + (1 - proba) * (1 - targets), 0.0)
        return right.sum(dim=-1) / known.sum(dim=-1).clamp_min(1)

    def correct(self, logits: Tensor, targets: Tensor) -> Tensor:
        return (((logits > 0) == (targets > 0.5)) | targets.isnan()).all(dim=-1)

    def decide(
        self, proba: NDArray[np.float64], classes: NDArray[Any], thresholds: ArrayLike | None = None
    ) -> NDArray[Any]:
        return (proba >= np.asarray(0.5 if thresholds is None else thresholds)).astype(int)

    def accuracy(
        self,
        y_true: NDArray[Any],
        predicted: NDArray[Any],
        weights: NDArray[np.float64] | None = None,
    ) -> float:
        return multilabel_accuracy(y_true, predicted, weights)

    def labels(self, targets: NDArray[Any], classes: NDArray[Any]) -> NDArray[Any]:
        return targets if np.isnan(targets).any() else targets.astype(int)


MULTICLASS, MULTILABEL, ORDINAL = Multiclass(), Multilabel(), Ordinal()
TASKS: dict[str, Task] = {task.name: task for task in (MULTICLASS, MULTILABEL, ORDINAL)}


def task_named(name: str) -> Task:
    """Task with the given name."""
    if name not in TASKS:
        raise InputError(f"task is {name!r}; give one of {list(TASKS)}.")
    return TASKS[name]
