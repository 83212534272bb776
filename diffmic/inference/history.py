"""Records of a fit, with its history as rows, and of a later calibration."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .tables import data_frame


class FitHistory(list[dict[str, Any]]):
    """One row per epoch of each stage: a list of dicts that can be had as a data frame.

    A row has ``stage``, ``epoch``, ``train_loss``, with a validation part ``validation_score``,
    ``validation_nll`` and ``validation_accuracy``, and ``seconds``.
    """

    def to_frame(self) -> Any:
        """One row per epoch, as a pandas data frame; NaN where an epoch has no such value.

        Raises
        ------
        ImportError
            pandas is not installed.
        """
        return data_frame(list(self) or {"stage": [], "epoch": [], "train_loss": []})


@dataclass(frozen=True)
class FitRecord:
    """Record of the fit that produced a model.

    Attributes
    ----------
    validation_scores : dict of str to dict of str to float
        Cross-fitted metrics on the validation part for ``"prior"``, ``"diffusion"`` and
        ``"diffusion_alone"``, the diffusion without the logits of the prior. Empty without a
        validation part.
    history : FitHistory
        One row per epoch of each stage.
    versions : dict of str to str
        Versions of the packages used for the fit.
    label_counts : dict of str to dict of str to list of int
        For the ``"training"`` and the ``"validation"`` part, the number of images for which each
        class is known to be present (``"positive"``), to be absent (``"negative"``), or is
        ``"unknown"``, in the order of the classes. Empty for a model saved without them.
    """

    validation_scores: Mapping[str, dict[str, float]] = field(default_factory=dict)
    history: FitHistory = field(default_factory=FitHistory)
    versions: Mapping[str, str] = field(default_factory=dict)
    label_counts: Mapping[str, dict[str, list[int]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Recalibration:
    """Record of a calibration on other images than those of the fit.

    Attributes
    ----------
    n_images : int
        Number of images on which it was fitted.
    n_positive : list of int
        Number of them with each class.
    nll_before, nll_after : dict of str to float
        For each stage, the mean negative log-likelihood on these images by the calibration before,
        and by the new one, cross-fitted: no image is measured by a mapping that was fitted on it.
    """

    n_images: int
    n_positive: list[int]
    nll_before: Mapping[str, float]
    nll_after: Mapping[str, float]
