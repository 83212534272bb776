"""How far an image lies from the held-out images, in the embeddings of the encoder."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..random import imported

Floats = NDArray[np.float64]
N_DIRECTIONS = 32  # of largest variance, that are kept; the others share one variance
FEWEST = 10  # images from which a covariance is estimated
LEVELS = np.linspace(0, 1, 101)  # of the quantiles that are kept
_FOLDS = 5


@dataclass(frozen=True, eq=False)
class EmbeddingReference:
    """Mean and covariance of the embeddings of held-out images.

    The distance of an image is Mahalanobis', d² = (z − μ)ᵀ Σ⁻¹ (z − μ), of its embedding of unit
    length, z = e / ‖e‖ (Lee et al., NeurIPS 2018). Σ is estimated with the shrinkage of Ledoit and
    Wolf (2004), and is kept by its directions of largest variance, Σ = V diag(v − r) Vᵀ + r I, so
    that its size is bounded whatever the number of images.

    Attributes
    ----------
    mean : ndarray of shape (D,)
        μ.
    directions : ndarray of shape (k, D)
        Vᵀ, orthonormal rows, rounded to float32.
    variances : ndarray of shape (k + 1,)
        v, and last r, the variance of every other direction.
    held_out : ndarray of shape (101,)
        Quantiles of the distances of held-out images, each measured from the others (cross-fitted).
    """

    mean: Floats
    directions: Floats
    variances: Floats
    held_out: Floats

    @classmethod
    def fit(cls, embeddings: NDArray[np.floating]) -> Self | None:
        """Reference of embeddings (n, D); None of fewer than 10 images, or if all are the same."""
        rows = _unit(embeddings)
        if len(rows) < FEWEST or not np.ptp(rows, axis=0).any():
            return None
        folds = np.arange(len(rows)) % _FOLDS
        held_out = np.empty(len(rows))
        for fold in range(_FOLDS):
            inside = folds == fold
            held_out[inside] = _distances(rows[inside], *_covariance(rows[~inside]))
        return cls(*_covariance(rows), np.quantile(held_out, LEVELS))

    def distances(self, embeddings: NDArray[np.floating]) -> Floats:
        """Distances (n,) of embeddings (n, D)."""
        return _distances(_unit(embeddings), self.mean, self.directions, self.variances)

    def shares_farther(self, distances: Floats) -> Floats:
        """Share of the held-out images that are farther away, (n,): 0 beyond all of them."""
        shares: Floats = 1 - np.interp(distances, self.held_out, LEVELS)
        return shares


def _unit(embeddings: NDArray[np.floating]) -> Floats:
    rows = np.asarray(embeddings, np.float64)
    lengths: Floats = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.maximum(lengths, np.finfo(np.float64).tiny)


def _covariance(rows: Floats) -> tuple[Floats, Floats, Floats]:
    """Mean, directions and variances of rows (n, D)."""
    n, d = rows.shape
    mean = rows.mean(axis=0)
    shrinkage = imported("sklearn.covariance").ledoit_wolf_shrinkage(rows)
    _, singular, directions = np.linalg.svd(rows - mean, full_matrices=False)
    k = max(1, min(N_DIRECTIONS, n - 1, d - 1))
    total = float((singular**2).sum()) / n
    largest = (1 - shrinkage) * singular[:k] ** 2 / n + shrinkage * total / d
    rest = max(total - float(largest.sum()), 0.0) / (d - k)
    least = max(total, 1e-12) / d * 1e-6  # rows in a subspace have directions of no variance
    # As precise as they are stored, so that a loaded model has the same ones.
    directions = directions[:k].astype(np.float32).astype(np.float64)
    return mean, directions, np.maximum(np.append(largest, rest), least)


def _distances(rows: Floats, mean: Floats, directions: Floats, variances: Floats) -> Floats:
    apart = rows - mean
    along = apart @ directions.T
    beside = np.maximum((apart**2).sum(axis=1) - (along**2).sum(axis=1), 0)
    found: Floats = np.sqrt((along**2 / variances[:-1]).sum(axis=1) + beside / variances[-1])
    return found
