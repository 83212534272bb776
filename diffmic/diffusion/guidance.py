"""The dense guidance map: both granularities of the prior, mixed by distance to the diagonal.

The map depends on |i − j| alone. The compact form of the full K × K map therefore has K entries,
one per distance, and its mean over the positions is weighted by :func:`distance_weights`.
"""

import torch
from torch import Tensor


def position_distances(n_positions: int, *, device: torch.device | None = None) -> Tensor:
    """Distances |i − j| of the cells of the K × K label map, shape (K, K)."""
    index = torch.arange(n_positions, device=device)
    return (index[:, None] - index[None, :]).abs()


def guidance_by_distance(global_prior: Tensor, local_prior: Tensor, n_positions: int) -> Tensor:
    """Guidance map by distance d: (1 − δ) y_g + δ y_l with δ = d / (K − 1).

    Parameters
    ----------
    global_prior, local_prior : Tensor of shape (B, C)
        Global prior y_g of the whole image and local prior y_l of its regions.
    n_positions : int
        K, the side of the label map.

    Returns
    -------
    Tensor of shape (B, K, C)
        Entry d is the guidance at every position at distance d from the diagonal.
    """
    distance = torch.linspace(0, 1, n_positions, dtype=global_prior.dtype)
    delta = distance.to(global_prior.device)[:, None]  # (K, 1); K = 1 gives δ = 0
    return (1 - delta) * global_prior[:, None] + delta * local_prior[:, None]


def dense_guidance_map(global_prior: Tensor, local_prior: Tensor, n_positions: int) -> Tensor:
    """Full form of the guidance map, shape (B, K, K, C); see :func:`guidance_by_distance`."""
    return expand_distances(guidance_by_distance(global_prior, local_prior, n_positions))


def expand_distances(by_distance: Tensor) -> Tensor:
    """Expand a map by distance (..., K, C) to all positions (..., K, K, C)."""
    n_positions = by_distance.shape[-2]
    return by_distance[..., position_distances(n_positions, device=by_distance.device), :]


def distance_weights(n_positions: int, *, device: torch.device | None = None) -> Tensor:
    """Fraction of the K² positions at each distance d: K of them if d = 0, else 2(K − d); (K,)."""
    distances = torch.arange(n_positions, device=device)  # a bincount would wait for a GPU
    counts = (2 * (n_positions - distances)).where(distances > 0, n_positions)
    return counts / n_positions**2


def scores_by_distance(label_map: Tensor) -> Tensor:
    """Mean over the K² positions of a map given by distance: (..., K, C) → (..., C)."""
    weights = distance_weights(label_map.shape[-2], device=label_map.device)
    return torch.einsum("...kc,k->...c", label_map, weights.to(label_map.dtype))
