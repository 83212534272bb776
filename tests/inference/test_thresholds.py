"""Multi-label thresholds: the best F1 to be expected, from held-out images."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from diffmic.inference import best_thresholds


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.booleans(), st.one_of(st.floats(0, 1), st.sampled_from([0.1, 0.5, 0.9]))),
        min_size=1,
        max_size=30,
    ).filter(lambda pairs: any(present for present, _ in pairs))
)
def test_where_labels_alone_count_no_threshold_has_a_larger_f1(pairs):
    truth, proba = map(np.asarray, zip(*pairs, strict=True))
    found = best_thresholds(truth[:, None].astype(np.float32), proba[:, None], prior_count=0)
    assert found.shape == (1,)
    best = max(f1_score(truth, proba >= t, zero_division=0) for t in [*proba, 0.5])
    assert f1_score(truth, proba >= found[0], zero_division=0) == pytest.approx(best)


def test_a_label_that_never_occurs_keeps_one_half():
    targets = np.array([[1, 0], [0, 0]], np.float32)
    found = best_thresholds(targets, np.array([[0.3, 0.9], [0.1, 0.8]]))
    np.testing.assert_allclose(found, [0.2, 0.5])


def test_a_label_that_always_occurs_is_found_in_less_probable_images_too():
    found = best_thresholds(np.ones((3, 1), np.float32), np.array([[0.2], [0.7], [0.4]]))
    np.testing.assert_allclose(found, [0.1])


def test_each_label_has_its_own_threshold_midway_between_what_passes_and_what_does_not():
    targets = np.array([[0, 0], [0, 0], [1, 0], [1, 1]], np.float32)
    proba = np.array([[0.1, 0.1], [0.2, 0.2], [0.3, 0.6], [0.4, 0.8]])
    np.testing.assert_allclose(best_thresholds(targets, proba, prior_count=0), [0.25, 0.7])


def test_probabilities_that_are_all_but_certain_leave_room_for_new_images():
    targets = np.array([[1], [1], [0], [0]], np.float32)
    found = best_thresholds(targets, np.array([[1.0], [1.0], [1e-12], [0.0]]))
    np.testing.assert_allclose(found, [0.5])


def test_few_positives_do_not_outweigh_what_the_probabilities_say():
    proba = np.linspace(0.99, 0.01, 50)[:, None] ** 2
    targets = np.zeros((50, 1), np.float32)
    targets[0] = 1  # taken alone it asks for a threshold that nothing else passes
    hard = best_thresholds(targets, proba, prior_count=0)
    soft = best_thresholds(targets, proba)
    assert (proba >= hard).sum() == 1
    expected = [2 * proba[proba >= t].sum() / (proba.sum() + (proba >= t).sum()) for t in proba]
    assert abs((proba >= soft).sum() - (1 + np.argmax(expected))) <= 2


def test_many_positives_decide_for_themselves():
    rng = np.random.RandomState(0)
    truth = rng.rand(4000) < 0.5
    proba = np.where(truth, 0.3, 0.1) + 0.05 * rng.rand(4000)  # far too small throughout
    found = best_thresholds(truth[:, None].astype(np.float32), proba[:, None])
    assert f1_score(truth, proba >= found[0]) == 1
