import pytest
import torch
from diffusers import DDIMScheduler

from diffmic.diffusion import NoiseSchedule, leading_timesteps, trailing_timesteps


def test_leading_timesteps_never_visit_the_last_one_and_end_at_zero():
    assert leading_timesteps(1000, 4) == [750, 500, 250, 0]
    assert leading_timesteps(1000, 1) == [0]


def test_trailing_timesteps_start_at_the_last_one():
    assert trailing_timesteps(1000, 4) == [999, 749, 499, 249]
    assert trailing_timesteps(1000, 1) == [999]


@pytest.mark.parametrize("n", [1, 2, 3, 7, 10, 50, 999, 1000])
@pytest.mark.parametrize(
    ("ours", "spacing"), [(leading_timesteps, "leading"), (trailing_timesteps, "trailing")]
)
def test_timesteps_are_those_of_diffusers(n, ours, spacing):
    scheduler = DDIMScheduler(timestep_spacing=spacing, steps_offset=0)
    scheduler.set_timesteps(n)
    assert ours(1000, n) == scheduler.timesteps.tolist()[:n]


@pytest.mark.parametrize("spacing", [leading_timesteps, trailing_timesteps])
@pytest.mark.parametrize("n", [0, -1, 1001])
def test_more_steps_than_the_schedule_has_or_none_are_errors(spacing, n):
    with pytest.raises(ValueError, match=f"num_steps is {n}.*1000"):
        spacing(1000, n)


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


@pytest.mark.parametrize("T", [10, 20, 50, 250, 1000])
def test_the_last_timestep_is_almost_pure_noise_however_many_there_are(T):
    schedule = NoiseSchedule(T)
    assert 0 < schedule.signal[-1] < 0.01
    assert schedule.noise[-1] > 0.9999


@pytest.mark.parametrize("T", [1, 2, 10, 20, 50, 250, 1000, 4000])
def test_every_level_is_finite_and_positive_and_falls_with_time(T):
    schedule = NoiseSchedule(T)
    for table in (schedule.betas, schedule.alphas_cumprod, schedule.signal, schedule.noise):
        assert table.shape == (T,)
        assert table.isfinite().all()
        assert (table > 0).all()
    assert (schedule.betas < 1).all()
    assert (schedule.alphas_cumprod.diff() < 0).all()


def test_with_1000_timesteps_the_variances_are_the_published_ones():
    expected = torch.linspace(1e-4, 2e-2, 1000, dtype=torch.float64)
    schedule = NoiseSchedule(1000, dtype=torch.float64)
    assert torch.equal(schedule.betas, expected)
    assert torch.equal(schedule.alphas_cumprod, (1 - expected).cumprod(dim=0))


def test_fewer_timesteps_hold_as_much_label_at_the_same_share_of_the_way():
    fine, coarse = NoiseSchedule(1000, dtype=torch.float64), NoiseSchedule(250, dtype=torch.float64)
    for t in range(24, 250, 25):
        assert coarse.signal[t] == pytest.approx(float(fine.signal[4 * t + 3]), abs=0.01)
