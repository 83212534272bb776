"""Metrics, embeddings and explanations of the estimator."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin

from ..data.splits import group_numbers
from ..data.weights import sample_weights
from ..inference import EvaluationReport, Explanation, Stage, explain
from ..model import Conditions
from ..settings import undisturbed
from .attributes import FittedAttributes
from .parameters import check_whole, sampling_options
from .populations import costs_of, prevalence_of
from .prediction import conditions_for, labelled_evidence


class Results(
    FittedAttributes,
    ClassNamePrefixFeaturesOutMixin,  # type: ignore[misc]
    TransformerMixin,  # type: ignore[misc]
):
    """Methods of the estimator beside fit and predict: score, evaluate, transform, explain."""

    predict_proba: Any

    def predict_log_proba(
        self,
        X: Any,
        *,
        num_steps: int | None = None,
        n_draws: int | None = None,
        n_views: int | None = None,
        stage: Stage = "diffusion",
        prevalence: Any = None,
    ) -> NDArray[np.float64]:
        """Logarithms of the probabilities; parameters and errors as in :meth:`predict_proba`.

        Returns
        -------
        ndarray of shape (n, C)
            Natural logarithms; −∞ where a probability is 0.
        """
        proba = self.predict_proba(
            X,
            num_steps=num_steps,
            n_draws=n_draws,
            n_views=n_views,
            stage=stage,
            prevalence=prevalence,
        )
        with np.errstate(divide="ignore"):
            logarithms: NDArray[np.float64] = np.log(proba)
        return logarithms

    @undisturbed
    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Accuracy, as in :meth:`evaluate`; multi-label: images with all known labels right.

        Parameters
        ----------
        X, y : as in ``fit``
        sample_weight : array-like of shape (n,) or None
        """
        model = self._trained("diffusion")
        evidence, truth = labelled_evidence(
            model, self._parameters, X, y, "diffusion", sample_weight=sample_weight, others=True
        )
        weights = None if sample_weight is None else sample_weights(sample_weight, len(truth))
        predicted = model.decisions(model.probabilities(evidence, "diffusion"), "diffusion")
        return model.task.accuracy(truth, predicted, weights)

    @undisturbed
    def evaluate(
        self,
        X: Any,
        y: Any = None,
        *,
        groups: Any = None,
        n_bootstrap: int = 1000,
        num_steps: int | None = None,
        n_draws: int | None = None,
        n_views: int | None = None,
        prevalence: Any = None,
        costs: Any = None,
    ) -> EvaluationReport:
        """Report with every metric of prior, diffusion, and diffusion without the prior's logits.

        Parameters
        ----------
        X, y : as in ``fit``
        groups : array-like of shape (n,) or None
            Group of each image, such as its patient: intervals then resample whole groups.
        n_bootstrap : int, default=1000
            Number of resamples for the 95 % intervals; 0: none.
        num_steps, n_draws, n_views, prevalence, costs
            As in :meth:`predict`; probabilities and decisions are those that it gives with them.

        Returns
        -------
        EvaluationReport
            A mapping: ``report["diffusion"]["auc"]``. ``measured`` gives a metric with its
            interval, ``difference`` that of two stages; ``to_frame`` and ``to_markdown`` all of
            them, overall and for each class. Intervals are computed when they are asked for.

        Raises
        ------
        InputError, NotFittedError
            X, y, groups or a number cannot be used; there is no fitted model.
        """
        model = self._fitted()
        check_whole("n_bootstrap", n_bootstrap, least=0)
        shares = prevalence_of(model, prevalence, self.class_names_)
        matrix = costs_of(model, costs, self.class_names_)
        asked = {"num_steps": num_steps, "n_draws": n_draws, "n_views": n_views}
        units = None if groups is None else group_numbers(groups)
        evidence, truth = labelled_evidence(
            model, self._parameters, X, y, model.main_stage, asked, groups=groups
        )
        thresholds = {stage: model.thresholds_of(stage, shares) for stage in model.stages}
        proba = {str(s): model.probabilities(evidence, s, shares) for s in model.stages}
        decided: dict[str, NDArray[Any]] = {}
        if matrix is not None:
            decided = {str(s): model.decisions(proba[s], s, shares, matrix) for s in model.stages}
        return EvaluationReport(
            truth=truth,
            proba=proba,
            decided=decided,
            thresholds={s: values for s, values in thresholds.items() if values is not None},
            classes=model.classes,
            class_names=tuple(self.class_names_),
            task=model.task,
            groups=units,
            n_bootstrap=n_bootstrap,
        )

    @undisturbed
    def transform(self, X: Any) -> NDArray[np.float32]:
        """Embeddings: pooled features (n, D) of the image encoder, without test-time views.

        ``set_output(transform="pandas")`` or ``"polars"`` makes it return a data frame, whose
        columns ``get_feature_names_out()`` names.
        """
        batches = conditions_for(self._fitted(), self._parameters, X)
        return torch.cat([c.image_features.cpu() for c, _ in batches]).numpy()

    @property
    def _n_features_out(self) -> int:
        """Number of columns of the embeddings, which ``get_feature_names_out`` names."""
        network = self.network_
        return (network.image_encoder or network.prior.backbone).channels

    @undisturbed
    def explain(
        self, X: Any, *, num_steps: int | None = None, n_draws: int | None = None
    ) -> Explanation:
        """Saliency, regions, opinions of the prior, and how the label map is denoised.

        Without test-time views.

        Parameters
        ----------
        X : as in ``fit``
        num_steps, n_draws : int or None
            As in :meth:`predict_proba`.

        Returns
        -------
        Explanation
            ``saliency`` (n, C, h, w), ``boxes`` (n, K, 4) in pixels of the images as they were
            passed, ``attention`` (n, K), uncalibrated ``global_proba`` and ``local_proba`` (n, C),
            and the label maps of each step.
        """
        model, parameters = self._fitted(), self._parameters
        asked = {"num_steps": num_steps, "n_draws": n_draws}
        options = sampling_options(model, parameters, asked)
        noise = model.noise(options.n_draws) if "diffusion" in model.calibrations else None
        seen, sizes, maps = [], [], []
        for conditions, size in conditions_for(model, parameters, X):
            seen.append(conditions)
            sizes.append(size)
            if noise is not None:
                maps.append(model.engine.path(conditions, noise, num_steps=options.num_steps))
        noisy, clean = map(torch.cat, zip(*maps, strict=True)) if maps else (None, None)
        return explain(
            Conditions.cat(seen), torch.cat(sizes), model.task, model.crop, noisy=noisy, clean=clean
        )
