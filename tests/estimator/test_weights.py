"""Weights of images and classes, class-balanced sampling, and what predictions make of it."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from tiny import RECIPE, TinyBackbone, small, stripes

from diffmic import DiffMICClassifier

pytestmark = pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")


@pytest.mark.parametrize(
    ("parameters", "options"),
    [
        ({}, {"sample_weight": np.r_[np.ones(30), np.full(30, 0.1)]}),
        ({"class_weight": {0: 10, 2: 0.1}}, {}),
    ],
)
def test_weights_change_what_is_learnt(images, new_images, parameters, options):
    plain = DiffMICClassifier(**small()).fit(*images)
    weighted = DiffMICClassifier(**small(**parameters)).fit(*images, **options)
    X = new_images[0]
    for stage in ("prior", "diffusion"):
        assert not np.allclose(
            plain.predict_proba(X, stage=stage), weighted.predict_proba(X, stage=stage)
        )


def test_equal_weights_change_nothing(images, new_images):
    plain = DiffMICClassifier(**small(recipe=replace(RECIPE, balance=0.0))).fit(*images)
    weighted = DiffMICClassifier(**small(class_weight="balanced"))
    weighted.fit(*images, sample_weight=np.full(60, 3.0))
    assert_array_equal(plain.predict_proba(new_images[0]), weighted.predict_proba(new_images[0]))


def test_balanced_classes_get_weights_against_their_number(fits):
    X, y = stripes(60)
    keep = (y != 0) | (np.arange(60) < 20)
    DiffMICClassifier(**small(max_epochs=1, class_weight="balanced")).fit(X[keep], y[keep])
    _, training, _, _ = fits[0]
    weights = [training.weights[training.targets[:, c] == 1].unique() for c in range(3)]
    assert all(len(w) == 1 for w in weights)
    counts = training.targets.sum(dim=0).numpy()  # of the part on which losses are computed
    assert_allclose(float(weights[0] / weights[1]), counts[1] / counts[0], rtol=1e-5)


def imbalanced(seed=0):
    """Images with 60, 24 and 12 of the classes."""
    X, y = stripes(180, seed=seed)
    kept = np.concatenate([np.flatnonzero(y == c)[:n] for c, n in enumerate((60, 24, 12))])
    return X[np.sort(kept)], y[np.sort(kept)]


@pytest.mark.parametrize("class_weight", ["balanced", {0: 0.1, 2: 10.0}])
def test_class_weight_leaves_the_weights_of_the_validation_part_alone(fits, class_weight):
    X, y = imbalanced()
    sample_weight = np.random.RandomState(0).rand(len(y)) + 0.5
    for options in ({}, {"sample_weight": sample_weight}):
        parameters = small(max_epochs=1, class_weight=class_weight)
        DiffMICClassifier(**parameters).fit(X, y, **options)
        _, training, validation, _ = fits[-1]
        rows = validation.images.indices
        expected = sample_weight[rows] if options else np.ones(len(rows))
        assert_allclose(validation.weights, expected, rtol=1e-6)
        assert len(training.weights.unique()) > 1


def test_class_weight_takes_the_place_of_class_balanced_sampling(fits):
    X, y = imbalanced()
    weighted = DiffMICClassifier(**small(max_epochs=1, class_weight="balanced")).fit(X, y)
    plain = DiffMICClassifier(**small(max_epochs=1)).fit(X, y)
    assert [options.recipe.balance for *_, options in fits] == [0.0, 0.75]
    assert weighted.model_.drawing_ratio is None
    assert plain.model_.drawing_ratio is not None
    assert weighted.recipe.balance == 0.75  # the user's recipe stays as it was passed


def test_the_drawing_ratio_is_that_of_the_training_part_and_is_saved(fits, tmp_path):
    X, y = imbalanced()
    classifier = DiffMICClassifier(**small(max_epochs=1)).fit(X, y)
    counts = fits[0][1].targets.sum(dim=0).numpy()
    assert counts.sum() < len(y)
    ratio = classifier.model_.drawing_ratio
    assert_allclose(ratio, counts**-0.75)
    classifier.save_pretrained(tmp_path)
    loaded = DiffMICClassifier.from_pretrained(tmp_path, backbone=TinyBackbone(), device="cpu")
    assert_array_equal(loaded.model_.drawing_ratio, ratio)
    assert_array_equal(loaded.predict_proba(X), classifier.predict_proba(X))


def test_mean_probabilities_are_near_the_shares_of_the_classes():
    """Of images that say nothing, and without a calibration that would hide how they were drawn."""
    shares = np.array([0.7, 0.2, 0.1])
    y = np.repeat([0, 1, 2], (shares * 200).astype(int))
    X = np.random.RandomState(0).randint(0, 256, (400, 32, 32)).astype(np.uint8)
    classifier = DiffMICClassifier(**small(validation_fraction=None, max_epochs=2, augment=None))
    proba = classifier.fit(X[:200], y).predict_proba(X[200:])
    drawn = shares**0.25 / (shares**0.25).sum()  # 0.41, 0.30, 0.25 were each class drawn alike
    assert np.abs(proba.mean(axis=0) - shares).max() < 0.07
    assert np.abs(drawn - shares).max() > 0.2


def test_labels_that_do_not_exclude_each_other_are_drawn_uniformly(fitted_multilabel):
    assert fitted_multilabel.model_.drawing_ratio is None
