"""The distance in the embeddings tells images that do not belong."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.covariance import LedoitWolf

from diffmic.inference import EmbeddingReference
from diffmic.inference.reference import N_DIRECTIONS


def embeddings(n=200, d=60, *, seed=0, rank=5, mean=1.0):
    """Positive features, mostly in a few directions."""
    rng = np.random.RandomState(seed)
    axes = np.random.RandomState(99).rand(rank, d)
    return mean + rng.rand(n, rank) @ axes + 0.05 * rng.rand(n, d)


@pytest.mark.parametrize("d", [8, 30])
def test_with_all_directions_it_is_the_distance_of_ledoit_and_wolf(d):
    rows = embeddings(d=d)
    new = embeddings(5, d=d, seed=1)
    unit, other = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (rows, new))
    expected = LedoitWolf().fit(unit).mahalanobis(other) ** 0.5
    assert_allclose(EmbeddingReference.fit(rows).distances(new), expected, rtol=1e-5)  # float32


def test_its_size_is_bounded():
    reference = EmbeddingReference.fit(embeddings(300, 100, rank=60))
    assert reference.directions.shape == (N_DIRECTIONS, 100)
    assert_allclose(reference.directions @ reference.directions.T, np.eye(N_DIRECTIONS), atol=1e-6)


def test_images_of_another_kind_are_far_and_alike_ones_are_not():
    reference = EmbeddingReference.fit(embeddings())
    alike = reference.shares_farther(reference.distances(embeddings(400, seed=1)))
    assert 0.4 < alike.mean() < 0.6  # shares of held-out images are spread evenly
    strange = np.random.RandomState(2).rand(50, 60)
    assert reference.shares_farther(reference.distances(strange)).max() == 0


@pytest.mark.parametrize("rows", [embeddings(9), np.ones((50, 4)), np.zeros((50, 4))])
def test_there_is_none_of_too_few_images_or_of_images_that_are_all_alike(rows):
    assert EmbeddingReference.fit(rows) is None


@pytest.mark.parametrize("shape", [(10, 500), (12, 2), (40, 3)])
def test_few_images_and_few_features_give_finite_distances(shape):
    reference = EmbeddingReference.fit(embeddings(*shape, rank=1))
    distances = reference.distances(embeddings(20, shape[1], seed=1, rank=1))
    assert np.isfinite(distances).all()
    assert (distances > 0).all()
