"""A temperature makes probabilities of scores, and recovers one that is known."""

import json
from itertools import product, starmap

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffmic.inference import STAGES, Calibration
from diffmic.inference.calibration import TEMPERATURES, negative_log_likelihood


def draw(proba, rng):
    """Targets drawn from probabilities: one-hot by rows, or each on its own."""
    if proba.ndim == 2:
        return torch.from_numpy(np.stack([rng.multinomial(1, p) for p in proba]))
    return torch.from_numpy(rng.binomial(1, proba[0]))


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_known_temperature_of_logits_is_recovered(temperature, dtype):
    rng = np.random.RandomState(0)
    logits = 2 * rng.randn(5000, 4)
    true = torch.from_numpy(logits / temperature).softmax(dim=1).numpy()
    scores = torch.from_numpy(logits).to(dtype)
    fitted = Calibration.fit("prior", scores, draw(true, rng), multilabel=False)
    assert fitted.temperature == pytest.approx(temperature, rel=0.06)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
@pytest.mark.parametrize("shift", [-2.0, 0.0, 1.0])
def test_a_known_temperature_and_shift_of_multilabel_logits_are_recovered(temperature, shift):
    rng = np.random.RandomState(0)
    logits = 2 * rng.randn(5000, 4)
    true = torch.from_numpy(logits / temperature + shift).sigmoid().numpy()
    fitted = Calibration.fit(
        "prior", torch.from_numpy(logits), draw(true[None], rng), multilabel=True
    )
    assert fitted.temperature == pytest.approx(temperature, rel=0.1)
    assert fitted.shift == pytest.approx(shift, abs=0.1)


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.6])
@pytest.mark.parametrize("multilabel", [False, True])
def test_a_known_temperature_of_diffusion_scores_is_recovered(temperature, multilabel):
    rng = np.random.RandomState(0)
    scores = rng.dirichlet(np.ones(3), 5000).clip(0.01, 0.99)
    if multilabel:
        true = torch.from_numpy(np.log(scores / (1 - scores)) / temperature).sigmoid().numpy()[None]
    else:
        true = torch.from_numpy(np.log(scores) / temperature).softmax(dim=1).numpy()
    fitted = Calibration.fit(
        "diffusion", torch.from_numpy(scores), draw(true, rng), multilabel=multilabel
    )
    assert fitted.temperature == pytest.approx(temperature, rel=0.1)
    assert fitted.shift == (pytest.approx(0, abs=0.1) if multilabel else 0)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("spread", [0.2, 1.0, 10.0])
def test_no_other_temperature_or_shift_has_a_smaller_loss(stage, multilabel, spread):
    rng = np.random.RandomState(1)
    targets = torch.from_numpy(np.eye(3)[rng.randint(0, 3, 300)])
    scores = spread * (targets + torch.from_numpy(rng.randn(300, 3)))
    fitted = Calibration.fit(stage, scores, targets, multilabel=multilabel)

    def loss(temperature, shift=0.0):
        logits = Calibration(stage, multilabel, temperature, shift).logits(scores)
        doubt = (np.log(temperature) ** 2 + shift**2) / (2 * len(targets))
        return negative_log_likelihood(logits, targets, multilabel) + doubt

    grid = product(np.geomspace(*TEMPERATURES, 60), np.linspace(-2, 2, 20) if multilabel else [0.0])
    assert loss(fitted.temperature, fitted.shift) <= min(starmap(loss, grid)) + 1e-4


SCORES = st.lists(
    st.lists(st.floats(-1, 2, width=32), min_size=3, max_size=3), min_size=1, max_size=20
).map(torch.tensor)


@given(SCORES, st.sampled_from(STAGES), st.floats(*TEMPERATURES))
def test_rows_sum_to_1_whatever_the_scores(scores, stage, temperature):
    proba = Calibration(stage, False, temperature)(scores)
    assert proba.dtype == torch.float64
    assert proba.shape == scores.shape
    assert (proba >= 0).all()
    assert torch.allclose(proba.sum(dim=1), torch.ones(len(scores), dtype=torch.float64))


@given(
    st.lists(st.permutations([0.1, 0.3, 0.6]), min_size=1, max_size=20).map(torch.tensor),
    st.sampled_from(STAGES),
    st.booleans(),
    st.floats(*TEMPERATURES),
)
def test_calibration_leaves_the_order_of_the_classes_alone(scores, stage, multilabel, temperature):
    proba = Calibration(stage, multilabel, temperature)(scores)
    assert torch.equal(proba.argsort(dim=1), scores.argsort(dim=1))


@given(SCORES, st.sampled_from(STAGES), st.floats(*TEMPERATURES))
def test_multilabel_probabilities_of_a_label_do_not_depend_on_the_others(
    scores, stage, temperature
):
    calibration = Calibration(stage, True, temperature)
    proba = calibration(scores)
    assert ((proba >= 0) & (proba <= 1)).all()
    assert torch.allclose(calibration(scores[:, :1]), proba[:, :1], rtol=1e-12)


@given(SCORES, st.booleans())
def test_a_row_does_not_depend_on_its_neighbours(scores, multilabel):
    calibration = Calibration("diffusion", multilabel, 1.3)
    rows = torch.cat([calibration(row[None]) for row in scores])
    assert torch.allclose(calibration(scores), rows, rtol=1e-12)


def test_a_temperature_of_1_reads_scores_as_probabilities_and_logits_as_logits():
    scores = torch.tensor([[0.7, 0.2, 0.1]], dtype=torch.float64)
    assert torch.allclose(Calibration("diffusion", False)(scores), scores)
    assert torch.allclose(Calibration("diffusion", True)(scores), scores)
    assert torch.allclose(Calibration("prior", False)(scores), scores.softmax(dim=1))
    assert torch.allclose(Calibration("prior", True)(scores), scores.sigmoid())


def test_scores_out_of_range_are_read_as_nearly_certain():
    proba = Calibration("diffusion", False)(torch.tensor([[1.4, -0.3, -0.1]]))
    assert proba[0, 0] > 0.95
    assert proba[0, 1] == proba[0, 2] > 0


@pytest.mark.parametrize("multilabel", [False, True])
def test_scores_that_are_always_right_get_a_low_temperature_and_leave_some_doubt(multilabel):
    targets = torch.eye(2).repeat(10, 1)
    fitted = Calibration.fit("prior", 4 * targets - 2, targets, multilabel=multilabel)
    assert 0.3 < fitted.temperature < 1
    proba = fitted(4 * targets - 2)
    assert torch.allclose(proba, targets.double(), atol=0.03)
    assert proba.max() < 1 - 1e-5


def test_scores_that_say_nothing_get_a_high_temperature():
    rng = np.random.RandomState(0)
    scores = torch.from_numpy(5 * rng.randn(2000, 2))
    targets = torch.from_numpy(np.eye(2)[rng.randint(0, 2, 2000)])
    fitted = Calibration.fit("prior", scores, targets, multilabel=False)
    assert fitted.temperature > 10
    assert fitted(scores).max() < 0.9


@pytest.mark.parametrize("multilabel", [False, True])
def test_negative_log_likelihood_is_a_mean(multilabel):
    logits = torch.tensor([[1.0, -1.0], [0.5, 0.0]])
    targets = torch.tensor([[1, 0], [0, 1]])
    if multilabel:
        p = logits.sigmoid().numpy()
        expected = -np.log(np.where(targets == 1, p, 1 - p)).mean()
    else:
        expected = -np.log(logits.softmax(dim=1).numpy()[targets.numpy() == 1]).mean()
    assert negative_log_likelihood(logits, targets, multilabel) == pytest.approx(expected)


def test_a_calibration_survives_a_configuration_file():
    calibration = Calibration("diffusion", True, 1.7, -0.4, 0.3)
    assert Calibration(**json.loads(json.dumps(calibration.to_dict()))) == calibration


def noisy_logits(rng, noise, truth):
    return torch.from_numpy(2 * np.eye(3)[truth] + noise * rng.randn(len(truth), 3))


@pytest.mark.parametrize(("noise", "nested"), [(100.0, True), (0.5, False)])
def test_the_prior_is_nested_in_the_diffusion(noise, nested):
    """Scores that know nothing get no weight; scores that know more than the prior get most."""
    rng = np.random.RandomState(0)
    truth = rng.randint(3, size=3000)
    targets = torch.eye(3)[truth]
    prior = noisy_logits(rng, 1.0, truth)
    scores = noisy_logits(rng, noise, truth).softmax(dim=1)
    fitted = Calibration.fit("diffusion", scores, targets, multilabel=False, prior_logits=prior)
    alone = Calibration.fit("prior", prior, targets, multilabel=False)
    own = Calibration.fit("diffusion", scores, targets, multilabel=False)

    def nll(calibration, *evidence):
        return negative_log_likelihood(calibration.logits(*evidence), targets, False)

    assert own.prior_weight == alone.prior_weight == 0
    assert nll(fitted, scores, prior) < min(nll(alone, prior), nll(own, scores)) + 0.002
    if nested:
        assert 1 / fitted.temperature < 0.1
        assert fitted.prior_weight == pytest.approx(1 / alone.temperature, rel=0.1)
    else:
        assert 1 / fitted.temperature > 0.5


@pytest.mark.parametrize("multilabel", [False, True])
def test_the_priors_logits_are_added_by_their_weight(multilabel):
    scores, prior = torch.rand(4, 3) * 0.8 + 0.1, torch.randn(4, 3)
    calibration = Calibration("diffusion", multilabel, 2.0, 0.0, 0.7)
    without = Calibration("diffusion", multilabel, 2.0)
    expected = without.logits(scores) + 0.7 * prior
    torch.testing.assert_close(calibration.logits(scores, prior), expected)


@pytest.mark.parametrize("multilabel", [False, True])
def test_weights_count_images(multilabel):
    rng = np.random.RandomState(0)
    scores = torch.from_numpy(rng.randn(40, 3))
    targets = torch.eye(3)[rng.randint(3, size=40)]
    weights = torch.from_numpy(rng.randint(0, 3, 40)).double()
    twice = torch.arange(40).repeat_interleave(weights.long())
    logits = negative_log_likelihood(scores, targets, multilabel, weights)
    assert logits == pytest.approx(
        negative_log_likelihood(scores[twice], targets[twice], multilabel)
    )
    none = torch.zeros(40)
    assert negative_log_likelihood(scores, targets, multilabel, none) == pytest.approx(
        negative_log_likelihood(scores, targets, multilabel)
    )
    of_one_class = Calibration.fit(
        "prior", scores, targets, multilabel=True, weights=1e-6 + targets[:, 0]
    )
    shifted = Calibration.fit("prior", scores, targets, multilabel=True)
    assert of_one_class.shift != pytest.approx(shifted.shift, abs=1e-3)
