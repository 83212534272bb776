"""DiffMIC (v1): what its objective is, and what joint training trains."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tiny import TRAINING, TinyBackbone, learnt, stripes

from diffmic.data import LabelledImages
from diffmic.diffusion import mmd
from diffmic.errors import InputError
from diffmic.model import Architecture, NetworkPlan, build_network
from diffmic.random import LocalRNG
from diffmic.tasks import MULTICLASS, MULTILABEL, ORDINAL
from diffmic.training import Recipe, evaluation, fit_network, resolve_recipe
from diffmic.training.diffusion_stage import train_denoiser
from diffmic.training.joint_stage import DenoiserAverage, JointObjective, train_jointly
from diffmic.training.objectives import DriftObjective, PriorObjective
from diffmic.training.precision import MixedPrecision

TASKS = pytest.mark.parametrize("task", [MULTICLASS, MULTILABEL, ORDINAL])
PAPER = replace(resolve_recipe("paper-v1"), denoiser_epochs=None)
FROZEN = replace(PAPER, joint=False, cached=True, n_cached_views=1, steps_per_epoch=10)
TARGETS, WEIGHTS = F.one_hot(torch.tensor([0, 1, 2, 0, 1, 2])).float(), torch.ones(6)
FP32 = MixedPrecision(torch.device("cpu"))
OPTIONS = replace(TRAINING, recipe=PAPER)


@pytest.fixture(autouse=True)
def _chance_of_this_test_alone():
    with LocalRNG(0):
        yield


def network(task=MULTICLASS, *, own=False, T=50):
    architecture = Architecture(
        prior_backbone=TinyBackbone() if own else None,
        region_backbone=TinyBackbone() if own else None,
        n_regions=3,
        region_size=8,
        feature_dim=16,
        num_train_timesteps=T,
    )
    with LocalRNG(0):
        return build_network(
            NetworkPlan(TinyBackbone(), architecture, 32, 3, task, PAPER.diffusion)
        )


def images(n=6):
    return torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def conditions(of, pixels=None):
    with torch.no_grad():
        return of.eval().encode(images() if pixels is None else pixels)


def part(n_images=30):
    X, y = stripes(n_images)
    targets = F.one_hot(torch.from_numpy(y), 3).float()
    return LabelledImages(torch.from_numpy(X)[:, None], targets, torch.ones(n_images))


def changed(module, before):
    return {name for name, t in module.state_dict().items() if not torch.equal(t, before[name])}


def state(module):
    return {name: t.clone() for name, t in module.state_dict().items()}


# --- The denoiser's loss -------------------------------------------------------------------------


class Recorder(torch.nn.Module):
    """A denoiser that notes what it is given, and answers with what the test says."""

    def __init__(self, answers):
        super().__init__()
        self.answers, self.calls = answers, []

    def forward(self, guidance, noisy, timesteps, context):
        self.calls.append((guidance, noisy, timesteps, context))
        return self.answers[len(self.calls) - 1]


def test_the_loss_is_the_squared_error_and_half_of_both_discrepancies():
    of = network()
    given = conditions(of)
    answers = torch.randn(3, 6, 3)
    of.denoiser = recorder = Recorder(answers)
    loss = DriftObjective(of, PAPER).loss(given, TARGETS, WEIGHTS)
    fused, global_, local = (
        logits.softmax(dim=1)
        for logits in (given.fused_logits, given.global_logits, given.local_logits)
    )
    (_, noisy, timesteps, context), *others = recorder.calls
    # The noise, from the first pass: the same in all three, at the same timesteps.
    a, s = of.process.schedule.signal[timesteps, None], of.process.schedule.noise[timesteps, None]
    noise = (noisy - a * TARGETS - (1 - a) * fused) / s
    for prior, call in zip((fused, global_, local), recorder.calls, strict=True):
        assert torch.equal(call[0], prior)
        assert torch.equal(call[2], timesteps)
        assert torch.equal(call[3], context)
        expected = a * TARGETS + (1 - a) * prior + s * noise
        torch.testing.assert_close(call[1], expected, atol=1e-4, rtol=0)
    assert len(others) == 2
    assert (timesteps[:3] + timesteps[3:] == 49).all()
    expected = F.mse_loss(answers[0], noise)
    expected = expected + (mmd(noise, answers[1]) + mmd(noise, answers[2])) / 2
    torch.testing.assert_close(loss, expected, atol=1e-4, rtol=0)


def test_the_loss_of_a_denoiser_that_knows_the_noise_is_zero():
    of = network()
    given = conditions(of)

    class Knowing(torch.nn.Module):
        def forward(self, guidance, noisy, timesteps, context):
            schedule = of.process.schedule
            a, s = schedule.signal[timesteps, None], schedule.noise[timesteps, None]
            return (noisy - a * TARGETS - (1 - a) * guidance) / s

    of.denoiser = Knowing()
    loss = DriftObjective(of, PAPER).loss(given, TARGETS, WEIGHTS)
    assert loss.item() == pytest.approx(0, abs=1e-5)


@TASKS
def test_the_denoisers_loss_reaches_denoiser_and_context_and_no_prior(task):
    of = network(task, own=True)
    objective = DriftObjective(of, PAPER).train()
    objective(conditions(of), TARGETS, WEIGHTS).backward()
    for module in (of.denoiser, of.context):
        for name, parameter in learnt(module):
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name
    assert all(parameter.grad is None for parameter in of.prior.parameters())
    assert not of.prior.training


def test_images_without_weight_do_not_count():
    of, weights = network().eval(), torch.tensor([1.0, 1, 1, 1, 0, 0])
    objective, given, losses = DriftObjective(of, PAPER).eval(), conditions(of), []
    for last in (1, 2):
        targets = TARGETS.clone()
        targets[4:] = F.one_hot(torch.tensor([last, last]), 3)
        with LocalRNG(0):
            losses.append(objective.loss(given, targets, weights))
    torch.testing.assert_close(losses[0], losses[1])


def test_unknown_labels_give_no_error_and_no_gradient():
    of = network(MULTILABEL)
    targets = TARGETS.clone()
    targets[:, 1] = math.nan
    loss = DriftObjective(of, PAPER).train().loss(conditions(of), targets, WEIGHTS)
    loss.backward()
    assert torch.isfinite(loss)
    assert of.denoiser.out.weight.grad[1].abs().sum() == 0
    assert of.denoiser.out.weight.grad[0].abs().sum() > 0


# --- Joint training ------------------------------------------------------------------------------


@TASKS
@pytest.mark.parametrize("own", [True, False])
def test_joint_training_reaches_every_part(task, own):
    of = network(task, own=own)
    objective = JointObjective(of, PAPER).train()
    assert of.prior.training
    objective(images(), TARGETS, WEIGHTS).backward()
    for name, parameter in learnt(of):
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_the_prior_learns_by_its_cross_entropy_alone():
    of = network(own=True)
    gradients = []
    for objective in (JointObjective(of, PAPER), PriorObjective(of, PAPER)):
        of.zero_grad()
        objective.eval()(images(), TARGETS, WEIGHTS).backward()
        gradients.append([parameter.grad.clone() for parameter in of.prior.parameters()])
    for joint, alone in zip(*gradients, strict=True):
        torch.testing.assert_close(joint, alone)


def test_joint_training_changes_every_tensor():
    of = network(own=True)
    before = state(of)
    train_jointly(
        of, part(), OPTIONS, precision=FP32, rng=LocalRNG(0), evaluate=None, history=(rows := [])
    )
    unchanged = set(before) - changed(of, before) - {"context.image_projection.bias"}
    assert {name.rpartition(".")[2] for name in unchanged} == {"mean", "std"}  # of pixels
    assert [(row["stage"], row["epoch"]) for row in rows] == [("diffusion", 1), ("diffusion", 2)]


@pytest.mark.parametrize("recipe", [FROZEN, replace(PAPER, joint=False)], ids=["cached", "images"])
def test_a_frozen_prior_stays_as_it_is(recipe):
    of = network(own=not recipe.cached)
    before = state(of.prior)
    train_denoiser(
        of,
        part(),
        replace(OPTIONS, recipe=recipe),
        precision=FP32,
        rng=LocalRNG(0),
        evaluate=None,
        history=[],
    )
    assert changed(of.prior, before) == set()
    assert all(parameter.requires_grad for parameter in of.prior.parameters())


def test_the_average_is_of_everything_but_the_prior():
    of = network()
    average = DenoiserAverage(
        of, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9999), use_buffers=True
    )
    average.update_parameters(of)
    first = of.denoiser.out.weight.detach().clone()
    with torch.no_grad():
        for parameter in of.parameters():
            parameter += 1
    average.update_parameters(of)
    found = average.module
    torch.testing.assert_close(found.denoiser.out.weight, first + 1e-4, atol=1e-6, rtol=0)
    for ours, theirs in zip(found.prior.parameters(), of.prior.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_validation_encodes_anew_while_the_prior_changes(monkeypatch):
    encode, times = evaluation.encode_images, []
    monkeypatch.setattr(
        evaluation, "encode_images", lambda *a, **k: (times.append(1), encode(*a, **k))[1]
    )
    result = fit_network(network(), part(), part(12), OPTIONS)
    assert result.stopped is None
    assert len(times) == 2 + 2 + 1  # an epoch of either stage, and the verdict
    assert set(result.verdict.scores) == {"prior", "diffusion", "diffusion_alone"}


def test_what_was_learnt_jointly_is_kept_when_training_is_interrupted():
    of, calls = network(), []

    def evaluate(_):
        calls.append(state(of.prior))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return {"score": -1.0}

    with pytest.raises(KeyboardInterrupt):
        train_jointly(
            of,
            part(),
            replace(OPTIONS, recipe=replace(PAPER, ema_decay=None)),
            precision=FP32,
            rng=LocalRNG(0),
            evaluate=evaluate,
            history=(rows := []),
        )
    assert len(rows) == 2
    assert changed(of.prior, calls[0]) == set()  # the best epoch that was judged


def test_weights_are_rounded_where_the_recipe_says_so():
    of = network()
    options = replace(OPTIONS, recipe=replace(PAPER, half_weights=True))
    train_jointly(of, part(), options, precision=FP32, rng=LocalRNG(0), evaluate=None, history=[])
    weight = of.denoiser.out.weight
    assert torch.equal(weight, weight.half().float())


# --- Recipes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"joint": "yes"}, "joint is 'yes'"),
        ({"cached": True}, "joint is True, cached is True"),
        ({"balance": 0.5}, "balance is 0.5"),
        ({"ema": 0.1}, "both set the same average"),
        ({"ema_decay": 1.0}, "ema_decay is 1.0"),
        ({"ema_decay": "much"}, "ema_decay is 'much'"),
        ({"alpha": 10.0}, "no focal weights"),
        ({"n_positions": 8}, "n_positions is 8"),
    ],
)
def test_recipes_that_do_not_fit_together_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        replace(PAPER, **changes)


def test_older_recipes_are_not_joint():
    assert not Recipe().joint
    assert Recipe().ema_decay is None
