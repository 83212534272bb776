"""A calibration on other images recovers what is known of them."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from diffmic import DiffMICWarning, InputError
from diffmic.inference import Calibration, Evidence, SamplingOptions
from diffmic.training.recalibration import recalibrated

TRAINING = np.array([0.6, 0.3, 0.1])
CLINIC = np.array([0.2, 0.2, 0.6])
NAMES = ("a", "b", "c")
CLOSE = SamplingOptions(3, 2, 1)


def drawn(n, shares, seed=0, *, sharper=1.0):
    """Logits of Gaussian classes under the shares of the training, too sharp; and the labels."""
    rng = np.random.RandomState(seed)
    y = rng.choice(3, n, p=shares)
    x = np.eye(3)[y] * 2 + rng.randn(n, 3)
    logits = torch.from_numpy(2 * x + np.log(TRAINING)).log_softmax(dim=1)
    return sharper * logits, F.one_hot(torch.from_numpy(y), 3).float()


def model_of(fitted, **changes):
    """A model whose prior gives the logits as they are, for the shares of the training."""
    return replace(
        fitted.model_,
        calibrations={"prior": Calibration()},
        shares=TRAINING,
        thresholds={},
        **changes,
    )


def calibrated(model, logits, targets, weights=None, **more):
    weights = torch.ones(len(targets)) if weights is None else weights
    return recalibrated(
        model, Evidence(logits), targets, weights, CLOSE, stacked=False, names=NAMES, **more
    )


def nll(model, logits, targets, prevalence=None):
    proba = model.probabilities(Evidence(logits), "prior", prevalence)
    return -np.log(proba[targets.numpy() > 0]).mean()


def test_probabilities_become_those_of_the_new_population(fitted):
    model, new = model_of(fitted), drawn(4000, CLINIC, 1, sharper=1.7)
    found = calibrated(model, *drawn(2000, CLINIC, sharper=1.7))
    assert found.calibrations["prior"].temperature == pytest.approx(1.7, rel=0.1)
    np.testing.assert_allclose(found.shares, CLINIC, atol=0.03)
    best = nll(model_of(fitted), *drawn(4000, CLINIC, 1), prevalence=CLINIC)  # of the truth
    assert nll(found, *new) == pytest.approx(best, abs=0.01)
    assert nll(model, *new) > best + 0.1
    # And from there to any other population.
    back = drawn(4000, TRAINING, 2, sharper=1.7)
    best = nll(model_of(fitted), *drawn(4000, TRAINING, 2))
    assert nll(found, *back, prevalence=TRAINING) == pytest.approx(best, abs=0.01)


@pytest.mark.parametrize("n", [20, 60])
def test_few_images_gain_what_is_to_be_gained_and_lose_little(fitted, n):
    shifted, same = [], []
    for seed in range(15):
        model = model_of(fitted)
        for gains, shares in ((shifted, CLINIC), (same, TRAINING)):
            found = calibrated(model, *drawn(n, shares, seed))
            new = drawn(2000, shares, 100 + seed)
            gains.append(nll(model, *new) - nll(found, *new))
    assert np.mean(shifted) > 0.1
    assert np.mean(same) > -3 / n


def test_weights_restore_a_population_from_which_images_were_chosen(fitted):
    logits, targets = drawn(3000, np.full(3, 1 / 3))
    weights = targets @ torch.from_numpy(CLINIC * 3).float()
    found = calibrated(model_of(fitted), logits, targets, weights)
    np.testing.assert_allclose(found.shares, CLINIC, atol=0.02)
    new = drawn(4000, CLINIC, 1)
    assert nll(found, *new) == pytest.approx(nll(model_of(fitted), *new, CLINIC), abs=0.01)


def test_a_class_without_images_keeps_its_share_and_its_place(fitted):
    logits, targets = drawn(500, np.array([0.3, 0.7, 0.0]))
    with pytest.warns(DiffMICWarning, match="no images with 'c' to calibrate on"):
        found = calibrated(model_of(fitted), logits, targets)
    assert found.shares[2] == pytest.approx(TRAINING[2])
    assert found.shares.sum() == pytest.approx(1)
    assert found.calibrations["prior"].offsets[2] == 0


def test_a_model_that_does_not_know_its_shares_learns_those_of_the_images(fitted):
    found = calibrated(replace(model_of(fitted), shares=None), *drawn(2000, CLINIC))
    np.testing.assert_allclose(found.shares, CLINIC, atol=0.03)
    new = drawn(4000, CLINIC, 1)
    assert nll(found, *new) == pytest.approx(nll(model_of(fitted), *new, CLINIC), abs=0.01)


def test_the_record_is_cross_fitted(fitted):
    logits, targets = drawn(300, CLINIC)
    found = calibrated(model_of(fitted), logits, targets)
    record = found.recalibration
    assert record.n_images == 300
    assert record.n_positive == targets.sum(dim=0).tolist()
    assert record.nll_before["prior"] == pytest.approx(nll(model_of(fitted), logits, targets))
    in_sample = nll(found, logits, targets)
    assert in_sample < record.nll_after["prior"] < record.nll_before["prior"]
    assert found.sampling == CLOSE


def test_groups_are_not_divided_in_the_comparison(fitted):
    _, targets = drawn(30, CLINIC)
    copies = torch.arange(30).repeat_interleave(10)
    # They say nothing of images in general, but everything of copies of the same image.
    model = replace(model_of(fitted), shares=CLINIC)
    noise = torch.from_numpy(np.random.RandomState(0).randn(30, 3))
    alone = calibrated(model, noise[copies], targets[copies])
    grouped = calibrated(model, noise[copies], targets[copies], groups=copies.numpy())
    record = grouped.recalibration
    assert record.nll_after["prior"] > alone.recalibration.nll_after["prior"] + 0.01
    assert grouped.calibrations == alone.calibrations


def test_a_calibration_that_is_worse_is_pointed_out(fitted):
    right = replace(model_of(fitted), shares=CLINIC)
    logits, targets = drawn(4000, CLINIC)
    right = calibrated(right, logits, targets)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for seed in range(20):
            calibrated(right, *drawn(12, CLINIC, 100 + seed))
    told = [w for w in caught if "larger negative log-likelihood" in str(w.message)]
    assert 1 <= len(told) < 20


@pytest.mark.parametrize(
    ("n", "label", "message"),
    [(9, None, "There are 9 images .* at least 10"), (50, 1, "single class")],
)
def test_too_few_images_or_classes_are_refused(fitted, n, label, message):
    logits, targets = drawn(n, CLINIC)
    if label is not None:
        targets = F.one_hot(torch.full((n,), label), 3).float()
    with pytest.raises(InputError, match=message):
        calibrated(model_of(fitted), logits, targets)


def test_labels_of_a_multilabel_task_have_offsets_of_their_own(fitted_multilabel):
    rng = np.random.RandomState(0)
    before, now = np.array([0.1, 0.5]), np.array([0.5, 0.5])

    def sample(n):
        y = rng.rand(n, 2) < now
        x = 2 * y + rng.randn(n, 2)
        logits = 2 * x - 2 + np.log(before / (1 - before))
        return torch.from_numpy(logits), torch.from_numpy(y.astype(np.float32)), x

    model = replace(
        fitted_multilabel.model_,
        calibrations={"prior": Calibration()},
        shares=before,
        thresholds={"prior": np.full(2, 0.5)},
    )
    logits, targets, _ = sample(3000)
    targets[::7, 1] = torch.nan
    found = recalibrated(
        model,
        Evidence(logits),
        targets,
        torch.ones(3000),
        CLOSE,
        stacked=False,
        names=("a", "b"),
    )
    np.testing.assert_allclose(found.shares, now, atol=0.03)
    logits, _, x = sample(50)
    true = 1 / (1 + np.exp(-(2 * x - 2 + np.log(now / (1 - now)))))
    np.testing.assert_allclose(found.probabilities(Evidence(logits), "prior"), true, atol=0.07)
    assert found.thresholds["prior"].shape == (2,)
