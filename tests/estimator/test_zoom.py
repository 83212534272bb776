"""Regions at the image's own resolution: fit, predict, explain, save and load."""

import numpy as np
import pytest
import torch

from diffmic import DiffMICClassifier, InputError
from diffmic.datasets import make_lesions
from diffmic.model import Architecture

ZOOM = Architecture(regions="zoom", feature_dim=16, num_train_timesteps=100)


def zoom_classifier(**params):
    return DiffMICClassifier(
        **{
            "backbone": "test_resnet",
            "pretrained": False,
            "architecture": ZOOM,
            "image_size": 64,
            "max_epochs": 1,
            "random_state": 0,
            "verbose": 0,
            **params,
        }
    )


@pytest.fixture(scope="module")
def images():
    return make_lesions(40, image_size=200, random_state=0)


@pytest.fixture(scope="module")
def fitted(images):
    return zoom_classifier().fit(*images)


def test_the_zoom_is_as_large_as_the_images(fitted):
    assert (fitted.image_size_, fitted.model_.input_size) == (64, 200)
    assert fitted.model_.plan.architecture.zoom_size == 200
    assert fitted.model_.plan.architecture.region_size == 32


def test_the_zoom_is_no_larger_than_regions_that_cover_the_cells_that_choose_them():
    X, y = make_lesions(12, image_size=400, random_state=0)
    fitted = zoom_classifier(validation_fraction=None).fit(X, y)
    assert fitted.model_.input_size == 256  # 8 cells of 32 pixels


def test_images_smaller_than_the_backbones_input_are_enlarged():
    X, y = make_lesions(12, image_size=40, random_state=0)
    fitted = zoom_classifier(validation_fraction=None).fit(X, y)
    assert fitted.model_.input_size == 64
    assert fitted.predict_proba(X).shape == (12, 3)


def test_boxes_are_in_pixels_of_the_original_and_as_large_as_the_crops(fitted, images):
    X, _ = images
    boxes = fitted.explain(X[:5]).boxes
    assert boxes.shape == (5, 4, 4)
    np.testing.assert_allclose(boxes[..., 2:] - boxes[..., :2], 32, atol=1e-3)
    assert boxes.min() >= 0
    assert boxes.max() <= 200
    larger = fitted.explain([np.kron(x, np.ones((2, 2), np.uint8)) for x in X[:5]]).boxes
    np.testing.assert_allclose(larger[..., 2:] - larger[..., :2], 64, atol=1e-3)


def test_regions_show_what_the_small_image_does_not(fitted, images):
    """Noise of a zero mean over small squares is lost in the small image, but not in a crop."""
    X = torch.from_numpy(images[0][:4])[:, None].expand(-1, 3, -1, -1).float() / 255
    draw = torch.Generator().manual_seed(0)
    fine = torch.rand(X.shape, generator=draw) * 0.4 - 0.2
    fine = fine - torch.nn.functional.avg_pool2d(fine, 2).repeat_interleave(2, 2).repeat_interleave(
        2, 3
    )
    prior = fitted.network_.prior
    with torch.no_grad():
        before, after = prior.whole(X), prior.whole(X + fine)
        crops = [
            prior.regions(x, None, torch.zeros(4, 1, 2, dtype=torch.long)) for x in (X, X + fine)
        ]
    assert (before - after).abs().mean() < 0.02
    assert (crops[0] - crops[1]).abs().mean() > 0.05 * crops[0].abs().mean()


def test_weights_are_shared_and_batch_norm_statistics_are_not(fitted):
    prior = fitted.network_.prior
    whole, crops = (
        dict(b.net.named_parameters()) for b in (prior.backbone, prior.regions.backbone)
    )
    assert whole.keys() == crops.keys()
    assert all(whole[name] is crops[name] for name in whole)
    own, other = (dict(b.net.named_buffers()) for b in (prior.backbone, prior.regions.backbone))
    means = [name for name in own if name.endswith("running_mean")]
    assert means
    assert not any(torch.equal(own[name], other[name]) for name in means)


def test_probabilities_do_not_depend_on_the_neighbours_or_the_engine(fitted, images):
    X, _ = images
    whole = fitted.predict_proba(X)
    alone = np.concatenate([fitted.predict_proba(X[i : i + 1]) for i in range(4)])
    np.testing.assert_allclose(alone, whole[:4], atol=1e-5)
    plain = fitted.compile("plain").predict_proba(X)
    fitted.compile()
    np.testing.assert_allclose(plain, whole, atol=1e-4)


def test_a_saved_zoom_predicts_the_same_and_stores_shared_weights_once(fitted, images, tmp_path):
    X, _ = images
    fitted.save_pretrained(tmp_path / "zoom")
    loaded = DiffMICClassifier.from_pretrained(tmp_path / "zoom")
    np.testing.assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))
    prior = loaded.network_.prior
    assert next(prior.backbone.parameters()) is next(prior.regions.backbone.parameters())
    assert loaded.model_.input_size == 200
    numbers = sum(p.numel() for p in fitted.network_.parameters())
    assert (tmp_path / "zoom" / "model.safetensors").stat().st_size < 4.4 * numbers


def test_a_fit_goes_on_from_a_loaded_zoom(fitted, images, tmp_path):
    fitted.save_pretrained(tmp_path / "zoom")
    loaded = DiffMICClassifier.from_pretrained(tmp_path / "zoom").set_params(
        warm_start=True, max_epochs=1, verbose=0
    )
    assert loaded.fit(*images).model_.input_size == 200


def test_a_zoom_with_a_backbone_for_crops_is_an_error():
    with pytest.raises(InputError, match="regions is 'zoom' and region_backbone is given"):
        Architecture(regions="zoom", region_backbone="test_resnet")
    with pytest.raises(InputError, match=r"regions is 'zoomed'; give one of \['windows', 'zoom'\]"):
        Architecture(regions="zoomed")


def test_the_named_architecture_zooms():
    assert zoom_classifier(architecture="zoom").get_params()["architecture"] == "zoom"
    X, y = make_lesions(12, image_size=100, random_state=0)
    fitted = zoom_classifier(architecture="zoom", validation_fraction=None).fit(X, y)
    assert fitted.model_.input_size == 100
