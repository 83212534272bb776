"""Calibration of one's own: any object that fits and predicts as scikit-learn's classifiers do."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from torch import Tensor

from ..errors import InputError, ModelFileError, PartError
from ..model.part_checks import naming, part_name
from ..tasks import Task

FLOOR = 1e-4  # least probability, so that a class that was never seen is not impossible
_SUM = 1e-3  # of probabilities of exclusive classes, farthest from 1


@runtime_checkable
class Calibrator(Protocol):
    """Mapping from logits to probabilities, fitted on held-out images.

    Before each fit it is copied (:func:`sklearn.base.clone`, or :func:`copy.deepcopy`): for each
    stage, and for each fold of the cross-fitted metrics. To be saved with a model it needs two
    more methods, ``state_dict()``, a dict of arrays or numbers, and ``load_state_dict(state)``.
    """

    def fit(self, X: NDArray[np.float64], y: NDArray[Any], sample_weight: Any = None) -> Any:
        """Fit on n images.

        Parameters
        ----------
        X : ndarray of shape (n, C) or (n, 2 C)
            Logits of the stage; for the diffusion, if the recipe is ``stacked``, followed by those
            of the prior.
        y : ndarray of shape (n,) or (n, L)
            Index of the class of each image; for multi-label the indicator matrix, with NaN for
            unknown labels.
        sample_weight : ndarray of shape (n,)
        """
        ...

    def predict_proba(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities (n, C), or of the columns that the attribute ``classes_`` lists."""
        ...


def check_calibrator(part: Any) -> None:
    """Check that an object can calibrate."""
    able = all(callable(getattr(part, name, None)) for name in ("fit", "predict_proba"))
    if part is not None and (isinstance(part, type) or not able):
        raise InputError(
            f"calibration is {part!r}; give None, or an object with fit(X, y, sample_weight) and "
            "predict_proba(X), such as sklearn.linear_model.LogisticRegression()."
        )


@dataclass(frozen=True, eq=False)
class OwnCalibration:
    """A fitted calibration of one's own, with the interface of a :class:`~.Calibration`."""

    part: Any
    task: Task
    stacked: bool = False  # whether it sees the logits of the prior, too

    gives_no_weight = False
    is_identity = False

    @classmethod
    def fit(
        cls,
        part: Any,
        logits: Tensor,
        targets: Tensor,
        task: Task,
        *,
        prior_logits: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> Self:
        """Fit a copy of ``part``; parameters are those of :meth:`Calibration.fit`."""
        copied = _copy(part)
        truth = targets.double().numpy()
        y = truth.argmax(axis=1) if task.exclusive else truth
        w = np.ones(len(y)) if weights is None else weights.double().numpy()
        with naming("calibration", part, f"cannot be fitted to {len(y)} images"):
            copied.fit(_rows(logits, prior_logits), y, sample_weight=w)
        return cls(copied, task, prior_logits is not None)

    def logits(self, logits: Tensor, prior_logits: Tensor | None = None) -> Tensor:
        """Calibrated logits (n, C), after a check of the probabilities."""
        X, (n, n_classes) = _rows(logits, prior_logits if self.stacked else None), logits.shape
        with naming("calibration", self.part, f"cannot be applied to {n} images"):
            found = np.asarray(self.part.predict_proba(X), float)
        told = f"The calibration of your own, {part_name(self.part)}, gave probabilities"
        known = getattr(self.part, "classes_", None)
        if self.task.exclusive and known is not None and found.shape == (n, len(known)):
            columns, found = found, np.zeros((n, n_classes))
            found[:, np.asarray(known, int)] = columns
        if found.shape != (n, n_classes):
            raise PartError(f"{told} of shape {found.shape}; expected is {(n, n_classes)}.")
        wrong = ~((found >= -_SUM) & (found <= 1 + _SUM)).all(axis=1)  # NaN, too
        if self.task.exclusive:
            wrong |= ~(np.abs(found.sum(axis=1) - 1) <= _SUM)
        if wrong.any():
            first = int(np.flatnonzero(wrong)[0])
            raise PartError(
                f"{told} {found[first].tolist()} for image {first}; expected are numbers in 0–1"
                + (" with the sum 1." if self.task.exclusive else ".")
            )
        return self.task.logits(torch.from_numpy(found.clip(FLOOR, 1 - FLOOR))).to(logits.device)

    def to_dict(self) -> dict[str, Any]:
        """State as plain values, for a configuration file, if the part gives it as numbers."""
        name = part_name(self.part)
        if not all(hasattr(self.part, each) for each in ("state_dict", "load_state_dict")):
            raise InputError(
                f"The calibration of your own, {name}, has no state_dict() and "
                "load_state_dict(state), so it cannot be saved. Add them, or pickle the estimator."
            )
        state = {str(key): np.asarray(value) for key, value in self.part.state_dict().items()}
        for key, value in state.items():
            if value.dtype.kind not in "biuf" or not np.isfinite(value).all():
                raise InputError(
                    f"The state of the calibration of your own, {name}, has {key!r} of the type "
                    f"{value.dtype}; give arrays of finite numbers."
                )
        plain = {key: value.tolist() for key, value in state.items()}
        return {"own": name, "stacked": self.stacked, "state": plain}

    @classmethod
    def read(cls, values: Mapping[str, Any], part: Any, task: Task) -> Self:
        """The calibration of a file, in a copy of the part that the user passes again."""
        copied = _copy(part)
        try:
            copied.load_state_dict({n: np.asarray(v) for n, v in values["state"].items()})
        except Exception as reason:  # code of the user may raise anything
            raise ModelFileError(
                f"The calibration that was passed, {part_name(part)}, does not take the state in "
                f"the file: {type(reason).__name__}: {reason}"
            ) from reason
        return cls(copied, task, values["stacked"] is True)


def _copy(part: Any) -> Any:
    return clone(part) if hasattr(part, "get_params") else copy.deepcopy(part)


def _rows(logits: Tensor, prior_logits: Tensor | None) -> NDArray[np.float64]:
    parts = [logits] if prior_logits is None else [logits, prior_logits]
    rows: NDArray[np.float64] = torch.cat(parts, dim=1).double().cpu().numpy()
    return rows
