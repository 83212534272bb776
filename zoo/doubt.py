"""What a trained model learns about its doubt from other held-out images, without training."""

from dataclasses import replace

from torch import Tensor

from diffmic.inference import (
    Alone,
    Calibration,
    Doubt,
    EmbeddingReference,
    Evidence,
    FittedModel,
    best_thresholds,
    confidence_quantiles,
)
from diffmic.inference.decisions import kappa_cuts


def with_doubt(
    model: FittedModel, evidence: Evidence, targets: Tensor, weights: Tensor | None = None
) -> FittedModel:
    """The model with what held-out images tell of its doubt; its probabilities stay as they are.

    The calibration of the diffusion alone and the confidences of decisions are learnt anew. So is
    the reference of embeddings, if the evidence has them. Conformal scores are dropped, because
    they belong to earlier probabilities.

    Parameters
    ----------
    model : FittedModel
        Model with the calibrations that it shall have.
    evidence : Evidence
        Evidence of its last trained stage for the images.
    targets : Tensor of shape (n, C)
        One-hot or indicator targets; NaN: a label that is not known.
    weights : Tensor of shape (n,) or None
        Sample weights.
    """
    task, alone = model.task, None
    if "diffusion" in model.calibrations:
        logits = evidence.logits("diffusion", task)
        calibration = Calibration.fit(logits, targets, task, weights=weights)
        thresholds = None
        if model.thresholds_of("diffusion") is not None:  # older models of grades have none
            proba = task.probabilities(calibration.logits(logits)).numpy()
            thresholds = (
                kappa_cuts(proba) if task.exclusive else best_thresholds(targets.numpy(), proba)
            )
        alone = Alone(calibration, thresholds)
    model = replace(model, alone=alone)
    sure = {
        stage: confidence_quantiles(
            model.probabilities(evidence, stage), task, model.thresholds_of(stage)
        )
        for stage in model.stages
    }
    reference = None if model.doubt is None else model.doubt.reference
    if evidence.embeddings is not None:
        reference = EmbeddingReference.fit(evidence.embeddings.numpy())
    return replace(model, doubt=Doubt(sure, reference))
