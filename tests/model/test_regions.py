import numpy as np
import pytest
import torch

from diffmic.errors import InputError
from diffmic.model.regions import (
    crop,
    importance_map,
    max_regions,
    select_regions,
    upper_left,
    window_cells,
)


def greedy(importance, n_regions, window):
    """The choice as a plain loop over one image."""
    importance, cells = importance.numpy().copy(), []
    h, w = importance.shape
    for _ in range(n_regions):
        best, where = -np.inf, None
        for i in range(h - window[0] + 1):
            for j in range(w - window[1] + 1):
                mean = importance[i : i + window[0], j : j + window[1]].mean()
                if mean > best + 1e-6:
                    best, where = mean, (i, j)
        importance[where[0] : where[0] + window[0], where[1] : where[1] + window[1]] = 0
        cells.append(where)
    return cells


@pytest.mark.parametrize(
    ("size", "window"), [((7, 7), (1, 1)), ((7, 7), (2, 2)), ((5, 8), (2, 3)), ((3, 3), (3, 3))]
)
@pytest.mark.parametrize(
    "levels", [None, 4]
)  # few levels: many ties, and sums that floats hold exactly
def test_regions_are_those_of_a_plain_loop(size, window, levels):
    draw = torch.Generator().manual_seed(0)
    saliency = torch.rand(8, 1, *size, generator=draw)
    if levels:
        saliency = (saliency * levels).round()
    n_regions = min(4, max_regions(size, window))
    cells = select_regions(saliency, n_regions, window)
    for b in range(8):
        assert [tuple(c) for c in cells[b].tolist()] == greedy(
            importance_map(saliency)[b], n_regions, window
        )


def test_a_constant_map_counts_as_zero_and_regions_come_in_row_major_order():
    assert importance_map(torch.full((1, 2, 3, 3), 5.0)).tolist() == [[[0.0] * 3] * 3]
    assert select_regions(torch.zeros(1, 2, 3, 3), 2, (1, 1)).tolist() == [[[0, 0], [0, 0]]]


def test_importance_is_the_sum_of_scaled_class_maps():
    saliency = torch.tensor([[[[0.0, 5.0], [10.0, 0.0]], [[-1.0, -1.0], [-1.0, 3.0]]]])
    assert importance_map(saliency).tolist() == [[[0.0, 0.5], [1.0, 1.0]]]


@pytest.mark.parametrize(
    ("pixels", "cells"), [(32, 1), (64, 2), (80, 2), (16, 1), (1, 1), (224, 7)]
)
def test_windows_round_to_the_nearest_cell_halves_to_even(pixels, cells):
    assert window_cells((pixels, pixels), (224, 224), (7, 7)) == (cells, cells)


def test_a_region_larger_than_the_image_is_an_error():
    with pytest.raises(InputError, match="region_size of 300 pixels is larger than the image"):
        window_cells((300, 300), (224, 224), (7, 7))


def test_cells_become_pixels_by_rounding():
    corners = upper_left(torch.tensor([[[0, 1], [2, 2]]]), (3, 3), (100, 50))
    assert corners.tolist() == [[[0, 17], [67, 33]]]


def test_crops_hold_all_channels_and_are_filled_beyond_the_border_with_the_channels_minimum():
    images = torch.rand(2, 3, 10, 12) + torch.arange(3).view(3, 1, 1)
    corners = torch.tensor([[[2, 3], [8, 9]], [[0, 0], [7, 11]]])
    crops = crop(images, corners, (4, 4))
    assert crops.shape == (2, 2, 3, 4, 4)
    assert torch.equal(crops[0, 0], images[0, :, 2:6, 3:7])
    assert torch.equal(crops[0, 1, :, :2, :3], images[0, :, 8:, 9:])
    minimum = images[0].amin(dim=(1, 2))
    assert torch.equal(crops[0, 1, :, 2:].amax(dim=(1, 2)), minimum)
    assert torch.equal(crops[0, 1, :, :, 3], minimum[:, None].expand(3, 4))
    assert torch.equal(crops[1, 1, :, :3, :1], images[1, :, 7:, 11:])
