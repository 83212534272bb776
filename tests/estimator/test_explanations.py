"""Where the prior looked: regions, saliency, and what they cost."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.testing import assert_allclose
from tiny import small, stripes

from diffmic import DiffMICClassifier

pytestmark = pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")


def test_explain_has_the_promised_shapes(fitted, new_images):
    explanation = fitted.explain(new_images[0])
    assert explanation.saliency.shape == (30, 3, 8, 8)
    assert explanation.boxes.shape == (30, 4, 4)
    assert explanation.attention.shape == (30, 4)
    assert_allclose(explanation.attention.sum(axis=1), 1, atol=1e-5)
    for proba in (explanation.global_proba, explanation.local_proba):
        assert proba.shape == (30, 3)
        assert_allclose(proba.sum(axis=1), 1, atol=1e-5)


def test_labels_that_do_not_exclude_each_other_are_explained_by_sigmoids(
    fitted_multilabel, indicators
):
    proba = fitted_multilabel.explain(indicators[0]).global_proba
    assert not np.allclose(proba.sum(axis=1), 1, atol=1e-2)


@pytest.mark.parametrize("size", [(48, 80), (100, 20)])
def test_boxes_are_in_pixels_of_the_image_as_it_was_passed(fitted, size):
    X, _ = stripes(12, size=size)
    explanation = fitted.explain(X)
    height, width = size
    assert explanation.heatmap(7).shape == (3, height, width)
    x0, y0, x1, y1 = np.moveaxis(explanation.boxes, 2, 0)
    # A region is as large as a cell of the last feature map, which has 4 × 4.
    assert_allclose(x1 - x0, width / 4, rtol=1e-5)
    assert_allclose(y1 - y0, height / 4, rtol=1e-5)
    assert x0.min() >= 0
    assert y0.min() >= 0
    assert x1.max() == pytest.approx(width)
    assert y1.max() == pytest.approx(height)


def test_boxes_follow_what_is_salient(fitted, new_images):
    explanation = fitted.explain(new_images[0])
    first = explanation.boxes[:, 0].astype(int) // 4  # x, y of the first region in cells
    importance = torch.from_numpy(explanation.saliency).var(dim=1, correction=0)
    means = F.avg_pool2d(importance, 2, stride=1)  # of windows of 2 × 2
    chosen = means[range(30), first[:, 1], first[:, 0]]
    assert_allclose(chosen, means.amax(dim=(1, 2)), rtol=1e-3)  # chosen in half precision


def test_images_of_mixed_sizes_are_explained_each_in_its_own_pixels(fitted):
    small_image, large_image = stripes(1, size=(32, 32))[0][0], stripes(1, size=(64, 96))[0][0]
    explanation = fitted.explain([small_image, large_image])
    assert explanation.saliency.shape == (2, 3, 8, 8)
    assert [explanation.heatmap(i).shape for i in (0, 1)] == [(3, 32, 32), (3, 64, 96)]
    assert_allclose(np.diff(explanation.boxes[:, :, [0, 2]])[:, 0, 0], [8, 24])
    assert_allclose(np.diff(explanation.boxes[:, :, [1, 3]])[:, 0, 0], [8, 16])


def test_explanations_of_many_large_images_are_small():
    X = np.zeros((50, 1000, 800), np.uint8)
    X += np.arange(50, dtype=np.uint8)[:, None, None]
    classifier = DiffMICClassifier(**small(max_epochs=1)).fit(*stripes(60))
    explanation = classifier.explain(X)
    n_bytes = sum(getattr(value, "nbytes", 1) for value in vars(explanation).values())
    assert len(explanation) == 50
    assert n_bytes < 5e6  # at the images' own size it would be 480 MB
    assert explanation.heatmap(49).shape == (3, 1000, 800)


def test_a_heatmap_is_the_saliency_of_its_image_enlarged(fitted, new_images):
    explanation = fitted.explain(new_images[0])
    for index in (0, 17, -1):
        heatmap = explanation.heatmap(index)
        assert heatmap.shape == (3, 32, 32)
        # Cells of 4 pixels: nearly the mean of those beside a cell's centre is its own value.
        centres = (heatmap[:, 1::4, 1::4] + heatmap[:, 2::4, 2::4]) / 2
        assert_allclose(centres, explanation.saliency[index], atol=0.15 * np.ptp(heatmap))
        assert heatmap.max() <= explanation.saliency[index].max() + 1e-5


@pytest.fixture(scope="module")
def cropping():
    X, y = stripes(60, size=(32, 56))
    return DiffMICClassifier(**small(crop="square", image_size=32, max_epochs=1)).fit(X, y)


@pytest.mark.parametrize("size", [(48, 80), (100, 20), (32, 32)])
def test_regions_of_a_crop_lie_where_they_are_in_the_image_that_was_passed(cropping, size):
    X, _ = stripes(6, size=size)
    height, width = size
    side, left, top = min(size), (width - min(size)) // 2, (height - min(size)) // 2
    inner = X[:, top : top + side, left : left + side]
    found, expected = cropping.explain(X), cropping.explain(inner)
    assert_allclose(found.boxes, expected.boxes + np.array([left, top, left, top]), rtol=1e-5)
    assert_allclose(found.saliency, expected.saliency)
    assert found.frames.tolist() == [[left, top, left + side, top + side]] * 6
    heatmap = found.heatmap(3)
    assert heatmap.shape == (3, height, width)
    assert_allclose(heatmap[:, top : top + side, left : left + side], expected.heatmap(3))
    outside = np.ones(size, bool)
    outside[top : top + side, left : left + side] = False
    assert (heatmap[:, outside] == expected.heatmap(3).min(axis=(1, 2))[:, None]).all()


def test_without_a_crop_the_whole_image_is_the_frame(fitted):
    assert fitted.explain(stripes(2, size=(48, 80))[0]).frames.tolist() == [[0, 0, 80, 48]] * 2


def test_evidence_changes_when_the_heads_are_drawn_anew(fitted, new_images):
    """Sanity check of Adebayo et al. (2018)."""
    X = new_images[0]
    usual = fitted.explain(X)
    other = copy.deepcopy(fitted)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1)
        for head in (other.network_.prior.saliency, other.network_.prior.classifier):
            head.reset_parameters()
    found = other.compile().explain(X)
    same = [
        np.corrcoef(usual.evidence(i).ravel(), found.evidence(i).ravel())[0, 1]
        for i in range(len(X))
    ]
    assert abs(np.mean(same)) < 0.7
