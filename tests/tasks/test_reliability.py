"""Calibration errors in bins of equal mass, and their intervals."""

import numpy as np
import pytest

from diffmic import InputError
from diffmic.tasks import (
    calibration_errors,
    classification_metrics,
    expected_calibration_error,
)


def drawn(n, *, sharper=1.0, seed=0, n_classes=3):
    """Labels drawn from probabilities, and these probabilities made sharper."""
    rng = np.random.RandomState(seed)
    logits = 2 * rng.randn(n, n_classes)
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    y = (rng.rand(n, 1) < true.cumsum(axis=1)).argmax(axis=1)
    told = np.exp(sharper * logits)
    return y, told / told.sum(axis=1, keepdims=True)


def by_hand(confidence, correct, n_bins):
    order = np.argsort(confidence, kind="stable")
    parts = np.array_split(order, n_bins)
    gaps = [abs((correct[p] - confidence[p]).mean()) * len(p) for p in parts if len(p)]
    return sum(gaps) / len(confidence)


def test_bins_of_equal_mass_hold_equal_numbers_of_predictions():
    rng = np.random.RandomState(0)
    confidence = rng.rand(150)
    correct = (rng.rand(150) < confidence).astype(float)
    found = expected_calibration_error(confidence, correct, bins="mass")
    assert found == pytest.approx(by_hand(confidence, correct, 15))


def test_the_order_of_images_of_equal_probability_does_not_matter():
    confidence, correct = np.full(100, 0.7), np.r_[np.ones(70), np.zeros(30)]
    shuffled = np.random.RandomState(0).permutation(correct)
    for each in (correct, correct[::-1], shuffled):
        assert expected_calibration_error(confidence, each, bins="mass") == pytest.approx(0)


def test_other_bins_are_refused():
    with pytest.raises(InputError, match="'width' or 'mass'"):
        expected_calibration_error([0.5], [1], bins="height")


def test_fewer_images_than_bins_are_measured():
    assert expected_calibration_error([0.9, 0.2], [1, 0], bins="mass") == pytest.approx(0.15)


@pytest.mark.parametrize("sharper", [1.0, 2.0])
def test_intervals_hold_what_a_large_sample_gives(sharper):
    whole = calibration_errors(*drawn(200_000, sharper=sharper, seed=1), n_resamples=2)
    inside = {name: 0 for name in whole}
    for seed in range(20):
        found = calibration_errors(
            *drawn(500, sharper=sharper, seed=10 + seed), n_resamples=100, random_state=seed
        )
        for name, interval in found.items():
            assert interval.low <= interval.high
            near = whole[name].value if sharper > 1 else interval.of_chance
            inside[name] += interval.low <= near <= interval.high
    assert min(inside.values()) >= 15


def test_an_error_of_chance_is_told_apart_from_one_of_the_probabilities():
    good = calibration_errors(*drawn(400), n_resamples=50)
    bad = calibration_errors(*drawn(400, sharper=3.0), n_resamples=50)
    for name in good:
        assert good[name].value < 2 * good[name].of_chance
        assert bad[name].value > 2 * bad[name].of_chance


def test_the_interval_over_patients_is_wider_where_images_repeat():
    y, p = drawn(100, sharper=2.0)
    y, p, patients = np.tile(y, 5), np.tile(p, (5, 1)), np.tile(np.arange(100), 5)
    alone = calibration_errors(y, p, n_resamples=200)["ece_mass"]
    grouped = calibration_errors(y, p, n_resamples=200, groups=patients)["ece_mass"]
    assert grouped.high - grouped.low > 1.5 * (alone.high - alone.low)


def test_multilabel_errors_leave_unknown_labels_out():
    rng = np.random.RandomState(0)
    p = rng.rand(300, 2)
    y = (rng.rand(300, 2) < p).astype(float)
    y[::3, 0] = np.nan
    found = calibration_errors(y, p, n_resamples=20)
    known = ~np.isnan(y)
    assert found["ece_mass"].value == pytest.approx(
        expected_calibration_error(p[known], y[known], bins="mass")
    )
    columns = [
        expected_calibration_error(p[known[:, c], c], y[known[:, c], c], bins="mass")
        for c in (0, 1)
    ]
    assert found["ece_classwise"].value == pytest.approx(np.mean(columns))
    metrics = classification_metrics(y, p)
    assert metrics["ece_mass"] == pytest.approx(found["ece_mass"].value)
    assert metrics["ece_classwise"] == pytest.approx(found["ece_classwise"].value)


def test_classes_may_have_names():
    y, p = drawn(200)
    words = np.array(["a", "b", "c"])
    named = calibration_errors(words[y], p, classes=words, n_resamples=3)
    assert named["ece_mass"] == calibration_errors(y, p, n_resamples=3)["ece_mass"]
    metrics = classification_metrics(words[y], p, classes=words)
    assert metrics["ece_mass"] == named["ece_mass"].value
    assert metrics["ece_classwise"] == named["ece_classwise"].value
    with pytest.raises(InputError, match="'z'"):
        calibration_errors(["z"] * 200, p, classes=words)
