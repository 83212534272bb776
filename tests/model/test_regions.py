import numpy as np
import pytest
import torch

from diffmic.errors import InputError
from diffmic.model.regions import (
    Corners,
    RegionChoice,
    crop,
    importance_map,
    max_regions,
    window_cells,
)
from diffmic.tasks import MULTICLASS, MULTILABEL

FORMS = ("fused", "contrast", "paper")


def select_regions(importance, n_regions, window):
    return RegionChoice(tuple(importance.shape[1:]), n_regions, window)(importance)


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
    importance = torch.rand(8, *size, generator=draw)
    if levels:
        importance = (importance * levels).round()
    n_regions = min(4, max_regions(size, window))
    cells, _ = select_regions(importance, n_regions, window)
    for b in range(8):
        chosen = [tuple(cell) for cell in cells[b].tolist()]
        assert chosen == greedy(importance[b], n_regions, window)
        alone, _ = select_regions(importance[b : b + 1], n_regions, window)
        assert torch.equal(alone[0], cells[b])  # whatever the other images of the batch


def test_a_region_is_worth_the_importance_that_earlier_ones_left():
    importance = torch.zeros(1, 2, 4)
    importance[0, 0] = torch.tensor([4.0, 8.0, 2.0, 0.0])
    cells, worth = select_regions(importance, 2, (1, 2))
    assert cells.tolist() == [[[0, 0], [0, 1]]]
    assert worth.tolist() == [[6.0, 1.0]]


def test_regions_of_a_constant_map_come_in_row_major_order():
    assert select_regions(torch.zeros(1, 3, 3), 2, (1, 1))[0].tolist() == [[[0, 0], [0, 0]]]


def importance(saliency, form, task=MULTICLASS):
    return importance_map(saliency, task, form)


def test_the_papers_importance_is_the_sum_of_scaled_class_maps():
    saliency = torch.tensor([[[[0.0, 5.0], [10.0, 0.0]], [[-1.0, -1.0], [-1.0, 3.0]]]])
    assert importance(saliency, "paper").tolist() == [[[0.0, 0.5], [1.0, 1.0]]]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("task", [MULTICLASS, MULTILABEL])
def test_no_place_of_a_map_that_is_the_same_everywhere_is_more_important(form, task):
    saliency = torch.tensor([5.0, -2.0]).view(1, 2, 1, 1).expand(1, 2, 3, 3)
    found = importance(saliency, form, task)
    assert torch.equal(found, found[:, :1, :1].expand_as(found))


def signs(*evidence):
    """Saliency of 3 classes on 5 × 5 cells; at the cell (3, 1) it is ``evidence``."""
    saliency = torch.zeros(1, 3, 5, 5)
    saliency[0, 0] = 0.3  # nothing there
    saliency[0, :, 3, 1] = torch.tensor(evidence)
    return saliency


@pytest.mark.parametrize(
    "evidence",
    [
        (-4.0, 9.0, -5.0),  # the whole image tells the classes
        (-20.0, 10.0, 10.0),  # it tells that something is there, but not which of two
    ],
)
def test_the_place_that_decides_is_the_first_region(evidence):
    cells, _ = select_regions(importance(signs(*evidence), "contrast"), 1, (1, 1))
    assert cells.tolist() == [[[3, 1]]]


def test_the_papers_importance_looks_away_from_the_place_that_decides_against_others():
    evidence = (-4.0, 9.0, -5.0)
    assert (
        importance(signs(*evidence), "paper")[0, 3, 1]
        == importance(signs(*evidence), "paper").amin()
    )


@pytest.mark.parametrize("form", FORMS)
def test_findings_of_different_labels_are_both_chosen(form):
    saliency = torch.full((1, 2, 5, 5), -3.0)
    saliency[0, 0, 1, 1] = saliency[0, 1, 3, 4] = 4.0
    cells, _ = select_regions(importance(saliency, form, MULTILABEL), 2, (1, 1))
    assert sorted(cells[0].tolist()) == [[1, 1], [3, 4]]


def test_adding_the_same_evidence_to_every_class_moves_no_region():
    draw = torch.Generator().manual_seed(0)
    saliency = torch.randn(4, 3, 6, 6, generator=draw)
    common = torch.randn(4, 1, 6, 6, generator=draw)
    before, after = (importance(s, "contrast") for s in (saliency, saliency + common))
    assert torch.equal(*(select_regions(found, 4, (2, 2))[0] for found in (before, after)))


@pytest.mark.parametrize(
    ("pixels", "cells"), [(32, 1), (64, 2), (80, 2), (16, 1), (1, 1), (224, 7)]
)
def test_windows_round_to_the_nearest_cell_halves_to_even(pixels, cells):
    assert window_cells((pixels, pixels), (224, 224), (7, 7)) == (cells, cells)


def test_a_region_larger_than_the_image_is_an_error():
    with pytest.raises(InputError, match="region_size of 300 pixels is larger than the image"):
        window_cells((300, 300), (224, 224), (7, 7))


def test_cells_become_pixels_by_rounding():
    corners = Corners.scaled((3, 3), (100, 50))(torch.tensor([[[0, 1], [2, 2]]]))
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


def test_a_finding_among_labels_comes_before_a_place_without_evidence():
    saliency = torch.full((1, 3, 6, 6), -3.0)  # tissue speaks against rare findings
    saliency[0, :, :2, :2] = 0.0  # a blank corner
    saliency[0, 1, 4, 4] = 0.8
    cells, _ = select_regions(importance(saliency, "contrast", MULTILABEL), 1, (1, 1))
    assert cells.tolist() == [[[4, 4]]]
