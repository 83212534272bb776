"""Schedules, and what batches are made of."""

from dataclasses import replace

import pytest
import torch
from tiny import RECIPE

from diffmic.data import LabelledImages
from diffmic.training.options import learning_rate_schedule, pixels


def rates(schedule, total_steps, *, peaks=(1.0, 0.1)):
    """Learning rates of each group before each step."""
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": peak} for peak in peaks]
    optimizer = torch.optim.AdamW(groups)
    scheduler = learning_rate_schedule(optimizer, replace(RECIPE, schedule=schedule), total_steps)
    seen = []
    for _ in range(total_steps):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return torch.tensor(seen)


def test_one_cycle_rises_to_the_peak_and_falls_to_nearly_nothing():
    seen = rates("one-cycle", 100)
    assert seen[0, 0] < 0.05
    assert seen[:, 0].max() == pytest.approx(1.0, abs=1e-3)
    assert 20 < seen[:, 0].argmax() < 40
    assert seen[-1, 0] < 0.01
    torch.testing.assert_close(seen[:, 0], 10 * seen[:, 1])


def test_the_cosine_falls_to_a_hundredth():
    seen = rates("cosine", 100, peaks=(1.0,))[:, 0]
    assert seen[0] == 1.0
    assert (seen.diff() < 0).all()
    assert seen[50] == pytest.approx(0.505, abs=0.001)
    assert seen[-1] == pytest.approx(0.01, abs=0.001)


@pytest.mark.parametrize("schedule", ["one-cycle", "cosine"])
@pytest.mark.parametrize("total_steps", [1, 2, 7])
def test_a_few_steps_are_enough(schedule, total_steps):
    assert torch.isfinite(rates(schedule, total_steps)).all()


def test_labels_are_looked_up_without_waiting_for_a_device(monkeypatch):
    part = LabelledImages(torch.zeros(4, 1, 8, 8), torch.eye(4), torch.arange(4.0))
    copied = []
    to = torch.Tensor.to

    def watched(tensor, *arguments, **options):
        copied.append(options.get("non_blocking"))
        return to(tensor, *arguments, **options)

    monkeypatch.setattr(torch.Tensor, "cpu", lambda _: pytest.fail("waits for the device"))
    monkeypatch.setattr(torch.Tensor, "to", watched)
    targets, weights = part.labels(torch.tensor([2, 0]), torch.device("meta"))
    assert targets.device.type == weights.device.type == "meta"
    assert copied == [True, True]


def test_labels_are_those_of_the_images_that_were_asked_for():
    part = LabelledImages(torch.zeros(4, 1, 8, 8), torch.eye(4), torch.arange(4.0))
    targets, weights = part.labels(torch.tensor([2, 0]), torch.device("cpu"))
    assert targets.tolist() == [[0, 0, 1, 0], [1, 0, 0, 0]]
    assert weights.tolist() == [2, 0]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_pixels_are_floats_with_channels_last(dtype):
    batch = torch.full((2, 3, 8, 8), 51 if dtype == torch.uint8 else 0.2, dtype=dtype)
    images = pixels(batch, torch.device("cpu"))
    assert images.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(images, torch.full((2, 3, 8, 8), 0.2))
