"""Losses of the denoiser: heavier, if wanted, where the prior is wrong."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .schedule import over_positions


def prior_confidence(prior_logits: Tensor, targets: Tensor, *, multilabel: bool = False) -> Tensor:
    """Probability p that the prior gives to the truth, shape (B,).

    Multi-class: Σ_c softmax(y_f)_c y_c. Multi-label: the mean over the labels of the
    probability given to each label's true value.
    """
    if multilabel:
        proba = torch.sigmoid(prior_logits)
        return (proba * targets + (1 - proba) * (1 - targets)).mean(dim=-1)
    return (prior_logits.softmax(dim=-1) * targets).sum(dim=-1)


def focal_weights(confidence: Tensor, *, alpha: float = 10.0, gamma: float = 1.0) -> Tensor:
    """w = 1 + α (1 − p)^γ, shape (B,): up to 1 + α for images that the prior gets wrong."""
    return 1 + alpha * (1 - confidence) ** gamma


def weighted_mse(predicted: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Mean over images, positions and classes of w (ŷ − y)².

    Parameters
    ----------
    predicted, target : Tensor of shape (B, ..., C)
        Output of the denoiser and what it should be (noise, v or label).
    weights : Tensor of shape (B,)
        Weight of each image.
    """
    squared = (predicted - target) ** 2
    return (over_positions(weights[:, None], squared) * squared).mean()


def weighted_cross_entropy(
    logits: Tensor, target: Tensor, weights: Tensor, *, multilabel: bool = False
) -> Tensor:
    """Mean over images and positions of w times the cross-entropy of the clean label.

    Parameters
    ----------
    logits : Tensor of shape (B, ..., C)
        Output of the denoiser.
    target : Tensor of shape (B, ..., C)
        Clean label of each position; multi-label: the mean over the labels of the binary
        cross-entropy.
    weights : Tensor of shape (B,)
        Weight of each image.
    """
    if multilabel:
        errors = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(dim=-1)
    else:
        errors = -(target * logits.log_softmax(dim=-1)).sum(dim=-1)
    return (over_positions(weights[:, None], errors[..., None])[..., 0] * errors).mean()


def focal_loss(
    predicted: Tensor,
    target: Tensor,
    prior_logits: Tensor,
    labels: Tensor,
    *,
    alpha: float = 10.0,
    gamma: float = 1.0,
    multilabel: bool = False,
) -> Tensor:
    """The loss of DiffMIC-v2: :func:`weighted_mse` with :func:`focal_weights` of the prior."""
    confidence = prior_confidence(prior_logits, labels, multilabel=multilabel)
    return weighted_mse(predicted, target, focal_weights(confidence, alpha=alpha, gamma=gamma))
