"""Loss functions of the denoisers: weighted squared errors (v2), discrepancy of noise (v1)."""

import torch
from torch import Tensor

from .schedule import over_positions


def focal_weights(confidence: Tensor, *, alpha: float = 10.0, gamma: float = 1.0) -> Tensor:
    """Focal weights w = 1 + α (1 − p)^γ, shape (B,), for the prior's confidence p in the truth."""
    return 1 + alpha * (1 - confidence) ** gamma


def weighted_mse(predicted: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Weighted squared error: mean of w (ŷ − y)² over images, positions and classes.

    Parameters
    ----------
    predicted, target : Tensor of shape (B, ..., C)
        Output of the denoiser and its target (noise, v or label).
    weights : Tensor of shape (B,)
        Weight of each image.
    """
    squared = (predicted - target) ** 2
    return (over_positions(weights[:, None], squared) * squared).mean()


def focal_loss(
    predicted: Tensor,
    target: Tensor,
    confidence: Tensor,
    *,
    alpha: float = 10.0,
    gamma: float = 1.0,
) -> Tensor:
    """Loss of DiffMIC-v2: :func:`weighted_mse` with :func:`focal_weights` of the prior.

    Parameters
    ----------
    predicted, target : Tensor of shape (B, ..., C)
        Output of the denoiser and its target.
    confidence : Tensor of shape (B,)
        Probability p that the prior gives to the true class.
    alpha, gamma : float
        α and γ of the focal weights.
    """
    return weighted_mse(predicted, target, focal_weights(confidence, alpha=alpha, gamma=gamma))


def mmd(a: Tensor, b: Tensor, weights: Tensor | None = None) -> Tensor:
    """Squared maximum mean discrepancy (MMD) of two batches of vectors; DiffMIC (v1).

    mean k(a, a) + mean k(b, b) − 2 mean k(a, b) over all pairs, the diagonals included, with the
    kernel k(x, y) = exp(−mean_c (x_c − y_c)² / C).

    Parameters
    ----------
    a, b : Tensor of shape (B, C)
    weights : Tensor of shape (B,) or None
        Weight of each image in the means; None: all equal.

    Returns
    -------
    Tensor of shape ()

    References
    ----------
    Yang et al., MICCAI 2023, "Condition-specific MMD regularization"; Gretton et al., "A Kernel
    Two-Sample Test", JMLR 2012.
    """
    weights = a.new_ones(len(a)) if weights is None else weights.to(a)
    share = weights / weights.sum().clamp_min(torch.finfo(a.dtype).tiny)

    def mean_kernel(x: Tensor, y: Tensor) -> Tensor:
        squared = (x[:, None] - y[None]).square().mean(dim=-1)
        return share @ (-squared / x.shape[-1]).exp() @ share

    return mean_kernel(a, a) + mean_kernel(b, b) - 2 * mean_kernel(a, b)
