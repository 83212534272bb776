"""A whole fit: what ends it, what it leaves, and that it disturbs nobody."""

import copy
import random
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import RECIPE, TRAINING, TinyBackbone, stripes

from diffmic.data import LabelledImages
from diffmic.model import Architecture, NetworkPlan, build_network
from diffmic.random import LocalRNG
from diffmic.tasks import MULTICLASS
from diffmic.training import fit as module
from diffmic.training import fit_network, resolve_recipe
from diffmic.training.diffusion_stage import train_denoiser
from diffmic.training.evaluation import Evaluation
from diffmic.training.objectives import DenoiserObjective
from diffmic.training.precision import MixedPrecision


def network(recipe=RECIPE, *, own_encoders=False, feature_dim=16, dropout=0.0):
    architecture = Architecture(
        prior_backbone=TinyBackbone() if own_encoders else None,
        region_backbone=TinyBackbone() if own_encoders else None,
        n_regions=3,
        region_size=8,
        feature_dim=feature_dim,
    )
    plan = NetworkPlan(
        TinyBackbone(), architecture, 32, 3, MULTICLASS, recipe.diffusion, context_dropout=dropout
    )
    with LocalRNG(0):
        return build_network(plan)


def part(n_images=30, seed=0):
    X, y = stripes(n_images, seed=seed)
    y = np.where(np.random.RandomState(seed).rand(n_images) < 0.25, (y + 1) % 3, y)
    targets = torch.nn.functional.one_hot(torch.from_numpy(y), 3).float()
    return LabelledImages(torch.from_numpy(X)[:, None], targets, torch.ones(n_images))


def test_the_papers_arrangement_is_scored_on_the_weights_of_each_epoch():
    """A wide denoiser and encoders of its own: nothing may be remembered of earlier weights."""
    recipe = replace(resolve_recipe("paper-v2"), denoiser_epochs=4, n_positions=9)
    options = replace(TRAINING, recipe=recipe, learning_rate=3e-3)
    of = network(recipe, own_encoders=True, feature_dim=1024)
    evaluation, states, history = Evaluation(part(24, seed=1), options), [], []

    def evaluate(candidate):
        states.append(copy.deepcopy(candidate.state_dict()))
        return evaluation.diffusion(candidate)

    with LocalRNG(0) as rng:
        train_denoiser(
            of,
            part(),
            options,
            precision=MixedPrecision(options.device),
            rng=rng,
            evaluate=evaluate,
            history=history,
        )
    fresh = []
    for state in states:
        new = network(recipe, own_encoders=True, feature_dim=1024)
        new.load_state_dict(state)
        fresh.append(Evaluation(part(24, seed=1), options).diffusion(new)["score"])
    scores = [row["validation_score"] for row in history]
    assert scores == pytest.approx(fresh, abs=1e-5)
    assert len({round(score, 4) for score in scores}) == 4
    kept = Evaluation(part(24, seed=1), options).diffusion(of)["score"]
    assert kept == pytest.approx(max(scores), abs=1e-5)


def global_states():
    return (
        torch.get_rng_state().tolist(),
        np.random.get_state()[1].tolist(),  # noqa: NPY002
        random.getstate(),
    )


NOISY = replace(RECIPE, feature_noise=1.0, context_dropout=0.3)


def weights_of_a_fit(seed, of=None):
    of = of or network(NOISY, dropout=0.3)
    fit_network(of, part(), part(12, seed=1), replace(TRAINING, recipe=NOISY, seed=seed))
    return of.state_dict()


def test_a_fit_leaves_every_global_random_state_as_it_was():
    weights_of_a_fit(1)  # imports what is imported late: a library of torch's draws once, then
    before = global_states()
    weights_of_a_fit(0)
    assert global_states() == before


def test_fits_at_once_learn_what_they_learn_one_after_the_other():
    expected = [weights_of_a_fit(seed) for seed in (0, 1)]
    found = {}
    # Made here: the tiny backbone borrows the global generator for its weights.
    networks = [network(NOISY, dropout=0.3) for _ in (0, 1)]

    def work(seed):
        found[seed] = weights_of_a_fit(seed, networks[seed])

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in (0, 1):
        assert all(torch.equal(found[seed][name], t) for name, t in expected[seed].items())
    assert any(not torch.equal(expected[0][name], t) for name, t in expected[1].items())


ERRORS = pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt, RuntimeError])


@ERRORS
def test_an_error_in_the_last_calibration_keeps_what_was_learnt(monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(module.Evaluation, "verdict", fail)
    result = fit_network(network(), part(), part(12, seed=1), TRAINING)
    assert isinstance(result.stopped, error)
    assert [row["stage"] for row in result.history] == ["prior"] * 2 + ["diffusion"] * 2
    assert result.verdict.calibrations.keys() == {"prior", "diffusion"}


@ERRORS
@pytest.mark.parametrize("n_complete", [0, 1])
def test_an_error_in_stage_two_keeps_the_stages_that_were_trained(monkeypatch, error, n_complete):
    calls, forward = [], DenoiserObjective.forward

    def failing(*batch):
        calls.append(1)
        if len(calls) > 10 * n_complete + 3:  # ten steps an epoch
            raise error
        return forward(*batch)

    monkeypatch.setattr(DenoiserObjective, "forward", failing)
    of = network()
    result = fit_network(of, part(), part(12, seed=1), TRAINING)
    assert isinstance(result.stopped, error)
    assert [row["stage"] for row in result.history] == ["prior"] * 2 + ["diffusion"] * n_complete
    stages = {"prior", "diffusion"} if n_complete else {"prior"}
    assert result.verdict.calibrations.keys() == stages
    assert result.verdict.scores["prior"]["nll"] < 2
    assert not of.training
    assert all(tensor.isfinite().all() for tensor in of.state_dict().values())
