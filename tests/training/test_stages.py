"""The two stages: what each trains, and what it leaves alone."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import RECIPE, TRAINING, TinyBackbone, learnt, stripes

from diffmic import TrainingDivergedError
from diffmic.data import LabelledImages, named_augment
from diffmic.model import Architecture, NetworkPlan, build_network
from diffmic.random import LocalRNG
from diffmic.tasks import MULTICLASS
from diffmic.training import Recipe, fit_network, resolve_recipe
from diffmic.training.cache import ConditionCache
from diffmic.training.diffusion_stage import (
    build_cache,
    cached_steps,
    moving_average,
    train_denoiser,
)
from diffmic.training.objectives import DenoiserObjective
from diffmic.training.precision import MixedPrecision
from diffmic.training.prior_stage import parameter_groups, train_prior

PAPER = replace(resolve_recipe("paper-v2"), n_positions=9, denoiser_epochs=None)
FP32 = MixedPrecision(TRAINING.device)


def network(*, own_encoders=False, recipe=RECIPE):
    architecture = Architecture(
        prior_backbone=TinyBackbone() if own_encoders else None,
        region_backbone=TinyBackbone() if own_encoders else None,
        n_regions=3,
        region_size=8,
        feature_dim=16,
        num_train_timesteps=50,
    )
    backbone = TinyBackbone(12) if own_encoders else TinyBackbone()
    with LocalRNG(0):
        return build_network(
            NetworkPlan(backbone, architecture, 32, 3, MULTICLASS, recipe.diffusion)
        )


def part(n_images=30, *, size=32):
    X, y = stripes(n_images, size=size)
    targets = torch.nn.functional.one_hot(torch.from_numpy(y), 3).float()
    return LabelledImages(torch.from_numpy(X)[:, None], targets, torch.ones(n_images))


def state(module):
    return copy.deepcopy(module.state_dict())


def changed(module, before):
    """Names of the tensors that differ from an earlier state."""
    return {name for name, t in module.state_dict().items() if not torch.equal(t, before[name])}


def stage_two(of, options, *, evaluate=None, precision=FP32):
    history = []
    with LocalRNG(0) as rng:
        train_denoiser(
            of, part(), options, precision=precision, rng=rng, evaluate=evaluate, history=history
        )
    return history


def stage_one(of, options, data, *, precision=FP32):
    history = []
    with LocalRNG(0) as rng:
        train_prior(of, data, options, precision=precision, rng=rng, evaluate=None, history=history)
    return history


def test_stage_one_trains_the_prior_alone():
    of = network(own_encoders=True)
    before = state(of)
    stage_one(of, TRAINING, part())
    assert {name.split(".")[0] for name in changed(of, before)} == {"prior"}


@pytest.mark.parametrize("n_images", [17, 33, 2, 16])
def test_no_batch_of_one_image_reaches_batch_norm(n_images):
    sizes = []
    of = network()
    of.prior.register_forward_hook(lambda module, args, _: sizes.append(len(args[0])))
    stage_one(of, replace(TRAINING, max_epochs=1), part(n_images))
    assert min(sizes) > 1
    assert n_images - sum(sizes) <= 1


def test_backbones_and_heads_have_learning_rates_of_their_own():
    recipe = replace(RECIPE, head_factor=2.0, pretrained_factor=0.25)
    of = network(own_encoders=True)
    names = {parameter: name for name, parameter in of.prior.named_parameters()}
    for pretrained, factor in ((True, 0.25), (False, 1.0)):
        options = replace(TRAINING, recipe=recipe, learning_rate=0.1, pretrained=pretrained)
        backbones, heads = parameter_groups(of.prior, options)
        assert backbones["lr"] == pytest.approx(0.1 * factor)
        assert heads["lr"] == pytest.approx(0.2)
        in_backbones = {names[p] for p in backbones["params"]}
        in_heads = {names[p] for p in heads["params"]}
        assert in_backbones | in_heads == set(names.values())
        assert in_heads == {
            *("saliency.weight", "classifier.weight"),
            *("attention.V.weight", "attention.U.weight", "attention.w.weight"),
        }


@pytest.mark.parametrize("recipe", [RECIPE, PAPER], ids=["default", "paper-v2"])
@pytest.mark.parametrize("own_encoders", [False, True])
def test_stage_two_leaves_the_prior_as_it_is(recipe, own_encoders):
    of = network(own_encoders=own_encoders, recipe=recipe)
    before = state(of)
    stage_two(of, replace(TRAINING, recipe=recipe))
    parts = {name.split(".")[0] for name in changed(of, before)}
    encoders = {"image_encoder", "region_encoder"} if own_encoders else set()
    assert parts == {"context", "denoiser"} | encoders
    assert all(parameter.requires_grad for _, parameter in learnt(of))
    assert all(parameter.grad is None for parameter in of.prior.parameters())


def test_what_is_kept_is_the_moving_average():
    trained = []
    for ema in (None, 0.5):
        of = network()
        stage_two(of, replace(TRAINING, recipe=replace(RECIPE, ema=ema)))
        trained.append(of.denoiser.out.weight)
    assert not torch.allclose(*trained)


@pytest.mark.parametrize("ema", [None, 0.5])
def test_what_is_evaluated_is_what_is_kept(ema):
    seen = []
    of = network()

    def evaluate(candidate):
        seen.append(state(candidate))
        return {"score": float(len(seen))}

    recipe = replace(RECIPE, ema=ema, half_weights=False, patience=5)
    stage_two(of, replace(TRAINING, recipe=recipe, max_epochs=3), evaluate=evaluate)
    assert len(seen) == 3
    assert changed(of, seen[-1]) == set()


def test_the_moving_average_spans_a_share_of_all_steps():
    learner = torch.nn.Linear(1, 1, bias=False)
    averaged = moving_average(learner, horizon=0.1, total_steps=100)
    averaged.update_parameters(learner)  # the first is a copy
    with torch.no_grad():
        learner.weight += 1
    before = averaged.module.weight.clone()
    averaged.update_parameters(learner)
    torch.testing.assert_close(averaged.module.weight, before + 0.1)
    assert moving_average(learner, None, 100) is None


@pytest.mark.parametrize("own_encoders", [False, True])
def test_a_denoiser_that_diverges_is_left_in_a_good_state(monkeypatch, own_encoders):
    recipe = PAPER if own_encoders else RECIPE
    of = network(own_encoders=own_encoders, recipe=recipe)
    before = state(of)
    forward = DenoiserObjective.forward
    monkeypatch.setattr(DenoiserObjective, "forward", lambda *batch: forward(*batch) * math.nan)
    with pytest.raises(TrainingDivergedError):
        stage_two(of, replace(TRAINING, recipe=recipe))
    assert changed(of, before) == set()
    assert all(parameter.requires_grad for _, parameter in learnt(of))


@pytest.mark.parametrize(("augment", "views"), [(None, 1), (named_augment("auto"), 3)])
def test_the_cache_holds_each_image_as_it_is_and_in_augmented_views(augment, views):
    of = network().eval()
    data = part(10)
    options = replace(TRAINING, augment=augment, recipe=replace(RECIPE, n_cached_views=2))
    cache = build_cache(of, data, options)
    assert len(cache.conditions) == 10 * views
    with torch.no_grad():
        plain = of.encode(data.images.expand(-1, 3, -1, -1) / 255)
    torch.testing.assert_close(cache.conditions[slice(10)].image_features, plain.image_features)
    assert cache.conditions.saliency.numel() == 0
    if views > 1:
        first, second = (
            cache.conditions[slice(10 * v, 10 * v + 10)].image_features for v in (1, 2)
        )
        own = plain.image_features
        for one, other in ((first, own), (second, own), (first, second)):
            assert not torch.allclose(one, other)
    assert not cache.conditions.image_features.is_inference()


@pytest.mark.parametrize(
    ("n_images", "n_rows", "steps"),
    [
        (10_000, 50_000, 60),  # as many as the recipe says
        (255, 5 * 255, 20),  # four passes: 20 steps of 255 rows
        (500, 5 * 500, 40),
        (255, 255, 20),  # four passes would be 4 steps
        (2, 2, 20),
    ],
)
def test_few_images_take_fewer_steps(n_images, n_rows, steps):
    recipe = Recipe(steps_per_epoch=60, batch_size=256)
    assert cached_steps(n_images, n_rows, recipe) == steps
    assert cached_steps(n_images, n_rows, replace(recipe, steps_per_epoch=7)) == 7


def test_stage_two_takes_as_many_steps_as_the_cache_is_worth(monkeypatch):
    asked = []
    batches = ConditionCache.batches
    monkeypatch.setattr(
        ConditionCache,
        "batches",
        lambda cache, n_batches, *rest: asked.append(n_batches) or batches(cache, n_batches, *rest),
    )
    options = replace(TRAINING, recipe=replace(RECIPE, steps_per_epoch=50), max_epochs=1)
    fit_network(network(), part(), None, options)
    assert asked == [20]


def test_a_fit_without_validation_calibrates_nothing():
    result = fit_network(network(), part(), None, TRAINING)
    assert result.verdict.calibrations.keys() == {"prior", "diffusion"}
    assert {c.temperature for c in result.verdict.calibrations.values()} == {1.0}
    assert result.verdict.scores == {}
    assert result.verdict.gain is None
    assert result.stopped is None


def test_a_fit_reports_both_stages():
    result = fit_network(network(), part(), part(12), TRAINING)
    assert [row["stage"] for row in result.history] == ["prior"] * 2 + ["diffusion"] * 2
    scores = result.verdict.scores
    assert scores.keys() == {"prior", "diffusion", "diffusion_alone"}
    assert all(np.isfinite(s["nll"]) for s in scores.values())
    gain = scores["prior"]["nll"] - scores["diffusion"]["nll"]
    assert result.verdict.gain.mean == pytest.approx(gain, abs=1e-6)
    assert result.verdict.gain.standard_error > 0


@pytest.mark.parametrize(("balance", "each_once"), [(0.0, True), (0.75, False)])
def test_an_epoch_on_images_sees_each_once_unless_classes_are_drawn(
    monkeypatch, balance, each_once
):
    images, seen = part(32), []
    labels = LabelledImages.labels

    def watched(self, index, device):
        seen.extend(index.tolist())
        return labels(self, index, device)

    monkeypatch.setattr(LabelledImages, "labels", watched)
    recipe = replace(PAPER, balance=balance, denoiser_epochs=1, batch_size=8)
    of = network(own_encoders=True, recipe=recipe)
    train_denoiser(
        of,
        images,
        replace(TRAINING, recipe=recipe, batch_size=8),
        **{"precision": FP32, "rng": LocalRNG(0), "evaluate": None, "history": []},
    )
    assert len(seen) == 32
    assert (sorted(seen) == list(range(32))) == each_once
