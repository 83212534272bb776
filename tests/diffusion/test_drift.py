"""The process of DiffMIC (v1): labels drift to the prior, and are sampled ancestrally."""

import math

import pytest
import torch

from diffmic.diffusion import (
    DriftProcess,
    NoiseSchedule,
    antithetic_timesteps,
    mmd,
    posterior,
)
from diffmic.random import LocalRNG

B, S, C = 3, 4, 5
PRIOR = torch.tensor([0.1, 0.5, 0.2, 0.1, 0.1])


def process(spacing="trailing", T=50):
    return DriftProcess(NoiseSchedule(T), timestep_spacing=spacing)


def drawn(seed=0):
    return torch.Generator().manual_seed(seed)


def knowing(of, label, guidance):
    """A denoiser that knows the label, and so the noise."""

    def denoise(y, t):
        a, s = math.sqrt(of.alpha_bar[t]), math.sqrt(1 - of.alpha_bar[t])
        return of.denoised((y - a * label - (1 - a) * guidance) / s, y, t, guidance)

    return denoise


def test_the_label_has_become_the_prior_and_noise_in_the_end():
    of, label, noise = process(T=1000), torch.eye(C)[:B], torch.randn(B, C, generator=drawn())
    guidance = PRIOR.expand(B, -1)
    start = of(label, noise, torch.zeros(B, dtype=torch.long), guidance)
    end = of(label, noise, torch.full((B,), 999), guidance)
    torch.testing.assert_close(start, label, atol=0.05, rtol=0)
    torch.testing.assert_close(end, guidance + noise, atol=0.01, rtol=0)


@pytest.mark.parametrize(("t", "s"), [(1, 0), (49, 48), (49, 20), (30, 0)])
def test_a_step_between_any_two_timesteps_is_the_posterior_of_the_forward_process(t, s):
    """Bayes' rule for Gaussians, written down anew: precision by precision."""
    of = process()
    bar_t, bar_s = of.alpha_bar[t], of.alpha_bar[s]
    alpha = bar_t / bar_s
    # y_s ~ N(√ᾱ_s y + (1 − √ᾱ_s) ŷ, 1 − ᾱ_s), y_t | y_s ~ N(√α y_s + (1 − √α) ŷ, 1 − α)
    precision = 1 / (1 - bar_s) + alpha / (1 - alpha)
    y_0, y_t, prior = 0.7, -1.3, 0.4
    mean = (
        (math.sqrt(bar_s) * y_0 + (1 - math.sqrt(bar_s)) * prior) / (1 - bar_s)
        + math.sqrt(alpha) * (y_t - (1 - math.sqrt(alpha)) * prior) / (1 - alpha)
    ) / precision
    step = posterior(bar_t, bar_s)
    found = step.gamma_0 * y_0 + step.gamma_1 * y_t + step.gamma_2 * prior
    assert found == pytest.approx(mean, abs=1e-9)
    assert step.sigma == pytest.approx(precision**-0.5, abs=1e-9)
    assert step.gamma_0 + step.gamma_1 + step.gamma_2 == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("num_steps", [1, 7, 50])
@pytest.mark.parametrize("spacing", ["trailing", "leading", "last"])
def test_sampling_ends_at_the_label_that_the_denoiser_knows(spacing, num_steps):
    of, label = process(spacing), torch.eye(C)[1]
    guidance, visited = PRIOR.expand(B, S, -1).double(), []
    sure = knowing(of, label, guidance)

    def denoise(y, t):
        visited.append(t)
        return sure(y, t)

    last, mean = of.backward(denoise, of.noise(S, 1, C, drawn()), guidance, of.timesteps(num_steps))
    assert visited == of.timesteps(num_steps)
    for found in (last, mean):
        torch.testing.assert_close(found, label.expand(B, S, -1).double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("num_steps", [5, 50])
def test_on_the_way_labels_are_as_noisy_as_in_training(num_steps):
    """Mean and spread of the forward process, on a re-spaced grid, too."""
    of, n_draws, seen = process(), 20_000, {}
    label, guidance = torch.tensor([1.0, 0.0]), torch.tensor([0.3, 0.7]).expand(1, n_draws, -1)
    sure = knowing(of, label, guidance)

    def denoise(y, t):
        seen[t] = y[0]
        return sure(y, t)

    of.backward(denoise, of.noise(n_draws, 1, 2, drawn()), guidance, of.timesteps(num_steps))
    for t, y in seen.items():
        a, s = math.sqrt(of.alpha_bar[t]), math.sqrt(1 - of.alpha_bar[t])
        torch.testing.assert_close(
            y.mean(dim=0), a * label + (1 - a) * guidance[0, 0], atol=0.03, rtol=0
        )
        torch.testing.assert_close(y.std(dim=0), torch.full((2,), s), atol=0.02, rtol=0)


def crooked(y, t):
    """A denoiser that is wrong somehow."""
    return torch.tanh(y.flip(-1)) * (1 + t / 50)


def test_a_grid_of_all_steps_is_the_whole_chain():
    found = []
    for spacing in ("trailing", "leading", "last"):
        of, guidance = process(spacing), PRIOR.expand(B, S, -1)
        assert of.timesteps(50) == list(range(49, -1, -1))
        last, _ = of.backward(
            lambda y, t, of=of, g=guidance: of.denoised(crooked(y, t), y, t, g),
            of.noise(S, 1, C, drawn()),
            guidance,
            of.timesteps(50),
        )
        found.append(last)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_the_last_steps_of_the_schedule_are_not_spread_over_it():
    assert process("last").timesteps(4) == [3, 2, 1, 0]
    with pytest.raises(ValueError, match="num_steps is 51"):
        process("last").timesteps(51)


def test_noise_is_that_of_the_timestep_whatever_others_are_visited():
    of, guidance = process(), PRIOR.expand(B, S, -1)
    noise = of.noise(S, 1, C, drawn())
    assert noise.shape == (S, 51, C)
    assert torch.equal(noise, of.noise(S, 1, C, drawn()))
    assert not torch.equal(noise, of.noise(S, 1, C, drawn(1)))

    def run(noise):
        return of.backward(
            lambda y, t: of.denoised(crooked(y, t), y, t, guidance), noise, guidance, [40, 9]
        )[0]

    usual = run(noise)
    for row, counts in ((50, True), (40, True), (9, False), (20, False)):
        other = noise.clone()
        other[:, row] += 1
        assert torch.equal(run(other), usual) is not counts, row
    assert torch.equal(usual[0], usual[1])  # the same for every image


@pytest.mark.parametrize("n_images", [1, 2, 7])
def test_antithetic_timesteps_come_in_pairs(n_images):
    with LocalRNG(0):
        found = antithetic_timesteps(n_images, 50)
    assert found.shape == (n_images,)
    assert ((found >= 0) & (found < 50)).all()
    half = (n_images + 1) // 2
    assert (found[: n_images - half] + found[half:] == 49).all()


def test_antithetic_timesteps_are_all_equally_likely():
    with LocalRNG(0):
        counts = torch.bincount(antithetic_timesteps(50_000, 5), minlength=5)
    assert (counts / 50_000 - 0.2).abs().max() < 0.01


def test_mmd_is_zero_for_equal_batches_and_grows_with_their_difference():
    x = torch.randn(20, C, generator=drawn())
    near, far = x + 0.1, x + 2
    assert mmd(x, x.flip(0)).item() == pytest.approx(0, abs=1e-6)
    assert 0 < mmd(x, near) < mmd(x, far)


def test_images_without_weight_do_not_count_in_the_mmd():
    x, y = (torch.randn(6, C, generator=drawn(seed)) for seed in (0, 1))
    weights = torch.tensor([1.0, 1, 1, 1, 0, 0])
    torch.testing.assert_close(mmd(x, y, weights), mmd(x[:4], y[:4]))
    assert torch.isfinite(mmd(x, y, torch.zeros(6)))
