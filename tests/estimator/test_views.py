"""Test-time augmentation: predictions of several views of each image."""

import copy

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from tiny import small
from torchvision.transforms import v2

from diffmic import DiffMICClassifier, InputError
from diffmic.estimator.prediction import evidence_for
from diffmic.inference import Evidence

pytestmark = pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")


@pytest.fixture
def flipping(fitted):
    """The fitted model with views that are flipped from left to right."""
    return copy.copy(fitted).set_params(augment=v2.RandomHorizontalFlip(1.0))


@pytest.mark.parametrize("stage", ["diffusion", "prior"])
def test_scores_and_logits_are_averaged_over_views(flipping, new_images, stage):
    X = new_images[0]
    model, parameters = flipping.model_, flipping.get_params(deep=False)
    own, flipped = (evidence_for(model, parameters, x, stage) for x in (X, X[..., ::-1].copy()))
    draws = None if stage == "prior" else (own.draws + flipped.draws) / 2
    prior_logits = (own.prior_logits + flipped.prior_logits) / 2
    mean = Evidence(prior_logits, draws, own.drawing_ratio)
    proba = flipping.predict_proba(X, stage=stage, n_views=2)
    assert_allclose(proba, model.probabilities(mean, stage), atol=1e-5)
    assert not np.allclose(proba, flipping.predict_proba(X, stage=stage), atol=1e-3)


def test_views_are_the_estimators_own_unless_told_otherwise(flipping, new_images):
    X, y = new_images
    own = copy.copy(flipping).set_params(n_views=3)
    assert_array_equal(own.predict_proba(X), flipping.predict_proba(X, n_views=3))
    assert_array_equal(own.predict(X), flipping.predict(X, n_views=3))
    assert own.evaluate(X, y) == flipping.evaluate(X, y, n_views=3)


@pytest.mark.parametrize("batch_size", [2, 7])
def test_views_do_not_depend_on_the_batch(fitted, new_images, batch_size):
    augmented = copy.copy(fitted).set_params(augment="auto", n_views=3)
    expected = augmented.predict_proba(new_images[0])
    other = copy.copy(augmented).set_params(batch_size=batch_size)
    assert_allclose(other.predict_proba(new_images[0][10:]), expected[10:], atol=1e-5)


def test_a_fit_calibrates_with_the_views_of_the_estimator(images, new_images):
    settings = small(augment="auto", random_state=0)
    one, three = (DiffMICClassifier(**settings, n_views=n).fit(*images) for n in (1, 3))
    assert_array_equal(one.predict_proba(new_images[0], n_views=1).shape, (30, 3))
    assert one.calibrations_["prior"] != three.calibrations_["prior"]
    weights = one.network_.state_dict(), three.network_.state_dict()
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


def test_images_are_looked_at_as_they_are_whatever_the_views(fitted, new_images):
    other = copy.copy(fitted).set_params(n_views=5)  # of which there are none without augment
    assert_array_equal(other.transform(new_images[0]), fitted.transform(new_images[0]))
    assert_array_equal(
        other.predict_proba(new_images[0], n_views=1), fitted.predict_proba(new_images[0])
    )


def test_views_need_an_augmentation(fitted, images):
    with pytest.raises(InputError, match=r"n_views is 2 and augment is None.*or n_views=1"):
        fitted.predict_proba(images[0], n_views=2)
    with pytest.raises(InputError, match="n_views is 2 and augment is None"):
        DiffMICClassifier(**small(n_views=2, augment=None)).fit(*images)
