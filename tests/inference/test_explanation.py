"""Explanations: in pixels of the images as they were passed."""

import numpy as np
import pytest
import torch

from diffmic.inference import explain
from diffmic.model import Conditions
from diffmic.tasks import MULTICLASS, MULTILABEL

N, C, K = 3, 2, 4
SETTINGS = ("exclusive", "crop")


@pytest.fixture
def conditions():
    generator = torch.Generator().manual_seed(0)

    def rand(*shape):
        return torch.rand(*shape, generator=generator)

    corners = rand(N, K, 2) / 2
    return Conditions(
        global_logits=rand(N, C),
        local_logits=rand(N, C),
        image_features=rand(N, 5),
        region_features=rand(N, K, 5),
        saliency=rand(N, C, 3, 3),
        boxes=torch.cat([corners, corners + 0.5], dim=2),
        attention=rand(N, K).softmax(dim=1),
        region_weights=rand(N, K).softmax(dim=1),
    )


def explained(conditions, sizes, task=MULTICLASS):
    return explain(conditions, torch.tensor(sizes), task)


def test_shapes_are_those_of_the_contract(conditions):
    maps = torch.rand(N, 6, K, C)
    found = explain(conditions, torch.tensor([[20, 30]] * N), MULTICLASS, noisy=maps, clean=maps)
    assert found.saliency.shape == (N, C, 3, 3)
    assert found.heatmap(0).shape == (C, 20, 30)
    assert len(found) == N
    assert found.boxes.shape == (N, K, 4)
    assert found.attention.shape == (N, K)
    assert found.global_proba.shape == found.local_proba.shape == (N, C)
    assert found.noisy_maps.shape == found.clean_maps.shape == (N, 6, K, C)
    assert found.exclusive
    assert found.crop == "none"
    arrays = {name: values for name, values in vars(found).items() if name not in SETTINGS}
    for name, values in arrays.items():
        assert isinstance(values, np.ndarray), name
        assert values.dtype == (np.int64 if name == "sizes" else np.float32), name


def test_without_a_diffusion_there_are_no_label_maps(conditions):
    found = explained(conditions, [[20, 30]] * N)
    assert found.noisy_maps is None
    assert found.clean_maps is None


def test_boxes_are_in_the_pixels_of_each_image(conditions):
    sizes = [[20, 30], [7, 5], [100, 200]]
    found = explained(conditions, sizes).boxes
    for image, (height, width) in enumerate(sizes):
        expected = conditions.boxes[image].numpy() * [width, height, width, height]
        np.testing.assert_allclose(found[image], expected, rtol=1e-6)


def test_each_heatmap_has_the_size_of_its_image(conditions):
    found = explained(conditions, [[20, 30], [25, 35], [30, 20]])
    shapes = [found.heatmap(index).shape for index in (0, 1, 2, -1)]
    assert shapes == [(C, 20, 30), (C, 25, 35), (C, 30, 20), (C, 30, 20)]


def test_saliency_keeps_its_place_and_its_range(conditions):
    saliency = torch.zeros(N, C, 4, 4)
    saliency[:, 0, 0, 3] = 2.0
    conditions = Conditions(**{**vars(conditions), "saliency": saliency})
    found = explained(conditions, [[40, 60]] * N).heatmap(0)
    assert found.min() >= 0
    assert found.max() <= 2
    row, column = np.unravel_index(found[0].argmax(), (40, 60))
    assert row < 10
    assert column >= 45
    assert found[1].max() == 0


@pytest.mark.parametrize("task", [MULTICLASS, MULTILABEL])
def test_probabilities_are_softmax_or_sigmoid_of_each_granularity(conditions, task):
    found = explained(conditions, [[8, 8]] * N, task)
    for name in ("global", "local"):
        logits = getattr(conditions, f"{name}_logits")
        expected = logits.softmax(dim=1) if task.exclusive else logits.sigmoid()
        np.testing.assert_allclose(getattr(found, f"{name}_proba"), expected, rtol=1e-6)


def test_attention_is_passed_on(conditions):
    np.testing.assert_array_equal(
        explained(conditions, [[8, 8]] * N).attention, conditions.attention
    )


def test_half_precision_conditions_are_explained_in_single_precision(conditions):
    found = explained(conditions.map(torch.Tensor.half), [[8, 8]] * N)
    assert found.saliency.dtype == found.global_proba.dtype == np.float32
