import pytest
import torch

from diffmic.diffusion import focal_loss, focal_weights, weighted_mse


def test_images_that_the_prior_gets_wrong_count_up_to_eleven_times():
    weights = focal_weights(torch.tensor([1.0, 0.5, 0.0]))
    assert weights.tolist() == [1.0, 6.0, 11.0]
    assert focal_weights(torch.tensor([0.5]), alpha=4, gamma=2).item() == 2.0


def test_the_loss_is_the_weighted_mean_over_images_positions_and_classes():
    predicted, target = torch.randn(3, 5, 2), torch.randn(3, 5, 2)
    weights = torch.tensor([1.0, 2.0, 3.0])
    by_hand = sum(
        float(weights[b]) * float((predicted[b, p, c] - target[b, p, c]) ** 2)
        for b in range(3)
        for p in range(5)
        for c in range(2)
    ) / (3 * 5 * 2)
    assert weighted_mse(predicted, target, weights).item() == pytest.approx(by_hand, rel=1e-5)


def test_without_alpha_the_focal_loss_is_the_mean_squared_error():
    predicted, target = torch.randn(4, 3, 3, 2), torch.randn(4, 3, 3, 2)
    loss = focal_loss(predicted, target, torch.rand(4), alpha=0)
    torch.testing.assert_close(loss, ((predicted - target) ** 2).mean())


def test_the_focal_loss_is_the_squared_error_under_focal_weights():
    predicted, target, confidence = torch.randn(4, 3, 2), torch.randn(4, 3, 2), torch.rand(4)
    weights = focal_weights(confidence, alpha=3.0, gamma=2.0)
    expected = weighted_mse(predicted, target, weights)
    loss = focal_loss(predicted, target, confidence, alpha=3.0, gamma=2.0)
    torch.testing.assert_close(loss, expected)
