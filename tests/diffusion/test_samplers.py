import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

from diffmic.diffusion import (
    PARAMETERIZATIONS,
    SAMPLERS,
    TIMESTEP_SPACINGS,
    NoiseSchedule,
    ddim,
    dpm_solver_pp_2m,
    trailing_timesteps,
)

PREDICTION_TYPES = {"noise": "epsilon", "v": "v_prediction", "label": "sample"}


def random_model(seed=0):
    """A smooth, arbitrary function of the noisy map and the timestep."""
    weights = torch.randn(3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return lambda y, t: torch.tanh(y @ weights) * (1 + t / 1000)


def denoiser(model, name, schedule):
    return lambda y, t: PARAMETERIZATIONS[name].denoised(
        model(y, t), y, schedule.signal[t], schedule.noise[t]
    )


def start():
    return torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("name", PREDICTION_TYPES)
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("n", [1, 4, 10])  # the reference needs an even spacing
def test_ddim_agrees_with_diffusers(name, spacing, n):
    schedule, model = NoiseSchedule(dtype=torch.float64), random_model()
    reference = DDIMScheduler(
        beta_start=1e-4,
        beta_end=2e-2,
        timestep_spacing=spacing,
        prediction_type=PREDICTION_TYPES[name],
        clip_sample=True,
    )
    reference.alphas_cumprod = schedule.alphas_cumprod  # its own are float32
    reference.final_alpha_cumprod = torch.ones((), dtype=torch.float64)
    reference.set_timesteps(n)
    timesteps = TIMESTEP_SPACINGS[spacing](1000, n)
    y = expected = start()
    for t in timesteps:
        expected = reference.step(model(expected, t), t, expected).prev_sample
    y = ddim(denoiser(model, name, schedule), y, schedule, timesteps)
    torch.testing.assert_close(y, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("n", [2, 5, 10, 20])
def test_dpm_solver_agrees_with_diffusers(n):
    schedule, model = NoiseSchedule(dtype=torch.float64), random_model()
    reference = DPMSolverMultistepScheduler(
        beta_start=1e-4,
        beta_end=2e-2,
        solver_order=2,
        algorithm_type="dpmsolver++",
        timestep_spacing="trailing",
        final_sigmas_type="zero",
        lower_order_final=True,
    )
    reference.set_timesteps(n)
    timesteps = reference.timesteps.tolist()
    expected = start()
    for t in reference.timesteps:
        expected = reference.step(model(expected, int(t)), t, expected).prev_sample
    y = dpm_solver_pp_2m(
        denoiser(model, "noise", schedule), start(), schedule, timesteps, clip=None
    )
    torch.testing.assert_close(y, expected.to(y), atol=2e-4, rtol=2e-4)


def gaussian_error(sampler, n, spread=0.3):
    """Error of a sampler for labels N(0, spread²), whose flow is known: y scales as its spread."""
    schedule = NoiseSchedule(dtype=torch.float64)
    variance = (schedule.signal * spread) ** 2 + schedule.noise**2

    def denoise(y, t):
        """The posterior mean of label and noise."""
        a, s = schedule.signal[t], schedule.noise[t]
        label = a * spread**2 / variance[t] * y
        return PARAMETERIZATIONS["label"].denoised(label, y, a, s)

    y = start()
    # Down to a step above 0, where the step to ᾱ = 1 is still of the first order.
    timesteps = torch.linspace(900, 100, n + 1).round().int().tolist()
    seen = []
    sampler(denoise, y, schedule, timesteps, clip=None, callback=lambda t, y, d: seen.append(y))
    exact = y * (variance[timesteps[-1]] / variance[timesteps[0]]).sqrt()
    return float((seen[-1] - exact).abs().max())


def test_dpm_solver_converges_with_second_order_and_ddim_with_first():
    ratios = {
        sampler.__name__: gaussian_error(sampler, 40) / gaussian_error(sampler, 80)
        for sampler in (ddim, dpm_solver_pp_2m)
    }
    assert ratios["ddim"] == pytest.approx(2, rel=0.15)
    assert ratios["dpm_solver_pp_2m"] == pytest.approx(4, rel=0.25)
    assert gaussian_error(dpm_solver_pp_2m, 40) < gaussian_error(ddim, 40) / 5


@pytest.mark.parametrize("sampler", SAMPLERS.values())
def test_a_denoiser_that_knows_the_label_is_believed(sampler):
    schedule, label = NoiseSchedule(), torch.eye(3)[[0, 2]]

    def denoise(y, t):
        a, s = schedule.signal[t], schedule.noise[t]
        return PARAMETERIZATIONS["label"].denoised(label[:, None].expand_as(y), y, a, s)

    for n in (1, 2, 10):
        y = sampler(denoise, torch.randn(2, 4, 3), schedule, trailing_timesteps(1000, n))
        torch.testing.assert_close(y, label[:, None].expand(2, 4, 3), atol=1e-5, rtol=0)


@pytest.mark.parametrize("sampler", SAMPLERS.values())
def test_labels_are_clipped_unless_told_otherwise(sampler):
    schedule = NoiseSchedule()

    def denoise(y, t):
        a, s = schedule.signal[t], schedule.noise[t]
        return PARAMETERIZATIONS["label"].denoised(torch.full_like(y, 3.0), y, a, s)

    def run(**options):
        return sampler(denoise, torch.randn(1, 1, 2), schedule, [999, 499], **options)

    torch.testing.assert_close(run(), torch.full((1, 1, 2), 1.0))
    torch.testing.assert_close(run(clip=None), torch.full((1, 1, 2), 3.0))
