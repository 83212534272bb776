"""The process seam: what noise does to a label, where sampling starts, how it goes back."""

import pytest
import torch

from diffmic.diffusion import (
    SAMPLERS,
    TIMESTEP_SPACINGS,
    Denoised,
    LabelMapProcess,
    NoiseSchedule,
    expand_distances,
)

S, K, C, B = 5, 6, 3, 2


def process(*, start="gaussian", timestep_spacing="trailing", sampler="ddim", T=1000):
    return LabelMapProcess(
        NoiseSchedule(T), start=start, timestep_spacing=timestep_spacing, sampler=sampler
    )


def drawn(seed):
    return torch.Generator().manual_seed(seed)


def towards(label):
    """A denoiser that is sure of a label."""
    return lambda noisy, t: Denoised(label.expand_as(noisy), torch.zeros_like(noisy))


@pytest.mark.parametrize("positions", [(4,), (K, K)])
def test_labels_are_noised_as_the_schedule_says_whatever_the_guidance(positions):
    of = process()
    label, noise = torch.eye(C)[:B], torch.randn(B, *positions, C)
    timesteps = torch.randint(1000, (B, *positions))
    expected = of.schedule.add_noise(label, noise, timesteps)
    for guidance in (torch.zeros_like(noise), torch.randn_like(noise)):
        assert torch.equal(of(label, noise, timesteps, guidance), expected)


@pytest.mark.parametrize("start", ["gaussian", "uniform"])
def test_noise_is_a_map_by_distance_for_each_draw_and_comes_from_the_generator(start):
    of = process(start=start)
    first, again, other = (of.noise(S, K, C, drawn(seed)) for seed in (0, 0, 1))
    assert first.shape == (S, K, C)
    assert first.device.type == "cpu"
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("positions", [(K,), (K, K)])
def test_every_image_starts_from_the_same_noise_in_the_type_of_its_guidance(positions):
    of = process()
    noise = torch.randn(S, *positions, C)
    guidance = torch.randn(B, S, *positions, C, dtype=torch.float64)
    start = of.start(noise, guidance)
    assert start.shape == (B, S, *positions, C)
    assert start.dtype == torch.float64
    for image in start:
        assert torch.equal(image, noise.double())


@pytest.mark.parametrize("spacing", TIMESTEP_SPACINGS)
@pytest.mark.parametrize("num_steps", [1, 3, 10])
def test_the_timesteps_are_those_of_the_spacing(spacing, num_steps):
    of = process(timestep_spacing=spacing, T=50)
    assert of.timesteps(num_steps) == TIMESTEP_SPACINGS[spacing](50, num_steps)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("num_steps", [1, 5])
def test_going_back_visits_each_timestep_once_and_ends_at_the_label(sampler, num_steps):
    of, label, visited = process(sampler=sampler), torch.eye(C)[1], []
    sure = towards(label)

    def denoise(noisy, t):
        visited.append(t)
        return sure(noisy, t)

    start = torch.randn(B, S, K, C)
    last, mean = of.backward(denoise, torch.randn(S, K, C), start, of.timesteps(num_steps))
    assert visited == of.timesteps(num_steps)
    torch.testing.assert_close(last, label.expand_as(start), atol=1e-5, rtol=0)
    torch.testing.assert_close(mean, label.expand_as(start), atol=1e-5, rtol=0)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_mean_is_that_of_the_estimates_of_all_steps(sampler):
    of, estimates = process(sampler=sampler), []

    def denoise(noisy, t):
        label = torch.full_like(noisy, t / 1000)
        estimates.append(label)
        return Denoised(label, noisy)

    _, mean = of.backward(denoise, torch.randn(S, K, C), torch.randn(B, S, K, C), of.timesteps(4))
    torch.testing.assert_close(mean, torch.stack(estimates).mean(dim=0))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_one_step_gives_its_one_estimate(sampler):
    of = process(sampler=sampler)
    label = torch.rand(C)
    last, mean = of.backward(
        towards(label), torch.randn(S, K, C), torch.randn(B, S, K, C), of.timesteps(1)
    )
    torch.testing.assert_close(last, mean, atol=1e-6, rtol=0)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("num_steps", [1, 7])
def test_going_back_by_distance_equals_the_dense_form(sampler, num_steps):
    of = process(sampler=sampler)
    weights = torch.randn(C, C, generator=drawn(0))

    def denoise(noisy, t):  # position by position, like the network
        return Denoised(torch.tanh(noisy @ weights) * (1 + t / 1000), noisy / 2)

    noise = of.noise(S, K, C, drawn(1))
    guidance = torch.randn(B, S, K, C)
    timesteps = of.timesteps(num_steps)
    by_distance = of.backward(denoise, noise, guidance, timesteps)
    in_full = of.backward(denoise, expand_distances(noise), expand_distances(guidance), timesteps)
    for ours, dense in zip(by_distance, in_full, strict=True):
        torch.testing.assert_close(expand_distances(ours), dense, atol=1e-5, rtol=0)
