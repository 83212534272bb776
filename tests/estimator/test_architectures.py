"""Networks of other architectures than the default, from the fit to the saved file."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from tiny import RECIPE, TinyBackbone, small, stripes

from diffmic import DiffMICClassifier, InputError
from diffmic.model import Architecture
from diffmic.training import resolve_recipe

pytestmark = pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")
# The paper's recipe, with epochs for a tiny network.
PAPER = replace(resolve_recipe("paper-v2"), denoiser_epochs=2)
UNCACHED = replace(RECIPE, cached=False, n_cached_views=0)


def fit(X, y, *, fit_options=(), **parameters):
    return DiffMICClassifier(**small(**parameters)).fit(X, y, **dict(fit_options))


def test_images_of_28_pixels_work_with_a_deep_backbone():
    X, y = stripes(30, size=28)
    classifier = fit(X, y, backbone="resnet10t", pretrained=False, max_epochs=1)
    assert classifier.image_size_ == 28
    assert classifier.network_.n_regions == 6  # on the 7 × 7 cells of an early feature map
    assert classifier.predict_proba(X).shape == (30, 3)


def test_the_papers_arrangement_fits_and_predicts(images, new_images):
    encoder = TinyBackbone(12)
    classifier = fit(
        *images,
        backbone=encoder,
        prior_backbone=TinyBackbone(),
        region_backbone=TinyBackbone(),
        recipe=PAPER,
        image_size=32,
        n_regions=6,
        region_size=8,
        feature_dim=32,
        batch_size=16,
    )
    assert classifier.predict_proba(new_images[0]).shape == (30, 3)
    assert classifier.transform(new_images[0]).shape == (30, 24)
    assert classifier.explain(new_images[0]).boxes.shape == (30, 6, 4)
    network = classifier.network_
    learnt = network.image_encoder.net.layers[0].weight
    assert not torch.equal(learnt.cpu(), encoder.layers[0].weight)
    assert not torch.equal(
        network.region_encoder.backbone.net.layers[0].weight,
        network.prior.regions.backbone.net.layers[0].weight,
    )


def test_class_names_must_be_as_many_as_the_classes(images):
    names = ("across", "up", "plain")
    assert fit(*images, max_epochs=1, class_names=names).class_names is names
    with pytest.raises(InputError, match="2 names"):
        fit(*images, class_names=names[:2])


@pytest.mark.parametrize("region_size", [8, 16, 20])
def test_boxes_are_as_large_as_the_regions_that_are_read(images, new_images, region_size):
    classifier = DiffMICClassifier(
        **small(
            region_size=region_size,
            region_backbone=TinyBackbone(),
            recipe=PAPER,
            max_epochs=1,
        )
    )
    classifier.fit(*images)
    x0, y0, x1, y1 = np.moveaxis(classifier.explain(new_images[0]).boxes, 2, 0)
    inside = (x1 < 32) & (y1 < 32)  # crops that pass the border end there
    assert_allclose((x1 - x0)[inside], region_size, atol=1e-4)
    assert_allclose((y1 - y0)[inside], region_size, atol=1e-4)
    assert (x1 <= 32).all()
    assert (y1 <= 32).all()


def test_numbers_of_numpy_are_numbers(images):
    classifier = DiffMICClassifier(
        **small(n_regions=np.int64(2), region_size=np.int32(8), max_epochs=1)
    )
    classifier.fit(*images)
    assert classifier.explain(images[0][:1]).boxes.shape == (1, 2, 4)


# --- Encoders that the prior does not share ------------------------------------------------------

ENCODERS = (
    {"prior_backbone": "test_resnet"},
    {"region_backbone": "test_resnet"},
    {"prior_backbone": "test_resnet", "region_backbone": "test_resnet"},
)


@pytest.mark.parametrize("encoders", ENCODERS, ids=lambda encoders: "+".join(encoders))
def test_encoders_that_the_recipe_would_leave_untrained_are_refused(images, encoders):
    classifier = DiffMICClassifier(
        architecture=Architecture(**encoders), pretrained=False, verbose=0, device="cpu"
    )
    way_out = r"recipe='paper-v2', or a Recipe with cached=False, feature_noise=0\.0 and n_cached"
    with pytest.raises(InputError, match=f"has a {next(iter(encoders))}.*{way_out}"):
        classifier.fit(*images)
    assert not hasattr(classifier, "model_")


def test_a_cache_that_would_leave_encoders_untrained_is_refused(images):
    recipe = replace(UNCACHED, cached=True)
    classifier = DiffMICClassifier(**small(prior_backbone=TinyBackbone(), recipe=recipe))
    with pytest.raises(InputError, match="would leave them untrained"):
        classifier.fit(*images)


@pytest.mark.parametrize("change", [{"feature_noise": 1.0}, {"n_cached_views": 2}], ids=str)
def test_what_a_recipe_without_cache_would_ignore_is_refused(change):
    with pytest.raises(InputError, match="but cached is False"):
        replace(UNCACHED, **change)


@pytest.mark.parametrize("encoders", ENCODERS, ids=lambda encoders: "+".join(encoders))
def test_encoders_of_a_recipe_without_cache_learn_predict_and_come_back(
    images, new_images, tmp_path, encoders
):
    X, y = images[0][:24], images[1][:24]
    classifier = fit(
        X,
        y,
        **encoders,
        backbone="test_resnet",
        pretrained=False,
        image_size=64,
        region_size=32,
        n_regions=2,
        recipe=UNCACHED,
        max_epochs=1,
    )
    assert {row["stage"] for row in classifier.history_} == {"prior", "diffusion"}
    expected = classifier.predict_proba(new_images[0][:6])
    assert expected.shape == (6, 3)
    classifier.save_pretrained(tmp_path)
    loaded = DiffMICClassifier.from_pretrained(tmp_path, device="cpu")
    assert_array_equal(loaded.predict_proba(new_images[0][:6]), expected)
    assert loaded.recipe == UNCACHED
    for name in ("prior_backbone", "region_backbone"):
        assert getattr(loaded.architecture, name) == encoders.get(name)
