import pytest
import torch
from diffusers import DDIMScheduler

from diffmic.diffusion import NoiseSchedule, leading_timesteps, trailing_timesteps


def test_the_leading_grid_never_visits_the_last_step_and_ends_at_zero():
    assert leading_timesteps(1000, 4) == [750, 500, 250, 0]
    assert leading_timesteps(1000, 1) == [0]


def test_the_trailing_grid_starts_at_the_last_step():
    assert trailing_timesteps(1000, 4) == [999, 749, 499, 249]
    assert trailing_timesteps(1000, 1) == [999]


@pytest.mark.parametrize("n", [1, 2, 3, 7, 10, 50, 999, 1000])
@pytest.mark.parametrize(
    ("grid", "spacing"), [(leading_timesteps, "leading"), (trailing_timesteps, "trailing")]
)
def test_grids_are_those_of_diffusers(n, grid, spacing):
    scheduler = DDIMScheduler(timestep_spacing=spacing, steps_offset=0)
    scheduler.set_timesteps(n)
    assert grid(1000, n) == scheduler.timesteps.tolist()[:n]


@pytest.mark.parametrize("grid", [leading_timesteps, trailing_timesteps])
@pytest.mark.parametrize("n", [0, -1, 1001])
def test_more_steps_than_the_schedule_has_or_none_are_errors(grid, n):
    with pytest.raises(ValueError, match=f"num_steps is {n}.*1000"):
        grid(1000, n)


def test_tables_follow_device_and_dtype_and_are_not_saved():
    schedule = NoiseSchedule(100).double()
    assert schedule.signal.dtype == torch.float64
    assert not schedule.state_dict()
    torch.testing.assert_close(schedule.signal**2 + schedule.noise**2, torch.ones(100).double())


def test_each_position_gets_its_own_timestep():
    schedule = NoiseSchedule()
    label, noise = torch.eye(3)[:2], torch.randn(2, 4, 3)
    timesteps = torch.tensor([[0, 10, 500, 999], [999, 3, 2, 1]])
    noisy = schedule.add_noise(label, noise, timesteps)
    for b in range(2):
        for p in range(4):
            a = schedule.alphas_cumprod[timesteps[b, p]]
            expected = a.sqrt() * label[b] + (1 - a).sqrt() * noise[b, p]
            torch.testing.assert_close(noisy[b, p], expected)
