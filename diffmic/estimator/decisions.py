"""Decisions, class shares from unlabelled images, and expected grades."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, warn_user
from ..inference import PrevalenceEstimate, Stage
from ..inference.decisions import expected_position
from ..inference.prevalence import bootstrap_errors, estimated_shares
from ..settings import undisturbed
from .attributes import FittedAttributes
from .doubt import with_abstention
from .parameters import check_whole
from .populations import costs_of, prevalence_of
from .prediction import evidence_for


class Decisions(FittedAttributes):
    """Methods of the estimator on what predictions are for: class shares and grades."""

    @undisturbed
    def predict(
        self,
        X: Any,
        *,
        num_steps: int | None = None,
        n_draws: int | None = None,
        n_views: int | None = None,
        stage: Stage = "diffusion",
        prevalence: Any = None,
        costs: Any = None,
        abstain: float | None = None,
    ) -> NDArray[Any]:
        """Predict the most probable class; for multi-label, the labels that reach their threshold.

        For ordinal tasks the expected grade decides, by cut points that maximise quadratic kappa;
        two classes may have a threshold, see :meth:`tune_thresholds`.

        Parameters
        ----------
        X, num_steps, n_draws, n_views, stage, prevalence
            As in :meth:`predict_proba`, and so are errors.
        costs : array-like, DataFrame or str, optional
            Costs (C, C) of decisions (columns) where a class (row) is the truth: the smallest
            expected cost decides, and no threshold. A frame is aligned by the names of its rows and
            columns. ``"equal"``: the most probable class; ``"balanced"``: for balanced accuracy;
            ``"quadratic"``: squared distance between grades. Multi-label: (2, 2) or (L, 2, 2),
            absent before present.
        abstain : float or None
            Share of the images for which there is to be no decision, the least certain ones; for
            multi-label, of each label. The limit is such that it would be this share of the
            validation part of the fit (or of the images of :meth:`calibrate`), so that a decision
            does not depend on other images. Not together with costs.

        Returns
        -------
        ndarray of shape (n,) or (n, L)
            Labels as they were passed to :meth:`fit`, or an indicator matrix of 0 and 1. With
            ``abstain`` an array of objects, in which None is no decision; or NaN in the matrix.
        """
        model = self._trained(stage)
        shares = prevalence_of(model, prevalence, self.class_names_)
        matrix = costs_of(model, costs, self.class_names_)
        if matrix is not None and abstain is not None:
            raise InputError(
                "abstain leaves out decisions by their probability, which is not what costs decide "
                "by: give one or the other."
            )
        asked = {"num_steps": num_steps, "n_draws": n_draws, "n_views": n_views}
        evidence = evidence_for(model, self._parameters, X, stage, asked)
        proba = model.probabilities(evidence, stage, shares)
        predicted = model.decisions(proba, stage, shares, matrix)
        if abstain is None:
            return predicted
        thresholds = model.thresholds_of(stage, shares)
        return with_abstention(model, proba, predicted, stage, abstain, thresholds)

    @undisturbed
    def estimate_prevalence(
        self,
        X: Any,
        *,
        stage: Stage = "diffusion",
        n_bootstrap: int = 0,
    ) -> PrevalenceEstimate:
        """Estimate the class shares of a population from unlabelled images of it.

        Parameters
        ----------
        X : as in ``fit``
            Images drawn at random from the population.
        stage : {"diffusion", "prior"}
            Stage whose probabilities are used.
        n_bootstrap : int, default=0
            Number of resamples of the images for standard errors; 0: none are computed.

        Returns
        -------
        PrevalenceEstimate
            ``shares``, ``standard_error``, ``to_dict()``, ``to_frame()``; it can be passed as
            ``prevalence``.

        Raises
        ------
        InputError
            X or a parameter cannot be used, or the model does not know its own class shares.

        References
        ----------
        Saerens, Latinne and Decaestecker, "Adjusting the outputs of a classifier to new a priori
        probabilities", Neural Computation, 2002: expectation–maximisation. Images of a class have
        to look as those that the model was calibrated on; only their number may differ.
        """
        model = self._trained(stage)
        check_whole("n_bootstrap", n_bootstrap, least=0)
        if n_bootstrap == 1:
            raise InputError("n_bootstrap is 1; a standard error needs 2 resamples or more.")
        shares = model._known(model.shares)
        if model.calibration(stage).is_identity:
            warn_user(
                "The probabilities are not calibrated, so that class shares estimated from them "
                "may be far off. Call calibrate(X, y) with labelled images first."
            )
        evidence = evidence_for(model, self._parameters, X, stage)
        proba = model.probabilities(evidence, stage)
        exclusive = model.task.exclusive
        found, n_iterations, converged = estimated_shares(proba, shares, exclusive=exclusive)
        if not converged:
            warn_user(
                f"The class shares still changed after {n_iterations} iterations: these "
                f"{len(proba)} images hardly tell the classes apart."
            )
        errors = None
        if n_bootstrap:
            errors = bootstrap_errors(
                proba, shares, found, exclusive=exclusive, n_bootstrap=n_bootstrap, seed=model.seed
            )
        return PrevalenceEstimate(
            model.classes,
            tuple(self.class_names_),
            found,
            shares,
            errors,
            len(proba),
            n_iterations,
            converged,
        )

    @undisturbed
    def predict_grade(
        self,
        X: Any,
        *,
        num_steps: int | None = None,
        n_draws: int | None = None,
        n_views: int | None = None,
        stage: Stage = "diffusion",
        prevalence: Any = None,
    ) -> NDArray[np.float64]:
        """Expected grade of each image, (n,), for ordinal tasks: Σ_c c p(c|x).

        Parameters and errors are those of :meth:`predict_proba`.

        Returns
        -------
        ndarray of shape (n,)
            In units of the labels, where these are numbers; else positions in ``classes_``, from 0.
            P(grade ≥ c) is ``predict_proba(X)[:, c:].sum(axis=1)``.

        Raises
        ------
        InputError
            The task is not ordinal.
        """
        model = self._trained(stage)
        if model.task.name != "ordinal":
            raise InputError(
                f"The task is {model.task.name}, whose classes are no grades. Fit with "
                "task='ordinal', or with an ordered pandas categorical as y."
            )
        shares = prevalence_of(model, prevalence, self.class_names_)
        asked = {"num_steps": num_steps, "n_draws": n_draws, "n_views": n_views}
        evidence = evidence_for(model, self._parameters, X, stage, asked)
        proba = model.probabilities(evidence, stage, shares)
        if model.classes.dtype.kind in "iuf":
            values: NDArray[np.float64] = proba @ model.classes.astype(np.float64)
            return values
        return expected_position(proba)
