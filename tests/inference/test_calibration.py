"""A temperature makes probabilities of scores, and recovers one that is known."""

import json
from itertools import product, starmap

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffmic import InputError
from diffmic.inference import STAGES, Calibration, Evidence
from diffmic.inference.calibration import TEMPERATURES, mean_nll
from diffmic.tasks import MULTICLASS, MULTILABEL

TASKS = pytest.mark.parametrize("task", [MULTICLASS, MULTILABEL])


def logits_of(stage, scores, task):
    """Logits that a stage reads from its scores: fused logits, or one draw's label map."""
    if stage == "prior":
        return Evidence(scores).logits(stage, task)
    return Evidence(torch.zeros_like(scores), scores[:, None]).logits(stage, task)


def proba_of(calibration, stage, scores, task):
    return task.probabilities(calibration.logits(logits_of(stage, scores, task)))


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
    fitted = Calibration.fit(scores, draw(true, rng), MULTICLASS)
    assert fitted.temperature == pytest.approx(temperature, rel=0.06)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
@pytest.mark.parametrize("shift", [-2.0, 0.0, 1.0])
def test_a_known_temperature_and_shift_of_multilabel_logits_are_recovered(temperature, shift):
    rng = np.random.RandomState(0)
    logits = 2 * rng.randn(5000, 4)
    true = torch.from_numpy(logits / temperature + shift).sigmoid().numpy()
    fitted = Calibration.fit(torch.from_numpy(logits), draw(true[None], rng), MULTILABEL)
    assert fitted.temperature == pytest.approx(temperature, rel=0.1)
    assert fitted.shift == pytest.approx(shift, abs=0.1)


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.6])
@TASKS
def test_a_known_temperature_of_diffusion_scores_is_recovered(temperature, task):
    rng = np.random.RandomState(0)
    scores = rng.dirichlet(np.ones(3), 5000).clip(0.01, 0.99)
    if task is MULTILABEL:
        true = torch.from_numpy(np.log(scores / (1 - scores)) / temperature).sigmoid().numpy()[None]
    else:
        true = torch.from_numpy(np.log(scores) / temperature).softmax(dim=1).numpy()
    logits = logits_of("diffusion", torch.from_numpy(scores), task)
    fitted = Calibration.fit(logits, draw(true, rng), task)
    assert fitted.temperature == pytest.approx(temperature, rel=0.1)
    assert fitted.shift == (0 if task.exclusive else pytest.approx(0, abs=0.1))


@pytest.mark.parametrize("stage", STAGES)
@TASKS
@pytest.mark.parametrize("spread", [0.2, 1.0, 10.0])
def test_no_other_temperature_or_shift_has_a_smaller_loss(stage, task, spread):
    rng = np.random.RandomState(1)
    targets = torch.from_numpy(np.eye(3)[rng.randint(0, 3, 300)])
    scores = spread * (targets + torch.from_numpy(rng.randn(300, 3)))
    logits = logits_of(stage, scores, task)
    fitted = Calibration.fit(logits, targets, task)

    def loss(temperature, shift=0.0):
        doubt = (np.log(temperature) ** 2 + shift**2) / (2 * len(targets))
        return mean_nll(Calibration(temperature, shift).logits(logits), targets, task) + doubt

    shifts = [0.0] if task.exclusive else np.linspace(-2, 2, 20)
    grid = product(np.geomspace(*TEMPERATURES, 60), shifts)
    assert loss(fitted.temperature, fitted.shift) <= min(starmap(loss, grid)) + 1e-4


SCORES = st.lists(
    st.lists(st.floats(-1, 2, width=32), min_size=3, max_size=3), min_size=1, max_size=20
).map(torch.tensor)


@given(SCORES, st.sampled_from(STAGES), st.floats(*TEMPERATURES))
def test_rows_sum_to_1_whatever_the_scores(scores, stage, temperature):
    proba = proba_of(Calibration(temperature), stage, scores, MULTICLASS)
    assert proba.dtype == torch.float64
    assert proba.shape == scores.shape
    assert (proba >= 0).all()
    assert torch.allclose(proba.sum(dim=1), torch.ones(len(scores), dtype=torch.float64))


@given(
    st.lists(st.permutations([0.1, 0.3, 0.6]), min_size=1, max_size=20).map(torch.tensor),
    st.sampled_from(STAGES),
    st.sampled_from([MULTICLASS, MULTILABEL]),
    st.floats(*TEMPERATURES),
)
def test_calibration_leaves_the_order_of_the_classes_alone(scores, stage, task, temperature):
    proba = proba_of(Calibration(temperature), stage, scores, task)
    assert torch.equal(proba.argsort(dim=1), scores.argsort(dim=1))


@given(SCORES, st.sampled_from(STAGES), st.floats(*TEMPERATURES))
def test_multilabel_probabilities_of_a_label_do_not_depend_on_the_others(
    scores, stage, temperature
):
    calibration = Calibration(temperature)
    proba = proba_of(calibration, stage, scores, MULTILABEL)
    assert ((proba >= 0) & (proba <= 1)).all()
    alone = proba_of(calibration, stage, scores[:, :1], MULTILABEL)
    assert torch.allclose(alone, proba[:, :1], rtol=1e-12)


@given(SCORES, st.sampled_from([MULTICLASS, MULTILABEL]))
def test_a_row_does_not_depend_on_its_neighbours(scores, task):
    calibration = Calibration(1.3)
    rows = torch.cat([proba_of(calibration, "diffusion", row[None], task) for row in scores])
    assert torch.allclose(proba_of(calibration, "diffusion", scores, task), rows, rtol=1e-12)


def test_a_temperature_of_1_reads_scores_as_probabilities_and_logits_as_logits():
    scores = torch.tensor([[0.7, 0.2, 0.1]], dtype=torch.float64)
    for task in (MULTICLASS, MULTILABEL):
        assert torch.allclose(proba_of(Calibration(), "diffusion", scores, task), scores)
        expected = task.probabilities(scores)
        assert torch.allclose(proba_of(Calibration(), "prior", scores, task), expected)


def test_scores_out_of_range_are_read_as_nearly_certain():
    scores = torch.tensor([[1.4, -0.3, -0.1]])
    proba = proba_of(Calibration(), "diffusion", scores, MULTICLASS)
    assert proba[0, 0] > 0.95
    assert proba[0, 1] == proba[0, 2] > 0


@TASKS
def test_scores_that_are_always_right_get_a_low_temperature_and_leave_some_doubt(task):
    targets = torch.eye(2).repeat(10, 1)
    fitted = Calibration.fit(4 * targets - 2, targets, task)
    assert 0.3 < fitted.temperature < 1
    proba = proba_of(fitted, "prior", 4 * targets - 2, task)
    assert torch.allclose(proba, targets.double(), atol=0.03)
    assert proba.max() < 1 - 1e-5


def test_scores_that_say_nothing_get_a_high_temperature():
    rng = np.random.RandomState(0)
    scores = torch.from_numpy(5 * rng.randn(2000, 2))
    targets = torch.from_numpy(np.eye(2)[rng.randint(0, 2, 2000)])
    fitted = Calibration.fit(scores, targets, MULTICLASS)
    assert fitted.temperature > 10
    assert proba_of(fitted, "prior", scores, MULTICLASS).max() < 0.9


@TASKS
def test_negative_log_likelihood_is_a_mean(task):
    logits = torch.tensor([[1.0, -1.0], [0.5, 0.0]])
    targets = torch.tensor([[1, 0], [0, 1]])
    if task is MULTILABEL:
        p = logits.sigmoid().numpy()
        expected = -np.log(np.where(targets == 1, p, 1 - p)).mean()
    else:
        expected = -np.log(logits.softmax(dim=1).numpy()[targets.numpy() == 1]).mean()
    assert mean_nll(logits, targets, task) == pytest.approx(expected)


def test_a_calibration_survives_a_configuration_file():
    calibration = Calibration(1.7, -0.4, 0.3)
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
    proba = noisy_logits(rng, noise, truth).softmax(dim=1)
    scores = logits_of("diffusion", proba, MULTICLASS)
    fitted = Calibration.fit(scores, targets, MULTICLASS, prior_logits=prior)
    alone = Calibration.fit(prior, targets, MULTICLASS)
    own = Calibration.fit(scores, targets, MULTICLASS)

    def nll(calibration, *logits):
        return mean_nll(calibration.logits(*logits), targets, MULTICLASS)

    assert own.prior_weight == alone.prior_weight == 0
    assert nll(fitted, scores, prior) < min(nll(alone, prior), nll(own, scores)) + 0.002
    if nested:
        assert 1 / fitted.temperature < 0.1
        assert fitted.prior_weight == pytest.approx(1 / alone.temperature, rel=0.1)
    else:
        assert 1 / fitted.temperature > 0.5
        assert not fitted.gives_no_weight


@pytest.mark.parametrize(("n", "lowest"), [(20, 0.15), (3000, 0.45)])
def test_a_few_images_do_not_take_all_the_weight_from_a_stage(n, lowest):
    """Logits that are as good as the prior's, with errors of their own: both should count."""

    def share(seed, **options):
        rng = np.random.RandomState(seed)
        truth = np.arange(n) % 3
        prior, logits = (noisy_logits(rng, 1.0, truth) for _ in "ab")
        targets = torch.eye(3)[truth]
        fitted = Calibration.fit(logits, targets, MULTICLASS, prior_logits=prior, **options)
        return 1 / (1 + fitted.temperature * fitted.prior_weight)

    assert min(share(seed) for seed in range(20 if n < 100 else 3)) > lowest
    if n < 100:
        assert min(share(seed, both_count=0) for seed in range(20)) < 0.01


@TASKS
@pytest.mark.parametrize("weights", [None, torch.linspace(0.1, 3, 2000)])
def test_how_both_stages_are_weighed_does_not_depend_on_the_scale_of_their_logits(task, weights):
    rng = np.random.RandomState(0)
    truth = rng.randint(3, size=2000)
    logits, prior = (noisy_logits(rng, 1.0, truth) for _ in "ab")
    targets = torch.eye(3)[truth]
    one, other = (
        Calibration.fit(logits / s, targets, task, prior_logits=prior * s, weights=weights).logits(
            logits / s, prior * s
        )
        for s in (1, 4)
    )
    torch.testing.assert_close(one, other, atol=0.02, rtol=0)  # the temperatures have penalties


def test_unequal_weights_count_as_fewer_images():
    """Ten images with nearly all of the weight have the penalties that ten images have."""
    rng = np.random.RandomState(0)
    truth = rng.randint(3, size=1000)
    logits, targets = noisy_logits(rng, 0.3, truth), torch.eye(3)[truth]
    few = torch.where(torch.arange(1000) < 10, 1.0, 1e-9)
    weighted = Calibration.fit(logits, targets, MULTICLASS, weights=few)
    alone = Calibration.fit(logits[:10], targets[:10], MULTICLASS)
    assert weighted.temperature == pytest.approx(alone.temperature, rel=1e-3)


def test_the_priors_logits_are_added_by_their_weight():
    scores, prior = torch.randn(4, 3), torch.randn(4, 3)
    calibration, without = Calibration(2.0, 0.0, 0.7), Calibration(2.0)
    expected = without.logits(scores) + 0.7 * prior
    torch.testing.assert_close(calibration.logits(scores, prior), expected)


@TASKS
def test_weights_count_images(task):
    rng = np.random.RandomState(0)
    scores = torch.from_numpy(rng.randn(40, 3))
    targets = torch.eye(3)[rng.randint(3, size=40)]
    weights = torch.from_numpy(rng.randint(0, 3, 40)).double()
    twice = torch.arange(40).repeat_interleave(weights.long())
    found = mean_nll(scores, targets, task, weights)
    assert found == pytest.approx(mean_nll(scores[twice], targets[twice], task))
    none = torch.zeros(40)
    assert mean_nll(scores, targets, task, none) == pytest.approx(mean_nll(scores, targets, task))
    of_one_class = Calibration.fit(scores, targets, MULTILABEL, weights=1e-6 + targets[:, 0])
    shifted = Calibration.fit(scores, targets, MULTILABEL)
    assert of_one_class.shift != pytest.approx(shifted.shift, abs=1e-3)


@pytest.mark.parametrize(
    "values", [(0.0,), (-1.0,), (float("nan"),), (1.0, float("inf")), ("1",), (1.0, 0.0, None)]
)
def test_what_is_no_calibration_is_refused(values):
    with pytest.raises(InputError, match="is no calibration"):
        Calibration(*values)


def test_scores_without_information_beside_a_prior_that_has_some_get_no_weight():
    rng = np.random.RandomState(0)
    truth = rng.randint(3, size=3000)
    prior, noise = noisy_logits(rng, 1.0, truth), torch.from_numpy(5 * rng.randn(3000, 3))
    fitted = Calibration.fit(noise, torch.eye(3)[truth], MULTICLASS, prior_logits=prior)
    assert fitted.gives_no_weight
