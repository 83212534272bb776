"""Loss functions of the denoiser, with higher weights for images that the prior gets wrong."""

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
