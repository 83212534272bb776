import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffmic.diffusion import PARAMETERIZATIONS, NoiseSchedule

INVERSE = ("noise", "v", "label")


@pytest.mark.parametrize("name", INVERSE)
@given(t=st.integers(0, 999), seed=st.integers(0, 2**31))
def test_the_right_output_gives_back_label_and_noise(name, t, seed):
    schedule = NoiseSchedule(dtype=torch.float64)
    draw = torch.Generator().manual_seed(seed)
    label, noise = torch.randn(2, 3, 4, generator=draw, dtype=torch.float64)
    a, s = schedule.signal[t], schedule.noise[t]
    target = PARAMETERIZATIONS[name].target(label, noise, a, s)
    denoised = PARAMETERIZATIONS[name].denoised(target, a * label + s * noise, a, s)
    torch.testing.assert_close(denoised.label, label, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(denoised.noise, noise, atol=1e-9, rtol=1e-9)


def test_the_targets_are_noise_velocity_and_label():
    label, noise, a, s = map(torch.tensor, (2.0, 5.0, 0.8, 0.6))
    targets = {n: PARAMETERIZATIONS[n].target(label, noise, a, s).item() for n in INVERSE}
    assert targets == pytest.approx({"noise": 5.0, "v": 0.8 * 5 - 0.6 * 2, "label": 2.0})


@pytest.mark.parametrize("name", ["softmax", "sigmoid"])
def test_logits_give_the_mean_label_and_the_noise_that_goes_with_it(name):
    a, s = torch.tensor(0.6, dtype=torch.float64), torch.tensor(0.8, dtype=torch.float64)
    logits, noisy = torch.randn(2, 4, 3, dtype=torch.float64)
    found = PARAMETERIZATIONS[name].denoised(logits, noisy, a, s)
    expected = logits.softmax(dim=-1) if name == "softmax" else logits.sigmoid()
    torch.testing.assert_close(found.label, expected)
    torch.testing.assert_close(a * found.label + s * found.noise, noisy)
    label = torch.eye(3)[:2]
    assert torch.equal(PARAMETERIZATIONS[name].target(label, torch.randn(2, 3), a, s), label)
