"""Other class shares: exact where classes are Gaussian and posteriors are known."""

import numpy as np
import pytest
from scipy.stats import norm

from diffmic.inference.prevalence import bootstrap_errors, estimated_shares, log_ratio

SHARES = np.array([0.6, 0.3, 0.1])
SHIFTED = np.array([0.1, 0.3, 0.6])
MEANS = np.array([0.0, 2.0, 4.0])


def sample(shares, n, seed=0):
    """Labels, and values whose classes are Gaussian with known means."""
    rng = np.random.RandomState(seed)
    y = rng.choice(len(shares), n, p=shares)
    return y, MEANS[y] + rng.randn(n)


def posterior(x, shares):
    joint = shares * norm.pdf(x[:, None] - MEANS)
    return joint / joint.sum(axis=1, keepdims=True)


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def test_the_correction_gives_the_exact_posterior():
    _, x = sample(SHIFTED, 200)
    corrected = softmax(np.log(posterior(x, SHARES)) + log_ratio(SHIFTED, SHARES, exclusive=True))
    np.testing.assert_allclose(corrected, posterior(x, SHIFTED), rtol=1e-9)


def test_the_correction_of_a_label_gives_its_exact_posterior():
    rng = np.random.RandomState(0)
    x = rng.randn(200)
    before, after = 0.1, 0.5
    of = [
        p * norm.pdf(x - 1) / (p * norm.pdf(x - 1) + (1 - p) * norm.pdf(x)) for p in (before, after)
    ]
    ratio = log_ratio(np.array([after]), np.array([before]), exclusive=False)
    corrected = 1 / (1 + np.exp(-(np.log(of[0]) - np.log1p(-of[0]) + ratio[0])))
    np.testing.assert_allclose(corrected, of[1], rtol=1e-9)


def test_equal_shares_change_nothing_even_where_they_are_zero_or_one():
    shares = np.array([0.0, 0.5, 1.0])
    for exclusive in (True, False):
        assert (log_ratio(shares, shares, exclusive=exclusive) == 0).all()


@pytest.mark.parametrize("n", [200, 5000])
def test_em_finds_the_shares_within_its_error(n):
    errors = []
    for seed in range(10):
        _, x = sample(SHIFTED, n, seed)
        proba = posterior(x, SHARES)
        found, _, converged = estimated_shares(proba, SHARES, exclusive=True)
        assert converged
        assert found.sum() == pytest.approx(1)
        spread = bootstrap_errors(proba, SHARES, found, exclusive=True, n_bootstrap=40, seed=seed)
        errors.append((found - SHIFTED) / spread)
    # Standard normal, if the bootstrap tells the truth: 30 values.
    assert 0.6 < np.sqrt(np.mean(np.square(errors))) < 1.5


def test_em_has_the_largest_likelihood():
    _, x = sample(SHIFTED, 500)
    ratio = posterior(x, SHARES) / SHARES
    found, _, _ = estimated_shares(posterior(x, SHARES), SHARES, exclusive=True)
    best = np.log(ratio @ found).mean()
    rng = np.random.RandomState(0)
    for other in (SHIFTED, *rng.dirichlet(100 * found, 20)):
        assert np.log(ratio @ other).mean() <= best + 1e-9


def test_em_finds_the_share_of_each_label_on_its_own():
    rng = np.random.RandomState(0)
    before, after = np.array([0.1, 0.5]), np.array([0.4, 0.2])
    y = rng.rand(4000, 2) < after
    x = 2 * y + rng.randn(4000, 2)
    p = before * norm.pdf(x - 2) / (before * norm.pdf(x - 2) + (1 - before) * norm.pdf(x))
    found, _, converged = estimated_shares(p, before, exclusive=False)
    assert converged
    np.testing.assert_allclose(found, after, atol=0.03)


def test_classes_that_cannot_be_told_apart_do_not_converge_soon():
    rng = np.random.RandomState(0)
    noise = 0.5 + 0.001 * rng.randn(200)
    found, n, converged = estimated_shares(
        np.column_stack([noise, 1 - noise]),
        np.array([0.5, 0.5]),
        exclusive=True,
        max_iterations=50,
    )
    assert (n, converged) == (50, False)
    assert found.sum() == pytest.approx(1)


def test_a_class_that_was_never_seen_keeps_its_share_of_zero():
    proba = np.array([[0.7, 0.3, 0.0], [0.2, 0.8, 0.0]])
    found, _, _ = estimated_shares(proba, np.array([0.5, 0.5, 0.0]), exclusive=True)
    assert found[2] == 0
    label, _, _ = estimated_shares(proba, np.array([0.5, 1.0, 0.0]), exclusive=False)
    assert label[1:].tolist() == [1.0, 0.0]


def test_the_likelihood_of_a_shifted_sample_rises_with_known_and_with_estimated_shares():
    y, x = sample(SHIFTED, 3000)
    proba = posterior(x, SHARES)
    estimate, _, _ = estimated_shares(proba, SHARES, exclusive=True)

    def nll(p):
        return -np.log(p[np.arange(len(y)), y]).mean()

    corrected = [
        softmax(np.log(proba) + log_ratio(shares, SHARES, exclusive=True))
        for shares in (SHIFTED, estimate)
    ]
    assert nll(corrected[0]) < nll(proba) - 0.1
    assert nll(corrected[1]) == pytest.approx(nll(corrected[0]), abs=0.01)
