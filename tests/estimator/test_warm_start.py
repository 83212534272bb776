"""Going on from a fitted network."""

import copy
import warnings

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from tiny import RECIPE, TinyBackbone, small

from diffmic import DiffMICClassifier, InputError
from diffmic.datasets import make_lesions
from diffmic.model import Architecture

pytestmark = pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")


def test_a_second_fit_starts_anew(images, new_images):
    classifier = DiffMICClassifier(**small()).fit(*images)
    expected = classifier.predict_proba(new_images[0])
    assert_array_equal(classifier.fit(*images).predict_proba(new_images[0]), expected)


def test_warm_start_goes_on_from_the_fitted_network(images, fits):
    classifier = DiffMICClassifier(**small(warm_start=True)).fit(*images)
    learnt = copy.deepcopy(classifier.network_.state_dict())
    classifier.fit(*images)
    begun = fits[1][0]
    assert begun.keys() == learnt.keys()
    assert all(torch.equal(begun[name], learnt[name]) for name in learnt)


@pytest.mark.slow
@pytest.mark.parametrize("other", ["more classes", "other classes", "multi-label"])
def test_warm_start_on_other_classes_keeps_the_backbone_and_has_new_heads(images, fits, other):
    X, y = images
    classifier = DiffMICClassifier(**small(warm_start=True, max_epochs=10)).fit(X, y)
    learnt = copy.deepcopy(classifier.network_.state_dict())
    targets = {
        "more classes": np.where(np.arange(60) % 2, y, 3),
        "other classes": y + 5,
        "multi-label": (y[:, None] == [0, 1, 2]).astype(int),
    }[other]
    classifier.fit(X, targets)
    begun = fits[1][0]
    backbone = [name for name in learnt if name.startswith("prior.backbone.")]
    assert all(torch.equal(begun[name], learnt[name]) for name in backbone)
    assert begun["prior.saliency.weight"].shape[0] == (4 if other == "more classes" else 3)
    for head in ("prior.saliency.weight", "denoiser.out.weight"):
        assert not (
            begun[head].shape == learnt[head].shape and torch.equal(begun[head], learnt[head])
        )
    assert_array_equal(
        classifier.classes_, [0, 1, 2] if other == "multi-label" else np.unique(targets)
    )


def test_warm_start_with_another_backbone_is_an_error_and_changes_nothing(images, new_images):
    classifier = DiffMICClassifier(**small(warm_start=True)).fit(*images)
    expected = classifier.predict_proba(new_images[0])
    with pytest.raises(InputError, match="warm_start"):
        classifier.set_params(backbone=TinyBackbone(12)).fit(*images)
    assert_array_equal(classifier.predict_proba(new_images[0]), expected)


def test_a_loaded_model_can_be_fitted_on_other_classes(fitted, images, new_images, fits, tmp_path):
    fitted.save_pretrained(tmp_path)
    loaded = DiffMICClassifier.from_pretrained(tmp_path, backbone=TinyBackbone(), device="cpu")
    loaded.set_params(warm_start=True, augment=None, random_state=0)
    names = np.array(["across", "up", "plain"])
    loaded.fit(images[0], names[images[1]])
    weight = "prior.backbone.net.layers.0.weight"
    assert torch.equal(fits[0][0][weight], fitted.network_.state_dict()[weight])
    assert loaded.score(new_images[0], names[new_images[1]]) > 0.9


def test_warm_start_keeps_the_size_for_which_the_network_was_built(images):
    classifier = DiffMICClassifier(**small(warm_start=True, max_epochs=1)).fit(*images)
    larger = np.repeat(np.repeat(images[0], 2, axis=1), 2, axis=2)
    classifier.fit(larger, images[1])
    assert classifier.image_size_ == images[0].shape[1]


@pytest.mark.parametrize("regions", ["windows", "zoom"])
def test_warm_start_at_another_size_keeps_the_number_of_regions(images, regions):
    """At 112 pixels a fit of its own has another."""
    X, y = images
    how = small(architecture=Architecture(regions=regions), max_epochs=1, warm_start=True)
    classifier = DiffMICClassifier(**how).fit(X, y)
    n_regions = classifier.network_.n_regions
    larger = np.repeat(np.repeat(X, 2, axis=1), 2, axis=2)
    classifier.set_params(image_size=112).fit(larger, y)
    assert classifier.network_.n_regions == n_regions
    if regions == "windows":
        own = classifier.set_params(warm_start=False).fit(larger, y)
        assert own.network_.n_regions != n_regions


def test_warm_start_without_a_class_says_that_the_heads_are_new(images):
    X, y = images
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        classifier = DiffMICClassifier(**small(warm_start=True, max_epochs=1)).fit(X, y)
        classifier.fit(X[y < 2], y[y < 2])
    said = [str(w.message) for w in caught if "re-initialising the heads" in str(w.message)]
    assert len(said) == 1
    assert "[0, 1]" in said[0]
    assert "[0, 1, 2]" in said[0]


def test_the_bundled_model_goes_on_with_smaller_images_and_other_classes():
    X, y = make_lesions(30, image_size=64, random_state=0)
    clf = DiffMICClassifier.from_pretrained("diffmic-v2-aptos", device="cpu")
    clf.set_params(warm_start=True, max_epochs=1, image_size=64, recipe=RECIPE, verbose=0)
    assert clf.fit(X, y).network_.n_regions == 4  # it was 6 of the 36 cells of 192 pixels
    assert clf.predict_proba(X).shape == (30, 3)
