import pytest
import torch

from diffmic.diffusion import (
    dense_guidance_map,
    distance_weights,
    expand_distances,
    guidance_by_distance,
    position_distances,
    scores_by_distance,
)


@pytest.mark.parametrize("K", [1, 2, 3, 6, 9])
def test_the_dense_map_mixes_the_priors_by_distance_to_the_diagonal(K):
    y_global, y_local = torch.randn(2, 4), torch.randn(2, 4)
    dense = dense_guidance_map(y_global, y_local, K)
    assert dense.shape == (2, K, K, 4)
    for i in range(K):
        for j in range(K):
            delta = abs(i - j) / (K - 1) if K > 1 else 0.0
            torch.testing.assert_close(dense[:, i, j], (1 - delta) * y_global + delta * y_local)


@pytest.mark.parametrize("K", [1, 2, 5, 6])
def test_the_form_by_distance_holds_the_same_map(K):
    y_global, y_local = torch.randn(2, 4), torch.randn(2, 4)
    dense = dense_guidance_map(y_global, y_local, K)
    by_distance = guidance_by_distance(y_global, y_local, K)
    torch.testing.assert_close(expand_distances(by_distance), dense, rtol=0, atol=0)
    torch.testing.assert_close(scores_by_distance(by_distance), dense.mean(dim=(1, 2)))


def test_distances_occur_as_often_as_they_weigh():
    assert (distance_weights(6) * 36).round().int().tolist() == [6, 10, 8, 6, 4, 2]
    assert distance_weights(1).tolist() == [1.0]
    assert position_distances(3).tolist() == [[0, 1, 2], [1, 0, 1], [2, 1, 0]]
