"""Decisions by cost and for grades, where probabilities are known to be true."""

import itertools

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import balanced_accuracy_score, cohen_kappa_score

from diffmic.inference.decisions import (
    cheapest,
    expected_position,
    kappa_cuts,
    moved_thresholds,
    named_costs,
    present_by_cost,
    recentred_cuts,
)

SHARES = np.array([0.45, 0.1, 0.3, 0.05, 0.1])


def sample(n, seed=0, *, noise=1.2, shares=SHARES):
    """Grades and their exact posterior: a Gaussian value about each grade."""
    rng = np.random.RandomState(seed)
    y = rng.choice(len(shares), n, p=shares)
    x = y + noise * rng.randn(n)
    joint = shares * norm.pdf((x[:, None] - np.arange(len(shares))) / noise)
    return y, joint / joint.sum(axis=1, keepdims=True)


def kappa(y, decided):
    return cohen_kappa_score(y, decided, weights="quadratic", labels=np.arange(len(SHARES)))


def by_cuts(proba, cuts):
    return (expected_position(proba)[:, None] >= cuts).sum(axis=1)


@pytest.mark.parametrize("seed", range(3))
def test_the_measured_cost_is_the_smallest_for_the_decision_by_expected_cost(seed):
    y, proba = sample(20_000, seed)
    costs = np.random.RandomState(seed).rand(5, 5) * 10
    np.fill_diagonal(costs, 0)
    spent = costs[y, cheapest(proba, costs)].mean()
    others = (proba.argmax(axis=1), by_cuts(proba, np.arange(4) + 0.5), cheapest(proba, costs.T))
    for other in others:
        assert spent < costs[y, other].mean()


def test_balanced_costs_give_the_largest_balanced_accuracy():
    y, proba = sample(20_000)
    decided = cheapest(proba, named_costs("balanced", SHARES))
    assert (decided == (proba / SHARES).argmax(axis=1)).all()
    best = balanced_accuracy_score(y, decided)
    assert best > balanced_accuracy_score(y, proba.argmax(axis=1)) + 0.02
    assert best > balanced_accuracy_score(y, by_cuts(proba, kappa_cuts(proba)))


def test_equal_costs_decide_for_the_most_probable_class():
    _, proba = sample(500)
    assert (cheapest(proba, named_costs("equal", SHARES)) == proba.argmax(axis=1)).all()


def test_quadratic_costs_round_the_expected_grade():
    _, proba = sample(500)
    decided = cheapest(proba, named_costs("quadratic", SHARES))
    assert (decided == expected_position(proba).round()).all()


def test_rows_are_the_truth_and_columns_the_decision():
    costs = np.array([[0.0, 1.0], [100.0, 0.0]])  # to overlook class 1 is dear
    assert cheapest(np.array([[0.95, 0.05]]), costs).tolist() == [1]
    assert cheapest(np.array([[0.95, 0.05]]), costs.T).tolist() == [0]


def test_labels_are_decided_by_what_their_absence_and_presence_cost():
    costs = np.broadcast_to(np.array([[0.0, 1.0], [9.0, 0.0]]), (2, 2, 2))
    found = present_by_cost(np.array([[0.05, 0.15]]), costs)
    assert found.tolist() == [[0, 1]]  # from 1 / (1 + 9) on
    each = np.stack([costs[0], costs[0].T])
    assert present_by_cost(np.array([[0.15, 0.15]]), each).tolist() == [[1, 0]]


@pytest.mark.parametrize("noise", [0.5, 1.2, 2.0])
def test_cut_points_have_a_larger_kappa_than_other_decisions(noise):
    y, proba = sample(50_000, noise=noise)
    best = kappa(y, by_cuts(proba, kappa_cuts(proba)))
    argmax = kappa(y, proba.argmax(axis=1))
    rounded = kappa(y, by_cuts(proba, np.arange(4) + 0.5))
    assert best > argmax
    assert best > rounded - 1e-4
    if noise > 1:
        assert best > rounded + 0.002


def test_no_other_cut_points_have_a_larger_kappa():
    y, proba = sample(50_000)
    cuts = kappa_cuts(proba)
    best = kappa(y, by_cuts(proba, cuts))
    for moves in itertools.product((-0.15, 0, 0.15), repeat=4):
        assert kappa(y, by_cuts(proba, cuts + moves)) < best + 0.001


def test_cut_points_of_a_part_do_on_new_images_what_those_of_many_do():
    y, proba = sample(50_000, seed=1)
    best = kappa(y, by_cuts(proba, kappa_cuts(proba)))
    for seed in range(5):
        few = kappa_cuts(sample(100, seed=10 + seed)[1])
        assert kappa(y, by_cuts(proba, few)) > best - 0.01


def test_weights_count_images_several_times():
    _, proba = sample(60)
    weights = np.random.RandomState(0).randint(1, 4, 60)
    np.testing.assert_allclose(
        kappa_cuts(proba, weights.astype(float)), kappa_cuts(np.repeat(proba, weights, axis=0))
    )


def test_probabilities_that_say_nothing_keep_the_cuts_inside_the_grades():
    cuts = kappa_cuts(np.tile(SHARES, (30, 1)))
    assert (np.diff(cuts) >= 0).all()
    assert cuts.min() >= 0
    assert cuts.max() <= 4
    certain = kappa_cuts(np.eye(5)[[2, 2, 2]])
    assert (by_cuts(np.eye(5), certain) == np.arange(5)).all()


def test_cut_points_move_with_the_mean_grade_of_the_population():
    other = SHARES[::-1].copy()
    _, here = sample(50_000)
    _, there = sample(50_000, shares=other)
    np.testing.assert_allclose(
        recentred_cuts(kappa_cuts(here), other), kappa_cuts(there), atol=0.05
    )


def test_the_same_images_pass_a_threshold_that_moves_with_the_probabilities():
    rng = np.random.RandomState(0)
    proba, thresholds, odds = (
        rng.rand(200, 3),
        np.array([0.1, 0.5, 0.9]),
        np.array([2.0, -1.0, 0.0]),
    )
    moved = 1 / (1 + np.exp(-(np.log(proba) - np.log1p(-proba) + odds)))
    assert ((moved >= moved_thresholds(thresholds, odds)) == (proba >= thresholds)).all()


def test_a_label_that_never_occurs_is_not_decided():
    assert not (
        np.zeros(3) >= moved_thresholds(np.array([0.0, 0.3, 1.0]), np.full(3, -np.inf))
    ).any()
