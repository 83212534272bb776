"""Multi-label thresholds: the best F1 to be expected, from held-out images."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from diffmic import InputError
from diffmic.inference import ThresholdAim, best_thresholds, chosen_thresholds


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


def draws(n=4000, *, share=0.2, seed=0):
    """Labels and their probabilities, which are right."""
    rng = np.random.RandomState(seed)
    logits = np.log(share / (1 - share)) + 2 * rng.randn(n, 1)
    proba = 1 / (1 + np.exp(-logits))
    return (rng.rand(n, 1) < proba).astype(np.float32), proba


def rates(targets, decided):
    return decided[targets > 0].mean(), 1 - decided[targets == 0].mean()


@pytest.mark.parametrize("least", [0.5, 0.8, 0.95, 1.0])
def test_a_sensitivity_is_reached_with_the_largest_specificity(least):
    y, p = draws()
    found = chosen_thresholds(y, p, ThresholdAim("rates", sensitivity=least))
    sensitivity, specificity = rates(y, p >= found.values)
    assert sensitivity >= least
    assert (found.sensitivity[0], found.specificity[0]) == pytest.approx((sensitivity, specificity))
    higher = np.sort(p[p > found.values[0]])[1]  # one image fewer
    assert rates(y, p >= higher)[0] < least or rates(y, p >= higher)[1] == specificity


@pytest.mark.parametrize("least", [0.5, 0.9, 0.99, 1.0])
def test_a_specificity_is_reached_with_the_largest_sensitivity(least):
    y, p = draws()
    found = chosen_thresholds(y, p, ThresholdAim("rates", specificity=least))
    sensitivity, specificity = rates(y, p >= found.values)
    assert specificity >= least
    lower = np.sort(p[p < found.values[0]])[-2]
    assert rates(y, p >= lower)[1] < least or rates(y, p >= lower)[0] == sensitivity


def test_youdens_index_is_the_largest():
    y, p = draws()
    found = chosen_thresholds(y, p, ThresholdAim("youden"), prior_count=0)
    best = sum(rates(y, p >= found.values))
    assert all(sum(rates(y, p >= t)) <= best + 1e-9 for t in np.linspace(0.01, 0.99, 99))
    # Of right probabilities that is the share of the label.
    soft = chosen_thresholds(y, p, ThresholdAim("youden"))
    assert soft.values[0] == pytest.approx(y.mean(), abs=0.05)


def test_weights_count_images_several_times_for_each_aim():
    y, p = draws(80)
    weights = np.random.RandomState(0).randint(1, 4, 80)
    for aim in (
        ThresholdAim(),
        ThresholdAim("youden"),
        ThresholdAim("rates", sensitivity=0.8),
        ThresholdAim("rates", specificity=0.8),
    ):
        few = chosen_thresholds(y, p, aim, weights=weights.astype(float), prior_count=0)
        many = chosen_thresholds(
            np.repeat(y, weights, axis=0), np.repeat(p, weights, axis=0), aim, prior_count=0
        )
        np.testing.assert_allclose(few.values, many.values)


def test_what_is_not_reached_is_said_label_by_label():
    y, p = draws()
    targets = np.column_stack([y, y, np.zeros_like(y)])
    proba = np.column_stack([p, np.full_like(p, 0.3), p])
    aim = ThresholdAim("rates", sensitivity=0.95, specificity=0.95)
    before = np.array([0.1, 0.2, 0.7])
    found = chosen_thresholds(targets, proba, aim, before=before)
    told = found.missed(aim, ("a", "b", "c"))
    assert [line[0] for line in told] == ["a", "b", "c"]
    assert "at best" in told[0]
    assert "no image is known to be with it" in told[2]
    assert found.values[2] == 0.7
    always = ThresholdAim("rates", sensitivity=0.95)
    (line,) = chosen_thresholds(targets[:, 1:2], proba[:, 1:2], always).missed(always, ("b",))
    assert "always deciding it" in line
    never = ThresholdAim("rates", specificity=0.95)
    (line,) = chosen_thresholds(targets[:, 1:2], proba[:, 1:2], never).missed(never, ("b",))
    assert "never deciding it" in line
    assert not chosen_thresholds(y, p, always).missed(always, ("a",))


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "auc"},
        {"name": "rates"},
        {"name": "f1", "sensitivity": 0.9},
        {"name": "rates", "sensitivity": 0.0},
        {"name": "rates", "sensitivity": 95},
        {"name": "rates", "specificity": float("nan")},
        {"name": "rates", "specificity": "0.9"},
        {"name": "rates", "specificity": True},
    ],
)
def test_what_is_no_aim_is_refused(wrong):
    with pytest.raises(InputError):
        ThresholdAim(**wrong)
