"""Prediction sets hold the truth as often as asked for."""

import sys

import numpy as np
import pytest
from mapie.classification import SplitConformalClassifier
from numpy.testing import assert_array_equal

from diffmic import InputError
from diffmic.inference import (
    PredictionSets,
    fewest_images,
    included_classes,
    true_probabilities,
)
from diffmic.inference.sets import _Given
from diffmic.tasks import MULTICLASS, MULTILABEL


def exclusive(n, seed=0, n_classes=4):
    rng = np.random.RandomState(seed)
    proba = rng.dirichlet(np.full(n_classes, 0.7), n)
    return proba, np.array([rng.choice(n_classes, p=p) for p in proba])


def multilabel(n, seed=0, n_labels=6):
    rng = np.random.RandomState(seed)
    proba = rng.beta(0.5, 2, (n, n_labels))
    return proba, (rng.rand(n, n_labels) < proba).astype(float)


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.95])
def test_sets_are_those_of_mapie_on_the_probabilities_themselves(coverage):
    proba, y = exclusive(300)
    new, _ = exclusive(200, seed=1)
    scores = true_probabilities(proba, np.eye(4, dtype=bool)[y])
    assert scores.shape == (300, 1)
    conformal = SplitConformalClassifier(
        _Given(4), confidence_level=coverage, conformity_score="lac", prefit=True
    ).conformalize(proba, y)
    expected = conformal.predict_set(new)[1][:, :, 0]
    assert_array_equal(included_classes(scores, new, MULTICLASS, coverage), expected)


@pytest.mark.parametrize("coverage", [0.6, 0.9])
def test_coverage_of_exclusive_classes_is_what_was_asked_for(coverage):
    found = []
    for seed in range(20):
        proba, y = exclusive(400, seed)
        scores = true_probabilities(proba[:200], np.eye(4, dtype=bool)[y[:200]])
        included = included_classes(scores, proba[200:], MULTICLASS, coverage)
        found.append(PredictionSets(included, np.arange(4), coverage).coverage_of(y[200:])[0])
    assert np.mean([of["coverage"] for of in found]) == pytest.approx(coverage, abs=0.02)


@pytest.mark.parametrize("coverage", [0.6, 0.9])
def test_recall_of_multi_label_sets_is_at_least_what_was_asked_for(coverage):
    found = []
    for seed in range(6):
        proba, y = multilabel(300, seed)
        scores = true_probabilities(proba[:150], y[:150] == 1)
        included = included_classes(scores, proba[150:], MULTILABEL, coverage)
        sets = PredictionSets(included, np.arange(6), coverage, exclusive=False)
        found.append(sets.coverage_of(y[150:])[0])
    assert coverage - 0.02 < np.mean([of["coverage"] for of in found]) < coverage + 0.06
    assert 0 < np.mean([of["mean_size"] for of in found]) < 5


def test_what_is_kept_tells_neither_image_nor_class():
    proba, y = multilabel(50)
    scores = true_probabilities(proba, y == 1)
    assert len(scores) == (y.any(axis=1)).sum()
    assert (np.diff(scores[:, 0]) >= 0).all()
    assert all((np.diff(row[~np.isnan(row)]) <= 0).all() for row in scores)
    known = scores[~np.isnan(scores)]
    assert_array_equal(np.sort(known), np.sort(proba[y == 1]))


def test_coverage_is_shown_for_each_class():
    included = np.array([[True, False], [True, True], [False, False], [True, False]])
    sets = PredictionSets(included, np.array(["a", "b"]), 0.9)
    every, a, b = sets.coverage_of(["a", "b", "b", "b"])
    assert (every["class"], every["n_images"], every["coverage"]) == (None, 4, 0.5)
    assert (a["class"], a["coverage"], a["mean_size"]) == ("a", 1, 1)
    assert (b["n_images"], b["coverage"]) == (3, 1 / 3)
    assert b["low"] == pytest.approx(0.0084, abs=1e-4)  # Clopper and Pearson, 1 of 3
    assert b["high"] == pytest.approx(0.9057, abs=1e-4)
    assert sets[1] == ["a", "b"]
    assert sets[2] == []
    assert sets.sizes.tolist() == [1, 2, 0, 1]
    assert sets.to_frame().columns.tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("y", "told"), [(["a"], "shape"), (["a", "c"], "'c'"), ([[1, 0], [0, 1]], "shape")]
)
def test_labels_that_do_not_fit_are_refused(y, told):
    sets = PredictionSets(np.ones((2, 2), bool), np.array(["a", "b"]), 0.9)
    with pytest.raises(InputError, match=told):
        sets.coverage_of(y)


@pytest.mark.parametrize(("coverage", "fewest"), [(0.9, 11), (0.95, 20), (0.75, 4), (0.1, 11)])
def test_a_coverage_takes_some_images(coverage, fewest):
    assert fewest_images(coverage) == fewest
    proba, y = exclusive(fewest)
    scores = true_probabilities(proba, np.eye(4, dtype=bool)[y])
    assert included_classes(scores, proba, MULTICLASS, coverage).shape == (fewest, 4)
    proba, y = multilabel(100)
    scores = true_probabilities(proba, y == 1)[:fewest]
    assert included_classes(scores, proba, MULTILABEL, coverage).shape == (100, 6)


def test_without_mapie_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mapie.classification", None)
    proba, _ = exclusive(20)
    with pytest.raises(ImportError, match=r"diffmic\[sets\]"):
        included_classes(proba[:, :1], proba, MULTICLASS, 0.9)
