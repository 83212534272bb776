"""Cross-fitted metrics, and scores that are of the training population."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import RECIPE, small

from diffmic import DiffMICClassifier
from diffmic.inference import Calibration
from diffmic.inference.evidence import of_training_population
from diffmic.tasks import MULTICLASS, MULTILABEL
from diffmic.training.cache import drawing_chances, drawing_ratio
from diffmic.training.readings import N_FOLDS, Reading, balanced_folds, cross_fitted


def reading(n=60, *, task=MULTICLASS, seed=0):
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (n,), generator=draw)
    targets = F.one_hot(labels, 3).float()
    logits = 1.5 * targets + torch.randn(n, 3, generator=draw)
    prior = 0.5 * targets + torch.randn(n, 3, generator=draw)
    return Reading(logits.double(), prior.double(), targets, torch.ones(n), task)


@pytest.mark.parametrize("counts", [(20, 20, 20), (40, 15, 5), (7, 6, 5)])
def test_folds_have_classes_spread_over_them(counts):
    targets = F.one_hot(torch.arange(3).repeat_interleave(torch.tensor(counts)), 3).float()
    folds = balanced_folds(targets, N_FOLDS, seed=0)
    sizes = torch.bincount(folds, minlength=N_FOLDS)
    assert sizes.max() - sizes.min() <= 1
    for label in range(3):
        of_class = torch.bincount(folds[targets[:, label] > 0], minlength=N_FOLDS)
        assert of_class.max() - of_class.min() <= 1
    assert torch.equal(folds, balanced_folds(targets, N_FOLDS, seed=0))
    assert not torch.equal(folds, balanced_folds(targets, N_FOLDS, seed=1))


@pytest.mark.parametrize("task", [MULTICLASS, MULTILABEL])
def test_no_image_is_measured_by_a_calibration_or_thresholds_that_saw_it(monkeypatch, task):
    whole = reading(task=task)
    # Every image carries its number in a weight that hardly counts, so that it can be recognised.
    numbers = 1 + torch.arange(60).float() * 1e-6
    whole = replace(whole, weights=numbers)
    fitted_on, measured, thresholds_on = [], [], []
    fit, best = Reading.fitted, Reading.best_thresholds

    def watched_fit(self, own=None):
        fitted_on.append(set(self.weights.tolist()))
        return fit(self, own)

    def watched_best(self, calibration):
        thresholds_on.append(set(self.weights.tolist()))
        return best(self, calibration)

    get = Reading.__getitem__
    monkeypatch.setattr(Reading, "fitted", watched_fit)
    monkeypatch.setattr(Reading, "best_thresholds", watched_best)
    monkeypatch.setattr(
        Reading, "__getitem__", lambda self, i: measured.append(get(self, i)) or measured[-1]
    )
    cross_fitted(whole, seed=0)
    insides = [set(part.weights.tolist()) for part in measured[1::2]]
    assert len(fitted_on) == len(insides) == N_FOLDS
    assert set.union(*insides) == set(numbers.tolist())
    for inside, others in zip(insides, fitted_on, strict=True):
        assert not inside & others
        assert inside | others == set(numbers.tolist())
    assert thresholds_on == (fitted_on if task is MULTILABEL else [])


def test_the_error_of_an_image_is_that_of_a_calibration_on_the_other_folds():
    whole = reading()
    _, errors = cross_fitted(whole, seed=3)
    folds = balanced_folds(whole.targets, N_FOLDS, seed=3)
    for fold in range(N_FOLDS):
        others, inside = whole[folds != fold], whole[folds == fold]
        mapping = Calibration.fit(
            others.logits, others.targets, MULTICLASS, prior_logits=others.prior_logits
        )
        logits = mapping.logits(inside.logits, inside.prior_logits)
        expected = F.cross_entropy(logits, inside.targets.double(), reduction="none")
        np.testing.assert_allclose(errors[(folds == fold).numpy()], expected.numpy(), atol=1e-6)


def test_metrics_are_of_all_folds_together():
    whole = reading()
    metrics, errors = cross_fitted(whole, seed=0)
    assert metrics["nll"] == pytest.approx(errors.mean())
    assert errors.shape == (60,)


@pytest.mark.parametrize(("n", "empty"), [(1, True), (2, False), (4, False)])
def test_few_images_are_no_trouble(n, empty):
    metrics, errors = cross_fitted(reading(n), seed=0)
    assert (metrics == {}) == empty
    assert np.isfinite(errors).all()


def test_of_logits_that_say_nothing_a_cross_fitted_likelihood_promises_nothing():
    """It is that of new images, while in the sample the mapping gains what it has memorised."""
    in_sample, held_out, new = [], [], []
    for seed in range(60):
        draw = torch.Generator().manual_seed(seed)
        targets = F.one_hot(torch.randint(3, (2, 40), generator=draw), 3).float()
        logits, prior = torch.randn(2, 2, 40, 3, generator=draw).double()
        noise, others = (
            Reading(logits[i], prior[i], targets[i], torch.ones(40), MULTICLASS) for i in (0, 1)
        )
        mapping = noise.fitted()
        for found, part in ((in_sample, noise), (new, others)):
            of = mapping.logits(part.logits, part.prior_logits)
            found.append(F.cross_entropy(of, part.targets.double()).item())
        held_out.append(cross_fitted(noise, seed)[1].mean())
    in_sample, held_out, new = map(np.array, (in_sample, held_out, new))

    def standard_error(of):
        return of.std(ddof=1) / len(of) ** 0.5

    optimism = new - in_sample
    assert optimism.mean() > 2 * standard_error(optimism)  # what the cross-fitting is there for
    assert held_out.mean() > np.log(3) - 2 * standard_error(held_out)
    difference = held_out - new
    assert difference.mean() > -2 * standard_error(difference)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")
def test_fits_on_coin_tosses_promise_nothing_that_new_images_do_not_keep():
    """Without early stopping, whose choice of an epoch is made on the same images."""
    recipe = replace(RECIPE, steps_per_epoch=40, patience=None)
    promised, kept, in_sample = [], [], []
    for seed in range(10):
        rng = np.random.RandomState(seed)
        images = (rng.rand(420, 32, 32) * 255).astype(np.uint8)
        # As many of each class here and there: the validation part has the training part's shares.
        y = np.concatenate([rng.permutation(np.arange(n) % 3) for n in (120, 300)])
        fitted = DiffMICClassifier(**small(random_state=seed, recipe=recipe))
        fitted.fit(images[:120], y[:120])
        new = fitted.evaluate(images[120:], y[120:])
        stages = ("prior", "diffusion")
        promised.append([fitted.validation_scores_[stage]["nll"] for stage in stages])
        kept.append([new[stage]["nll"] for stage in stages])
        in_sample.append(fitted.history_[-1]["validation_nll"])
    promised, kept = np.array(promised), np.array(kept)

    def standard_error(of):
        return of.std(axis=0, ddof=1) / len(of) ** 0.5

    assert np.abs(promised.mean(axis=0) - np.log(3)).max() < 0.05
    assert (promised.mean(axis=0) > np.log(3) - 2 * standard_error(promised)).all()
    difference = promised - kept
    assert (difference.mean(axis=0) > -2 * standard_error(difference)).all()
    # A mapping that was fitted on all of the images flatters itself on them.
    optimism = promised[:, 1] - np.array(in_sample)
    assert optimism.mean() > 2 * standard_error(optimism)


# --- The training population --------------------------------------------------------------------


@pytest.mark.parametrize("balance", [0.5, 0.75, 1.0])
def test_a_bayes_optimal_posterior_becomes_that_of_the_training_population(balance):
    """Under drawn classes p̃(c|x) ∝ p(x|c) p̃(c); the truth is p(c|x) ∝ p(x|c) p(c)."""
    targets = F.one_hot(torch.tensor([0] * 70 + [1] * 25 + [2] * 5)).float()
    occurs = targets.double().mean(dim=0)
    chances = drawing_chances(targets, balance, MULTICLASS).double()
    drawn = targets.double().T @ chances / chances.sum()
    likelihood = torch.rand(50, 8, 3, dtype=torch.float64)

    def posterior(classes):
        joint = likelihood * classes
        return joint / joint.sum(dim=-1, keepdim=True)

    ratio = drawing_ratio(targets, balance, MULTICLASS)
    found = of_training_population(posterior(drawn), ratio)
    # Chances are float32.
    torch.testing.assert_close(found, posterior(occurs), atol=1e-6, rtol=0)
    assert not torch.allclose(posterior(drawn), posterior(occurs), atol=1e-2)


def test_scores_below_zero_and_without_mass_stay_finite():
    scores = torch.tensor([[-0.2, 0.5, 0.7], [0.0, 0.0, 0.0], [-1.0, -1.0, -1.0]])
    found = of_training_population(scores, torch.tensor([1.0, 2.0, 4.0]))
    assert found.isfinite().all()
    assert (found >= 0).all()
    torch.testing.assert_close(found[0], torch.tensor([0.0, 0.25, 0.175]) / 0.425)
