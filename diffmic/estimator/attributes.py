"""Fitted attributes of the estimator: read-only views of ``model_``."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import NotFittedError

from ..errors import InputError
from ..inference import STAGES, AnyCalibration, FitHistory, FittedModel, Recalibration, Stage
from ..model import DiffMICNetwork
from ..tasks import Task
from .class_names import display_names


class FittedAttributes:
    """Attributes that exist once the estimator has a ``model_``."""

    model_: FittedModel
    get_params: Any  # of BaseEstimator

    @property
    def _parameters(self) -> Mapping[str, Any]:
        """Constructor parameters of the estimator."""
        parameters: Mapping[str, Any] = self.get_params(deep=False)
        return parameters

    def _fitted(self) -> FittedModel:
        """The fitted model; each prediction reads it once and uses the same model throughout."""
        model: FittedModel | None = vars(self).get("model_")
        if model is None:
            raise NotFittedError(
                f"This {type(self).__name__} instance is not fitted yet. Call 'fit' with "
                "appropriate arguments, or load a model with 'from_pretrained', first."
            )
        return model

    def _trained(self, stage: Stage) -> FittedModel:
        """The fitted model, after a check that the stage was trained."""
        model = self._fitted()
        if stage not in (*STAGES, "diffusion_alone"):
            raise InputError(f"stage is {stage!r}; give one of {(*STAGES, 'diffusion_alone')}.")
        if stage == "diffusion_alone" and "diffusion" in model.calibrations and not model.alone:
            raise NotFittedError(
                "The model was saved without a calibration of the diffusion alone. Call fit, or "
                "use stage='diffusion'."
            )
        if stage not in model.stages:
            raise NotFittedError(
                "Training stopped before the diffusion stage had learnt anything. Use "
                "stage='prior' for the probabilities of the prior, or call fit again."
            )
        return model

    @property
    def classes_(self) -> NDArray[Any]:
        """Class labels as passed to ``fit``; for multi-label, the column indices; shape (C,)."""
        return self._fitted().classes

    @property
    def class_names_(self) -> list[str]:
        """Names of the classes, in the order of ``classes_``; labels without a name are as text.

        Those of the parameter ``class_names``, else those that came along with the training data.
        """
        model = self._fitted()
        names = display_names(model, vars(self).get("class_names"))
        return list(names or map(str, model.classes.tolist()))

    @property
    def task_(self) -> Task:
        """Type of the task: ``task_.name`` is "multiclass", "multilabel" or "ordinal"."""
        return self._fitted().task

    @property
    def network_(self) -> DiffMICNetwork:
        """The trained network; predictions run it through the engine made by :meth:`compile`."""
        return self._fitted().network

    @property
    def image_size_(self) -> int:
        """Side of the network's input, in pixels."""
        return self._fitted().image_size

    @property
    def channels_(self) -> int:
        """Number of channels of the training images, 1 or 3; separates colour and gray arrays."""
        return self._fitted().channels

    @property
    def calibrations_(self) -> Mapping[Stage, AnyCalibration]:
        """Calibration of each trained stage: maps logits to probabilities."""
        return self._fitted().calibrations

    @property
    def thresholds_(self) -> Mapping[Stage, NDArray[np.float64]]:
        """Decision thresholds of each stage; see :class:`diffmic.inference.FittedModel`."""
        return self._fitted().thresholds

    @property
    def shares_(self) -> NDArray[np.float64] | None:
        """Class shares of the population for which the probabilities hold, (C,); None: unknown."""
        return self._fitted().shares

    @property
    def recalibration_(self) -> Recalibration | None:
        """Record of :meth:`calibrate`; None: the calibration is that of the fit."""
        return self._fitted().recalibration

    @property
    def label_counts_(self) -> Mapping[str, dict[str, list[int]]]:
        """Numbers of images of each class, by part: ``positive``, ``negative`` and ``unknown``."""
        return self._fitted().record.label_counts

    @property
    def validation_scores_(self) -> Mapping[str, dict[str, float]]:
        """Cross-fitted validation metrics of ``prior``, ``diffusion`` and ``diffusion_alone``."""
        return self._fitted().record.validation_scores

    @property
    def history_(self) -> FitHistory:
        """One row per epoch of each stage: training loss, validation metrics, seconds."""
        return self._fitted().record.history

    @property
    def versions_(self) -> Mapping[str, str]:
        """Versions of the packages that the model was fitted with."""
        return self._fitted().record.versions

    @property
    def seed_(self) -> int:
        """Integer seed derived from ``random_state``."""
        return self._fitted().seed
