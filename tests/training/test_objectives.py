"""What the stages minimise, and what learns from it."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tiny import RECIPE, TinyBackbone, learnt
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from diffmic.model import Architecture, NetworkPlan, build_network
from diffmic.random import LocalRNG
from diffmic.tasks import MULTICLASS, MULTILABEL, ORDINAL
from diffmic.training.objectives import DenoiserObjective, PriorObjective

TASKS = pytest.mark.parametrize("task", [MULTICLASS, MULTILABEL, ORDINAL])


def network(*, region_backbone=None, task=MULTICLASS, recipe=RECIPE, n_regions=6):
    architecture = Architecture(
        region_backbone=region_backbone,
        n_regions=n_regions,
        feature_dim=16,
        num_train_timesteps=50,
    )
    with LocalRNG(0):
        return build_network(
            NetworkPlan(TinyBackbone(), architecture, 32, 3, task, recipe.diffusion)
        )


@pytest.fixture(autouse=True)
def _chance_of_this_test_alone():
    with LocalRNG(0):
        yield


@pytest.fixture
def images():
    return torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(1))


TARGETS = F.one_hot(torch.tensor([0, 1, 2, 0, 1, 2])).float()
WEIGHTS = torch.ones(6)


def conditions(of, images):
    with torch.no_grad():
        return of.eval().encode(images)


# --- Classification -----------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_exclusive_classes_have_a_cross_entropy(smoothing):
    logits = torch.randn(6, 3)
    labels = TARGETS.argmax(dim=1)
    expected = F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
    for task in (MULTICLASS, ORDINAL):
        loss = task.loss(logits, TARGETS, label_smoothing=smoothing)
        torch.testing.assert_close(loss, expected)


def test_labels_have_the_mean_of_their_binary_cross_entropies():
    logits, targets = torch.randn(6, 3), torch.randint(2, (6, 3)).float()
    smooth = torch.where(targets == 1, 0.95, 0.05)
    p = logits.sigmoid()
    expected = -(smooth * p.log() + (1 - smooth) * (1 - p).log()).mean(dim=1)
    loss = MULTILABEL.loss(logits, targets, label_smoothing=0.1)
    torch.testing.assert_close(loss, expected)


def test_confidence_is_the_probability_of_the_true_class():
    logits = torch.tensor([[2.0, 0.0, -1.0]])
    expected = logits.softmax(dim=1)[0, 1].item()
    found = MULTICLASS.confidence(logits, torch.tensor([[0.0, 1, 0]]))
    assert found.item() == pytest.approx(expected)


def test_multilabel_confidence_is_the_mean_probability_of_each_true_value():
    p = torch.tensor([0.9, 0.2, 0.6])
    confidence = MULTILABEL.confidence(torch.logit(p)[None], torch.tensor([[1.0, 0, 0]]))
    assert confidence.item() == pytest.approx((0.9 + 0.8 + 0.4) / 3, abs=1e-6)


# --- Prior --------------------------------------------------------------------------------------


@pytest.mark.parametrize("branch_losses", [True, False])
@pytest.mark.parametrize("regions", ["windows", "crops"])
def test_the_priors_loss_reaches_both_branches(images, regions, branch_losses):
    of = network(region_backbone=TinyBackbone() if regions == "crops" else None)
    objective = PriorObjective(of, replace(RECIPE, branch_losses=branch_losses)).train()
    objective(images, TARGETS, WEIGHTS).backward()
    for name, parameter in of.prior.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    assert all(parameter.grad is None for parameter in of.denoiser.parameters())


def test_the_papers_loss_is_that_of_the_fused_logits(images):
    of = network()
    recipe = replace(RECIPE, branch_losses=False, label_smoothing=0.0)
    fused = conditions(of, images).fused_logits
    loss = PriorObjective(of, recipe).eval()(images, TARGETS, WEIGHTS)
    torch.testing.assert_close(loss, F.cross_entropy(fused, TARGETS))


def test_branch_losses_are_averaged_with_the_fused_ones(images):
    of = network()
    found = conditions(of, images)
    readings = (found.fused_logits, found.global_logits, found.local_logits)
    expected = (
        sum(F.cross_entropy(logits, TARGETS, label_smoothing=0.05) for logits in readings) / 3
    )
    torch.testing.assert_close(
        PriorObjective(of, RECIPE).eval()(images, TARGETS, WEIGHTS), expected
    )


@TASKS
def test_images_without_weight_do_not_count_for_the_prior(images, task):
    objective = PriorObjective(network(task=task), RECIPE).eval()
    weights = torch.tensor([2.0, 2.0, 2.0, 0.0, 0.0, 0.0])
    half = objective(images[:3], TARGETS[:3], WEIGHTS[:3])
    torch.testing.assert_close(objective(images, TARGETS, weights), half)


# --- Denoiser -----------------------------------------------------------------------------------


def test_the_denoisers_loss_leaves_the_prior_alone(images):
    of = network()
    objective = DenoiserObjective(of, RECIPE).train()
    before = {name: tensor.clone() for name, tensor in of.prior.state_dict().items()}
    assert not of.prior.training
    assert not of.prior.backbone.net.layers[1].training
    assert of.denoiser.training
    assert of.context.training
    of.prior.requires_grad_(False)
    objective(of.encode(images), TARGETS, WEIGHTS).backward()
    assert all(parameter.grad is None for parameter in of.prior.parameters())
    assert all(torch.equal(before[name], t) for name, t in of.prior.state_dict().items())
    for part in (of.denoiser, of.context):
        for name, parameter in learnt(part):
            assert parameter.grad is not None, name


@pytest.mark.parametrize("feature", ["image_features", "region_features"])
def test_gradients_reach_encoders_of_the_denoisers_own(images, feature):
    of = network()
    found = conditions(of, images)
    features = getattr(found, feature).requires_grad_()
    DenoiserObjective(of, RECIPE).train()(found, TARGETS, WEIGHTS).backward()
    assert features.grad.abs().sum() > 0


@pytest.mark.parametrize("n_regions", [1, 4, 6])
def test_with_as_many_draws_as_positions_each_position_counts_once(n_regions):
    of = network(n_regions=n_regions)
    recipe = replace(RECIPE, n_positions=n_regions**2)
    distances = DenoiserObjective(of, recipe)._distances(5, torch.device("cpu"))
    expected = Counter(abs(i - j) for i in range(n_regions) for j in range(n_regions))
    assert distances.shape == (5, n_regions**2)
    for image in distances:
        assert Counter(image.tolist()) == expected


def test_fewer_positions_are_drawn_in_proportion_to_their_number():
    of = network()
    distances = DenoiserObjective(of, replace(RECIPE, n_positions=20))._distances(
        2000, torch.device("cpu")
    )
    assert distances.shape == (2000, 20)
    shares = torch.bincount(distances.flatten(), minlength=6) / distances.numel()
    expected = torch.tensor([6, 10, 8, 6, 4, 2]) / 36
    torch.testing.assert_close(shares, expected, atol=0.01, rtol=0)


@TASKS
@pytest.mark.parametrize("prediction_type", ["noise", "v", "label"])
def test_a_denoiser_that_knows_the_answer_has_no_squared_error(
    images, monkeypatch, prediction_type, task
):
    settings = replace(RECIPE.diffusion, prediction_type=prediction_type)
    recipe = replace(RECIPE, diffusion=settings, alpha=2.0)
    of = network(recipe=recipe, task=task)
    schedule = of.process.schedule
    monkeypatch.setattr(torch, "randn_like", lambda like: torch.full_like(like, 0.5))

    def perfect(guidance, noisy, timesteps, context):
        label = TARGETS[:, None].expand_as(noisy)
        noise = torch.full_like(noisy, 0.5)
        signal_level = schedule.signal[timesteps, None]
        noise_level = schedule.noise[timesteps, None]
        torch.testing.assert_close(noisy, signal_level * label + noise_level * noise)
        return {
            "noise": noise,
            "label": label,
            "v": signal_level * noise - noise_level * label,
        }[prediction_type]

    found = conditions(of, images)
    monkeypatch.setattr(of.denoiser, "forward", perfect)
    loss = DenoiserObjective(of, recipe)(found, TARGETS, WEIGHTS)
    assert float(loss) == pytest.approx(0, abs=1e-10)


def test_images_without_weight_do_not_count_for_the_denoiser(images):
    of = network()
    objective = DenoiserObjective(of, RECIPE).eval()
    found = conditions(of, images)

    def loss(weights, targets=TARGETS):
        with LocalRNG(3):
            return objective(found, targets, torch.tensor(weights))

    wrong = TARGETS.clone()
    wrong[4] = 1 - wrong[4]
    silent = [1.0, 1.0, 1.0, 1.0, 0.0, 1.0]
    torch.testing.assert_close(loss(silent), loss(silent, wrong))
    assert not torch.isclose(loss([1.0] * 6), loss([1.0] * 6, wrong))


@TASKS
def test_probabilities_are_learnt_by_cross_entropy(images, monkeypatch, task):
    of = network(task=task)
    assert of.settings.prediction_type == "probability"
    found = conditions(of, images)
    logits = torch.randn(6, RECIPE.n_positions, 3, generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(of.denoiser, "forward", lambda *args: logits)
    loss = DenoiserObjective(of, RECIPE)(found, TARGETS, WEIGHTS)
    targets = TARGETS[:, None].expand_as(logits)
    if task is MULTILABEL:
        errors = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=2)
    else:
        errors = F.cross_entropy(logits.transpose(1, 2), targets.transpose(1, 2), reduction="none")
    torch.testing.assert_close(loss, (WEIGHTS[:, None] * errors).mean())


def test_without_noise_the_prior_reads_what_it_read_before(images):
    of = network()
    found = conditions(of, images)
    global_logits, local_logits = of.prior.reread(
        found.image_features, found.region_features, found.region_weights
    )
    torch.testing.assert_close(global_logits, found.global_logits)
    torch.testing.assert_close(local_logits, found.local_logits)


def test_the_guidance_is_what_the_prior_says_of_blurred_features(images, monkeypatch):
    of = network()
    found = conditions(of, images)
    monkeypatch.setattr(torch, "randn_like", torch.ones_like)
    seen = []
    guidance = of.guidance
    monkeypatch.setattr(of, "guidance", lambda c: seen.append(c) or guidance(c))
    scales = torch.full((16,), 2.0), torch.full((16,), 3.0)
    DenoiserObjective(of, replace(RECIPE, feature_noise=0.5), scales)(found, TARGETS, WEIGHTS)
    expected = of.prior.reread(
        found.image_features + 1.0, found.region_features + 1.5, found.region_weights
    )
    torch.testing.assert_close(seen[0].global_logits, expected[0])
    torch.testing.assert_close(seen[0].local_logits, expected[1])
    assert not torch.allclose(seen[0].fused_logits, found.fused_logits)


def test_feature_noise_is_in_standard_deviations_of_the_features(images, monkeypatch):
    of = network()
    found = conditions(of, images)
    seen = {}
    monkeypatch.setattr(torch, "randn_like", torch.ones_like)
    forward = of.context.forward

    def spy(image_features, region_features):
        seen.update(image=image_features, region=region_features)
        return forward(image_features, region_features)

    monkeypatch.setattr(of.context, "forward", spy)
    scales = torch.full((16,), 2.0), torch.full((16,), 3.0)
    objective = DenoiserObjective(of, replace(RECIPE, feature_noise=0.5), scales)
    objective(found, TARGETS, WEIGHTS)
    torch.testing.assert_close(seen["image"], found.image_features + 1.0)
    torch.testing.assert_close(seen["region"], found.region_features + 1.5)


# --- Devices ------------------------------------------------------------------------------------


class NoFloat64(TorchDispatchMode):
    """Refuses what devices without float64 cannot make."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            assert getattr(tensor, "dtype", None) != torch.float64, func
        return found


@TASKS
@pytest.mark.parametrize("regions", ["windows", "crops"])
@pytest.mark.parametrize("prediction_type", ["probability", "noise"])
def test_a_device_without_float64_can_learn(regions, prediction_type, task):
    settings = replace(RECIPE.diffusion, prediction_type=prediction_type)
    recipe = replace(RECIPE, diffusion=settings, feature_noise=1.0, alpha=2.0)
    of = network(
        recipe=recipe, task=task, region_backbone=TinyBackbone() if regions == "crops" else None
    ).to("meta")
    images, targets, weights = (t.to("meta") for t in (torch.rand(6, 3, 32, 32), TARGETS, WEIGHTS))
    scales = torch.ones(16, device="meta"), torch.ones(16, device="meta")
    with NoFloat64():
        PriorObjective(of, recipe).train()(images, targets, weights).backward()
        blurred = recipe if regions == "windows" else replace(recipe, feature_noise=0.0)
        objective = DenoiserObjective(of, blurred, scales).train()
        with torch.no_grad():
            found = of.encode(images)
        objective(found, targets, weights).backward()
    assert of.denoiser.out.weight.grad.device.type == "meta"
