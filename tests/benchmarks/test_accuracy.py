"""The accuracy benchmark: what it adds up from runs is right."""

import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score, log_loss

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))
from accuracy_bench.results import (  # noqa: E402
    N_RESAMPLES,
    Answers,
    Results,
    macro_f1,
    paired_differences,
    summary,
)


def answers(sharpness, *, seed=0, n=200, multilabel=False):
    """Probabilities that know the truth the better, the sharper they are."""
    rng = np.random.RandomState(seed)
    targets = np.eye(3, dtype=int)[rng.randint(3, size=n)]
    if multilabel:
        targets = (rng.rand(n, 3) < 0.3).astype(int)
    logits = sharpness * (targets - 0.5) + rng.normal(size=(n, 3))
    proba = 1 / (1 + np.exp(-logits))
    if multilabel:
        return Answers(targets, proba, np.full(3, 0.5))
    return Answers(targets, proba / proba.sum(axis=1, keepdims=True), np.empty(0))


@pytest.mark.parametrize("multilabel", [False, True])
def test_f1_and_losses_are_scikit_learns(multilabel):
    of = answers(2.0, multilabel=multilabel)
    expected = f1_score(of.targets, of.predicted, average="macro")
    assert macro_f1(of, np.ones((1, 200)))[0] == pytest.approx(expected)
    if multilabel:
        columns = [log_loss(of.targets[:, c], of.proba[:, c]) for c in range(3)]
        assert of.losses().mean() == pytest.approx(np.mean(columns))
    else:
        assert of.losses().mean() == pytest.approx(log_loss(of.targets, of.proba))


def test_a_resample_counts_an_image_as_often_as_it_is_drawn():
    of, rng = answers(1.0), np.random.RandomState(1)
    index = rng.randint(200, size=200)
    counts = np.bincount(index, minlength=200)[None]
    drawn = Answers(of.targets[index], of.proba[index], of.thresholds)
    assert macro_f1(of, counts)[0] == pytest.approx(macro_f1(drawn, np.ones((1, 200)))[0])


def test_the_better_method_has_differences_above_zero():
    better, worse = [answers(3.0)], [answers(1.0)]
    found = paired_differences(better, worse, np.random.default_rng(0))
    for values in found.values():
        assert values.shape == (1 + N_RESAMPLES,)
        assert np.percentile(values, 2.5) > 0
    back = paired_differences(worse, better, np.random.default_rng(0))
    np.testing.assert_allclose(back["nll"], -found["nll"])


def test_a_method_does_not_differ_from_itself():
    runs = [answers(1.0, seed=seed) for seed in range(3)]
    found = paired_differences(runs, runs, np.random.default_rng(0))
    assert not any(values.any() for values in found.values())


def test_intervals_cover_the_truth_as_often_as_they_say():
    """Of 100 pairs of methods that are equally good, about 5 intervals leave 0 out."""
    outside = 0
    for seed in range(100):
        a, b = answers(1.0, seed=seed, n=80), answers(1.0, seed=seed, n=80)
        noise = np.random.RandomState(seed + 1000).normal(size=(2, 80, 3))
        a, b = (
            Answers(x.targets, np.exp(e) / np.exp(e).sum(axis=1, keepdims=True), x.thresholds)
            for x, e in zip((a, b), noise, strict=True)
        )
        values = paired_differences([a], [b], np.random.default_rng(seed))["nll"]
        low, high = np.percentile(values[1:], [2.5, 97.5])
        outside += not low <= 0 <= high
    assert 0 <= outside <= 13


def test_results_come_back_from_disk(tmp_path):
    results, of = Results(tmp_path / "deep" / "runs.csv"), answers(1.0)
    assert results.rows() == []
    for seed, f1 in ((0, 0.5), (1, 0.7)):
        row = {"set": "a", "seed": seed, "method": "prior", "part": "val", "macro_f1": f1}
        results.add(row)
    assert results.has("a", 1, "prior", "val")
    assert not results.has("a", 1, "prior", "test")
    [(name, method, n_runs, measures)] = summary(results.rows(), "val")
    assert (name, method, n_runs) == ("a", "prior", 2)
    assert measures == {"macro_f1": pytest.approx((0.6, 0.1))}
    results.keep("a", 0, "prior", of)
    kept = results.answers("a", 0, "prior")
    np.testing.assert_array_equal(kept.targets, of.targets)
    np.testing.assert_allclose(kept.proba, of.proba, atol=1e-3)
    assert results.answers("a", 1, "prior") is None
