"""Measures against scikit-learn, values computed by hand, and loops."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from diffmic.errors import InputError
from diffmic.tasks import (
    calibration_errors,
    classification_metrics,
    expected_calibration_error,
)

RNG = np.random.RandomState(0)
TRUTH = RNG.randint(0, 4, 200)
PROBA = RNG.dirichlet(np.ones(4), 200) * 0.7 + 0.3 * np.eye(4)[TRUTH]
LABELS = RNG.randint(0, 2, (200, 3))
LABEL_PROBA = (0.6 * RNG.rand(200, 3) + 0.4 * LABELS).clip(0.01, 0.99)


def ece_loop(confidence, correct, n_bins=15):
    total = 0.0
    for b in range(n_bins):
        low, high = b / n_bins, (b + 1) / n_bins
        inside = [low <= c < high or (b == n_bins - 1 and c == 1) for c in confidence]
        if any(inside):
            chosen = np.flatnonzero(inside)
            gap = np.mean(correct[chosen]) - np.mean(confidence[chosen])
            total += len(chosen) / len(confidence) * abs(gap)
    return total


def test_metrics_are_scikit_learns():
    found, predicted = classification_metrics(TRUTH, PROBA, ordered=True), PROBA.argmax(axis=1)
    expected = {
        "accuracy": metrics.accuracy_score(TRUTH, predicted),
        "balanced_accuracy": metrics.balanced_accuracy_score(TRUTH, predicted),
        "macro_f1": metrics.f1_score(TRUTH, predicted, average="macro"),
        "auc": metrics.roc_auc_score(TRUTH, PROBA, multi_class="ovr"),
        "kappa": metrics.cohen_kappa_score(TRUTH, predicted, weights="quadratic"),
        "nll": metrics.log_loss(TRUTH, PROBA),
        "brier": metrics.brier_score_loss(TRUTH, PROBA, scale_by_half=False),
        "ece": ece_loop(PROBA.max(axis=1), predicted == TRUTH),
        "ece_mass": calibration_errors(TRUTH, PROBA)["ece_mass"].value,
        "ece_classwise": calibration_errors(TRUTH, PROBA)["ece_classwise"].value,
    }
    assert found == pytest.approx(expected)
    assert list(found) == list(expected)


def test_multilabel_metrics_are_scikit_learns():
    found, predicted = classification_metrics(LABELS, LABEL_PROBA), (LABEL_PROBA >= 0.5).astype(int)
    columns = range(3)
    expected = {
        "accuracy": metrics.accuracy_score(LABELS, predicted),
        "label_accuracy": 1 - metrics.hamming_loss(LABELS, predicted),
        "balanced_accuracy": np.mean(
            [metrics.balanced_accuracy_score(LABELS[:, c], predicted[:, c]) for c in columns]
        ),
        "macro_f1": metrics.f1_score(LABELS, predicted, average="macro"),
        "auc": metrics.roc_auc_score(LABELS, LABEL_PROBA, average="macro"),
        "nll": np.mean([metrics.log_loss(LABELS[:, c], LABEL_PROBA[:, c]) for c in columns]),
        "brier": np.mean(
            [metrics.brier_score_loss(LABELS[:, c], LABEL_PROBA[:, c]) for c in columns]
        ),
        "ece": ece_loop(LABEL_PROBA.ravel(), LABELS.ravel()),
        "ece_mass": calibration_errors(LABELS, LABEL_PROBA)["ece_mass"].value,
        "ece_classwise": calibration_errors(LABELS, LABEL_PROBA)["ece_classwise"].value,
    }
    assert found == pytest.approx(expected)


def test_two_classes_by_hand():
    found = classification_metrics([0, 0, 1, 1], [[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7]])
    assert found == pytest.approx(
        {
            "accuracy": 0.75,
            "balanced_accuracy": 0.75,
            "macro_f1": (2 / 3 + 4 / 5) / 2,
            "auc": 1.0,
            "nll": -np.log([0.9, 0.4, 0.8, 0.7]).mean(),
            "brier": 2 * np.mean([0.1**2, 0.6**2, 0.2**2, 0.3**2]),
            "ece": (abs(1 - 0.9) + abs(0 - 0.6) + abs(1 - 0.8) + abs(1 - 0.7)) / 4,
            # Four bins of one image each; by class 1 they hold 0.1, 0.6, 0.8 and 0.7.
            "ece_mass": (abs(1 - 0.9) + abs(0 - 0.6) + abs(1 - 0.8) + abs(1 - 0.7)) / 4,
            "ece_classwise": (0.1 + 0.6 + 0.2 + 0.3) / 4,
        }
    )


def test_a_grade_that_does_not_occur_still_counts_as_a_distance():
    # Grades 0, 0, 3, 3, 4 predicted as 0, 3, 3, 4, 4: sums of squared distances by hand.
    observed = 9 + 1
    rows, columns = np.array([2, 0, 0, 2, 1]), np.array([1, 0, 0, 2, 2])
    chance = sum(rows[i] * columns[j] * (i - j) ** 2 / 5 for i in range(5) for j in range(5))
    found = classification_metrics([0, 0, 3, 3, 4], np.eye(5)[[0, 3, 3, 4, 4]], ordered=True)
    assert found["kappa"] == pytest.approx(1 - observed / chance)


def test_classes_may_have_any_names():
    names = np.array(["a", "b", "c", "d"])
    assert classification_metrics(names[TRUTH], PROBA, classes=names) == classification_metrics(
        TRUTH, PROBA
    )


def test_a_label_that_is_no_class_is_an_error():
    with pytest.raises(InputError, match=r"y_true holds \['z'\]; the classes are \['a', 'b'\]"):
        classification_metrics(["a", "z"], [[0.5, 0.5]] * 2, classes=["a", "b"])
    with pytest.raises(InputError, match=r"y_true holds \[2\]; the classes are \[0, 1\]"):
        classification_metrics([0, 2], [[0.5, 0.5]] * 2)


def test_single_precision_gives_the_same_without_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = classification_metrics(TRUTH, PROBA.astype(np.float32))
    assert found == pytest.approx(classification_metrics(TRUTH, PROBA), rel=1e-5)


def test_classes_that_do_not_occur_are_left_out_of_the_means():
    truth = np.where(TRUTH == 3, 0, TRUTH)
    found, predicted = classification_metrics(truth, PROBA), PROBA.argmax(axis=1)
    recalls = [(predicted[truth == c] == c).mean() for c in range(3)]
    aucs = [metrics.roc_auc_score(truth == c, PROBA[:, c]) for c in range(3)]
    assert found["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    assert found["auc"] == pytest.approx(np.mean(aucs))
    f1 = metrics.f1_score(truth, predicted, average=None, labels=[0, 1, 2])
    assert found["macro_f1"] == pytest.approx(f1.mean())


@pytest.mark.parametrize("ordered", [False, True])
def test_a_single_class_that_occurs_has_no_auc_and_no_warning(ordered):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = classification_metrics([1, 1], [[0.2, 0.8], [0.1, 0.9]], ordered=ordered)
    assert found["accuracy"] == 1
    assert np.isnan(found["auc"])
    assert np.isnan(found.get("kappa", np.nan))


def test_multilabel_labels_that_do_not_occur_are_left_out_of_the_means():
    truth = LABELS.copy()
    truth[:, 1:] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = classification_metrics(truth, LABEL_PROBA)
    predicted = LABEL_PROBA[:, 0] >= 0.5
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(truth[:, 0], predicted))
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(truth[:, 0], LABEL_PROBA[:, 0]))
    assert found["balanced_accuracy"] == pytest.approx(
        metrics.balanced_accuracy_score(truth[:, 0], predicted)
    )


@pytest.mark.parametrize("value", [0, 1])
def test_multilabel_truth_that_is_all_alike_has_metrics_without_warning(value):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = classification_metrics(np.full((4, 2), value), np.full((4, 2), 0.5))
    assert np.isnan(found["auc"])
    assert np.isnan(found["balanced_accuracy"])
    assert np.isnan(found["macro_f1"]) == (value == 0)
    assert found["nll"] == pytest.approx(np.log(2))


def test_multilabel_thresholds_decide_what_is_present():
    proba = [[0.2, 0.6], [0.3, 0.7]]
    assert classification_metrics([[0, 0], [1, 1]], proba)["label_accuracy"] == 0.5
    moved = classification_metrics([[0, 0], [1, 1]], proba, thresholds=[0.3, 0.65])
    assert moved["label_accuracy"] == moved["accuracy"] == 1


def test_certain_and_wrong_is_costly_and_finite():
    assert 10 < classification_metrics([[0, 1]], [[1.0, 0.0]])["nll"] < np.inf
    assert 10 < classification_metrics([0, 1], [[0.0, 1.0], [0.0, 1.0]])["nll"] < np.inf


@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60),
    st.sampled_from([1, 2, 10, 15]),
)
def test_expected_calibration_error_is_a_loop_over_bins(pairs, n_bins):
    confidence, correct = map(np.asarray, zip(*pairs, strict=True))
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)  # at borders, as rounded
    expected = sum(
        (bins == b).sum()
        / len(pairs)
        * abs(correct[bins == b].mean() - confidence[bins == b].mean())
        for b in set(bins.tolist())
    )
    found = expected_calibration_error(confidence, correct, n_bins=n_bins)
    assert found == pytest.approx(expected, abs=1e-12)
    assert 0 <= found <= 1


def test_expected_calibration_error_by_hand():
    assert expected_calibration_error([1.0, 1.0], [True, True]) == 0
    assert expected_calibration_error([1.0, 1.0], [True, False]) == pytest.approx(0.5)
    assert expected_calibration_error([0.0, 0.5], [False, True], n_bins=2) == pytest.approx(0.25)


def test_labels_in_a_column_are_labels():
    proba = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    assert classification_metrics([[0], [1], [1]], proba) == classification_metrics(
        [0, 1, 1], proba
    )
