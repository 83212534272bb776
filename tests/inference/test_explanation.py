"""Explanations: at the size of the images, in their pixels."""

import numpy as np
import pytest
import torch

from diffmic.inference import explain
from diffmic.model import Conditions

N, C, K = 3, 2, 4


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
    )


def explained(conditions, sizes, **options):
    return explain(
        conditions, torch.tensor(sizes), **{"image_size": 32, "multilabel": False, **options}
    )


def test_shapes_are_those_of_the_contract(conditions):
    found = explained(conditions, [[20, 30]] * N)
    assert found.saliency.shape == (N, C, 20, 30)
    assert found.boxes.shape == (N, K, 4)
    assert found.attention.shape == (N, K)
    assert found.global_proba.shape == found.local_proba.shape == (N, C)
    for values in vars(found).values():
        assert isinstance(values, np.ndarray)
        assert values.dtype == np.float32


def test_boxes_are_in_the_pixels_of_each_image(conditions):
    sizes = [[20, 30], [7, 5], [100, 200]]
    found = explained(conditions, sizes).boxes
    for image, (height, width) in enumerate(sizes):
        expected = conditions.boxes[image].numpy() * [width, height, width, height]
        np.testing.assert_allclose(found[image], expected, rtol=1e-6)


def test_images_of_several_sizes_have_saliency_of_the_networks_input(conditions):
    assert explained(conditions, [[20, 30], [20, 30], [30, 20]]).saliency.shape == (N, C, 32, 32)


def test_saliency_keeps_its_place_and_its_range(conditions):
    saliency = torch.zeros(N, C, 4, 4)
    saliency[:, 0, 0, 3] = 2.0
    found = explained(
        Conditions(**{**vars(conditions), "saliency": saliency}), [[40, 60]] * N
    ).saliency
    assert found.min() >= 0
    assert found.max() <= 2
    row, column = np.unravel_index(found[0, 0].argmax(), (40, 60))
    assert row < 10
    assert column >= 45
    assert found[:, 1].max() == 0


@pytest.mark.parametrize("multilabel", [False, True])
def test_probabilities_are_softmax_or_sigmoid_of_each_granularity(conditions, multilabel):
    found = explained(conditions, [[8, 8]] * N, multilabel=multilabel)
    for name in ("global", "local"):
        logits = getattr(conditions, f"{name}_logits")
        expected = logits.sigmoid() if multilabel else logits.softmax(dim=1)
        np.testing.assert_allclose(getattr(found, f"{name}_proba"), expected, rtol=1e-6)


def test_attention_is_passed_on(conditions):
    np.testing.assert_array_equal(
        explained(conditions, [[8, 8]] * N).attention, conditions.attention
    )


def test_half_precision_conditions_are_explained_in_single_precision(conditions):
    found = explained(conditions.map(torch.Tensor.half), [[8, 8]] * N)
    assert found.saliency.dtype == found.global_proba.dtype == np.float32
