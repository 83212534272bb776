"""Uncertainty, abstention and prediction sets of the estimator."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..conventions import is_number
from ..errors import InputError
from ..inference import (
    ConformalScores,
    Doubt,
    FittedModel,
    PredictionSets,
    Stage,
    Uncertainty,
    abstained,
    fewest_images,
    included_classes,
    true_probabilities,
    uncertainty_of,
)
from ..settings import undisturbed
from .attributes import FittedAttributes
from .parameters import check_whole, sampling_options
from .prediction import evidence_for, labelled_evidence

N_DRAWS = 32  # of predict_uncertainty: disagreement needs more draws than a mean


class Doubts(FittedAttributes):
    """Methods of the estimator that tell the doubt of its predictions."""

    _replaced: Callable[[FittedModel, FittedModel], bool]  # of Engines

    @undisturbed
    def predict_uncertainty(
        self,
        X: Any,
        *,
        num_steps: int | None = None,
        n_draws: int = N_DRAWS,
        n_views: int | None = None,
    ) -> Uncertainty:
        """Uncertainty of each prediction of the diffusion, from its draws and its embedding.

        Parameters
        ----------
        X : as in ``fit``
        num_steps, n_views : int or None
            As in :meth:`predict_proba`.
        n_draws : int, default=32
            Number of draws, at least 2: more than a prediction has, because the spread of a few
            draws is a poor estimate.

        Returns
        -------
        Uncertainty
            ``entropy``, ``mutual_information``, ``interval_width``, ``p_value``, ``distance``,
            ``farther``; ``to_frame()``, ``most_uncertain(share)``.

        Raises
        ------
        InputError, NotFittedError
            As in :meth:`predict_proba`.
        """
        model = self._trained("diffusion")
        check_whole("n_draws", n_draws, least=2)
        asked = {"num_steps": num_steps, "n_draws": n_draws, "n_views": n_views}
        evidence = evidence_for(
            model, self._parameters, X, "diffusion", asked, embeddings=True, refit=True
        )
        return uncertainty_of(model, evidence)

    @undisturbed
    def conformalize(
        self,
        X: Any,
        y: Any = None,
        *,
        num_steps: int | None = None,
        n_draws: int | None = None,
        n_views: int | None = None,
    ) -> Self:
        """Prepare :meth:`predict_set` on labelled images that the model has not seen.

        Neither training nor calibration may have seen them: the validation part of the fit has been
        used for both early stopping and calibration. A few hundred images are enough.

        Parameters
        ----------
        X, y : as in ``fit``
            For multi-label, images without any label that is known to be present are left out.
        num_steps, n_draws, n_views : int or None
            As in :meth:`predict_proba`; ``predict_set`` uses the same.

        Returns
        -------
        DiffMICClassifier
            The estimator itself. What was learnt is saved with the model.

        Raises
        ------
        InputError, NotFittedError
            X or y cannot be used; there is no fitted model.
        RuntimeError
            A fit has replaced the model meanwhile.
        """
        model, parameters = self._fitted(), self._parameters
        asked = {"num_steps": num_steps, "n_draws": n_draws, "n_views": n_views}
        options = sampling_options(model, parameters, asked)
        evidence, labels = labelled_evidence(model, parameters, X, y, model.main_stage, asked)
        truth = labels == 1 if labels.ndim == 2 else labels[:, None] == model.classes[None]
        if not truth.any():
            raise InputError("No label of any image is known to be present; pass other images.")
        scores = {
            stage: true_probabilities(model.probabilities(evidence, stage), truth)
            for stage in model.stages
        }
        doubt = replace(model.doubt or Doubt(), conformal=ConformalScores(scores, options))
        if not self._replaced(model, replace(model, doubt=doubt)):
            raise RuntimeError("The model has been replaced meanwhile; call conformalize again.")
        return self

    @undisturbed
    def predict_set(
        self, X: Any, coverage: float = 0.9, *, stage: Stage = "diffusion"
    ) -> PredictionSets:
        """Predict sets of classes that hold the true one with a given probability, through MAPIE.

        Of all sets, the share ``coverage`` holds the true class, if images are exchangeable with
        those of :meth:`conformalize`: of the same clinics, cameras and patients. This is a promise
        for all images together, not for each class. For multi-label, an image's set holds on
        average this share of its labels.

        Parameters
        ----------
        X : as in ``fit``
        coverage : float, default=0.9
            Between 0 and 1.
        stage : {"diffusion", "prior", "diffusion_alone"}
            As in :meth:`predict_proba`.

        Returns
        -------
        PredictionSets
            ``included`` (n, C); ``sets[i]`` lists labels. A set may be empty where no class is as
            probable as true ones usually are. ``coverage_of(y)`` measures coverage by class.

        Raises
        ------
        InputError
            :meth:`conformalize` has not been called, or with too few images for this coverage.
        ImportError
            MAPIE is not installed: ``pip install 'diffmic[sets]'``.
        NotFittedError
            There is no fitted model, or the stage was not trained.
        """
        model = self._trained(stage)
        conformal = conformal_scores(model, stage, coverage)
        evidence = evidence_for(model, self._parameters, X, stage, vars(conformal.sampling))
        proba = model.probabilities(evidence, stage)
        scores = conformal.true_proba[stage]
        included = included_classes(scores, proba, model.task, float(coverage))
        return PredictionSets(included, model.classes, float(coverage), model.task.exclusive)


def conformal_scores(model: FittedModel, stage: Stage, coverage: Any) -> ConformalScores:
    """What a model knows for sets of a coverage, after a check that it is enough."""
    if not _is_share(coverage) or coverage == 0:
        raise InputError(f"coverage is {coverage!r}; give a number between 0 and 1.")
    conformal = None if model.doubt is None else model.doubt.conformal
    if conformal is None or stage not in conformal.true_proba:
        raise InputError(
            "predict_set needs labelled images that neither training nor calibration has seen: "
            "call conformalize(X, y) with them first."
        )
    if len(conformal) < (fewest := fewest_images(float(coverage))):
        raise InputError(
            f"coverage is {coverage:g}, which takes at least {fewest} images; conformalize "
            f"was called with {len(conformal)}. Call it with more, or ask for less."
        )
    return conformal


def check_abstention(model: FittedModel, stage: Stage, share: Any) -> NDArray[np.float64]:
    """Quantiles of the confidences by which a share of the images is left open."""
    if not _is_share(share):
        raise InputError(f"abstain is {share!r}; give a share of the images, 0 to below 1.")
    if model.doubt is None or stage not in model.doubt.confidence:
        raise InputError(
            "abstain needs a limit for the confidence, which is learnt on held-out images: fit had "
            "no validation part, or the model was saved without it. Of given images, "
            "predict_uncertainty(X).most_uncertain(share) marks the least certain."
        )
    return model.doubt.confidence[stage]


def with_abstention(
    model: FittedModel,
    proba: NDArray[np.float64],
    predicted: NDArray[Any],
    stage: Stage,
    share: float,
    thresholds: NDArray[np.float64] | None,
) -> NDArray[Any]:
    """Decisions, (n,) or (n, L), of which the least confident share is None, or NaN.

    ``share`` is that of the held-out images of the fit on which there would be no decision; on
    other images it is about the same, if they are alike.
    """
    quantiles = check_abstention(model, stage, share)
    open_ = abstained(proba, model.task, thresholds, quantiles, float(share))
    if not model.task.exclusive:
        return np.where(open_, np.nan, predicted)
    found = predicted.astype(object)
    found[open_[:, 0]] = None
    return found


def _is_share(value: Any) -> bool:
    return is_number(value) and 0 <= float(value) < 1
