"""The network of DiffMIC (v1)."""

from dataclasses import replace

import pytest
import torch
from tiny import TinyBackbone

from diffmic.engine import prediction_engine
from diffmic.errors import InputError
from diffmic.model import (
    Architecture,
    DiffusionSettings,
    NetworkPlan,
    VectorNetwork,
    build_network,
    carry_over,
    resolved,
)
from diffmic.random import LocalRNG
from diffmic.tasks import MULTICLASS, MULTILABEL, ORDINAL
from diffmic.training import resolve_recipe

TASKS = pytest.mark.parametrize("task", [MULTICLASS, MULTILABEL, ORDINAL])
SETTINGS = resolve_recipe("paper-v1").diffusion
# At low noise: what has learnt nothing gives scores of no certainty there.
LAST = replace(SETTINGS, timestep_spacing="last")


def network(task=MULTICLASS, settings=SETTINGS, **architecture):
    sizes = {"feature_dim": 16, "num_train_timesteps": 50} | architecture
    plan = NetworkPlan(TinyBackbone(), Architecture(**sizes), 32, 3, task, settings)
    with LocalRNG(0):
        net = build_network(plan).eval()
        for module in net.modules():  # as if it had learnt something
            if isinstance(module, torch.nn.BatchNorm1d):
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 1.5)
    return net


def images(n=5):
    return torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def noise(net, n_draws=4, seed=0):
    return net.noise(n_draws, torch.Generator().manual_seed(seed))


@TASKS
@torch.no_grad()
def test_scores_are_of_each_draw_and_between_0_and_1(task):
    net = network(task, LAST, num_train_timesteps=1000)
    scores = net.sample(net.encode(images()), noise(net), num_steps=10)
    assert scores.shape == (5, 4, 3)
    assert ((scores >= 0) & (scores <= 1)).all()
    if task.exclusive:
        torch.testing.assert_close(scores.sum(dim=-1), torch.ones(5, 4))
    assert not torch.allclose(scores[:, 0], scores[:, 1])


@TASKS
@torch.no_grad()
def test_guidance_is_the_priors_probabilities(task):
    net = network(task)
    conditions = net.encode(images())
    fused = task.probabilities(conditions.fused_logits)
    assert torch.equal(net.guidance(conditions), fused)
    for branch, logits in zip(
        net.branch_guidance(conditions),
        (conditions.global_logits, conditions.local_logits),
        strict=True,
    ):
        assert torch.equal(branch, task.probabilities(logits))


@pytest.mark.parametrize("num_steps", [1, 10, 50])
@torch.no_grad()
def test_an_image_has_the_same_scores_in_any_company(num_steps):
    net, pixels = network(), images()
    every = net.sample(net.encode(pixels), noise(net), num_steps=num_steps)
    for index in range(5):
        one = net.sample(net.encode(pixels[index : index + 1]), noise(net), num_steps=num_steps)
        torch.testing.assert_close(one[0], every[index], atol=1e-4, rtol=0)


@torch.no_grad()
def test_the_sampler_runs_the_network_as_it_was_trained():
    """Gains and batch norms folded, or not."""
    net = network()
    conditions = net.encode(images())
    folded = net.sample(conditions, noise(net), num_steps=10)
    net.training = True  # of this module alone: its parts stay in evaluation mode
    torch.testing.assert_close(
        net.sample(conditions, noise(net), num_steps=10), folded, atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("width", [16, 1024])
def test_the_rewritten_network_gives_the_same_scores(width):
    net = network(feature_dim=width)
    plain, rewritten = (prediction_engine(net, kind) for kind in ("plain", "auto"))
    assert rewritten.kind == "auto"
    expected = plain.sample(plain.encode(images()), noise(net), num_steps=5)
    found = rewritten.sample(rewritten.encode(images()), noise(net), num_steps=5)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("own", [True, False])
def test_regions_belong_to_the_prior_alone(own):
    other = TinyBackbone() if own else None
    net = network(region_backbone=other, prior_backbone=other)
    assert isinstance(net, VectorNetwork)
    assert net.region_encoder is None
    assert (net.image_encoder is not None) is own
    conditions = net.encode(images())
    assert conditions.boxes.shape == (5, net.n_regions, 4)
    names = [name for name, _ in net.context.named_parameters()]
    assert not any("region" in name for name in names)


def test_scores_can_be_differentiated_with_respect_to_the_images():
    net, pixels = network(settings=LAST, num_train_timesteps=1000), images().requires_grad_()
    (gradient,) = torch.autograd.grad(net(pixels)[:, 1].sum(), pixels)
    assert gradient.abs().sum() > 0


def test_its_plan_is_resolved_and_built_again_with_the_same_tensors():
    net = network()
    plan = NetworkPlan(
        TinyBackbone(),
        Architecture(feature_dim=16, num_train_timesteps=50),
        32,
        3,
        MULTICLASS,
        SETTINGS,
    )
    again = build_network(resolved(plan, net))
    again.load_state_dict(net.state_dict())
    again.eval()
    with torch.no_grad():
        torch.testing.assert_close(again(images()), net(images()))
    assert not any(name.startswith(("process.", "forward_")) for name in net.state_dict())


@pytest.mark.parametrize("first", ["label-map", "drift"])
def test_weights_are_not_carried_over_to_the_other_process(first):
    both = {"label-map": network(settings=DiffusionSettings()), "drift": network()}
    learnt = both.pop(first)
    (other,) = both.values()
    with pytest.raises(InputError, match=r"process '.*', and that of the recipe"):
        carry_over(learnt, other, heads=True)
    carry_over(learnt, other, heads=False)  # the backbone is of any process
    for ours, theirs in zip(
        other.prior.backbone.parameters(), learnt.prior.backbone.parameters(), strict=True
    ):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    "settings",
    [
        {"process": "drift"},
        {"process": "drift", "sampler": "ancestral", "readout": "last"},
        {"sampler": "ancestral"},
        {"timestep_spacing": "last"},
        vars(SETTINGS) | {"guidance": "logits"},
        vars(SETTINGS) | {"sampler": "ddim"},
        vars(SETTINGS) | {"prediction_type": "v"},
        vars(SETTINGS) | {"start": "uniform"},
        vars(SETTINGS) | {"readout": "mean"},
    ],
)
def test_settings_that_do_not_go_with_the_process_are_refused(settings):
    with pytest.raises(InputError, match="does not go with it; it takes"):
        DiffusionSettings(**settings)


def test_an_unknown_process_is_refused():
    with pytest.raises(InputError, match=r"process is 'drifting'; give one of .*'drift'"):
        DiffusionSettings(process="drifting")
