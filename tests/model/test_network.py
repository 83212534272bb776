import inspect
from functools import partial
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from diffmic.diffusion import LabelMapProcess, scores_by_distance
from diffmic.errors import InputError
from diffmic.model import (
    Architecture,
    Conditions,
    DiffusionSettings,
    DualGranularityPrior,
    NetworkPlan,
    build_network,
    carry_over,
    resolved,
)
from diffmic.model.regions import importance_map
from diffmic.random import LocalRNG
from diffmic.tasks import MULTICLASS, MULTILABEL, ORDINAL


class Tiny(nn.Sequential):
    """A backbone of stride 8."""

    def __init__(self, channels=6):
        super().__init__(
            nn.Conv2d(3, channels, 4, stride=4),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 2, stride=2),
        )


ONE = {"prior_backbone": None, "region_backbone": None}
FOUR = {"prior_backbone": Tiny(5), "region_backbone": Tiny(4)}


TASKS = pytest.mark.parametrize("task", [MULTICLASS, MULTILABEL, ORDINAL])


def plan_of(settings=None, task=MULTICLASS, num_classes=3, **changes):
    backbone, image_size = changes.pop("backbone", None), changes.pop("image_size", 32)
    return NetworkPlan(
        backbone or Tiny(),
        Architecture(**{"feature_dim": 16, **changes}),
        image_size,
        num_classes,
        task,
        settings or DiffusionSettings(),
    )


def network(settings=None, task=MULTICLASS, num_classes=3, **changes):
    with LocalRNG(0):
        return build_network(plan_of(settings, task, num_classes, **changes)).eval()


def noise(net, n_draws=2):
    return net.noise(n_draws, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("parts", [ONE, FOUR])
def test_conditions_hold_what_their_names_say(parts):
    conditions = network(**parts).encode(torch.rand(5, 3, 32, 32))
    shapes = {name: tuple(getattr(conditions, name).shape) for name in vars(conditions)}
    assert shapes["global_logits"] == shapes["local_logits"] == (5, 3)
    assert shapes["saliency"] == (5, 3, *((8, 8) if parts is ONE else (4, 4)))
    assert shapes["boxes"] == (5, 4, 4)
    assert shapes["attention"] == shapes["region_weights"] == (5, 4)
    assert shapes["region_features"][:2] == (5, 4)
    torch.testing.assert_close(conditions.attention.sum(dim=1), torch.ones(5))
    expected = (conditions.global_logits + conditions.local_logits) / 2
    assert torch.equal(conditions.fused_logits, expected)
    x0, y0, x1, y1 = conditions.boxes.unbind(-1)
    assert ((x0 >= 0) & (x0 < x1) & (x1 <= 1) & (y0 >= 0) & (y0 < y1) & (y1 <= 1)).all()


def test_boxes_lie_where_the_saliency_is():
    net = network(n_regions=1, region_size=8, region_map="coarse", region_importance="contrast")
    conditions = net.encode(torch.rand(4, 3, 32, 32))
    importance = importance_map(conditions.saliency, net.task, net.prior.importance)
    best = importance.flatten(1).argmax(dim=1)
    expected = torch.stack([best % 4, best // 4, best % 4 + 1, best // 4 + 1], dim=1) / 4
    torch.testing.assert_close(conditions.boxes[:, 0], expected)


@torch.no_grad()
def test_by_default_regions_lie_where_both_branches_together_tell_the_classes():
    images = torch.rand(4, 3, 32, 32)
    net, saliency_alone = network(n_regions=1), network(n_regions=1, region_importance="contrast")
    assert net.prior.importance == "fused"
    fine = net.prior.backbone(images).fine
    local = net.prior.classifier(fine.movedim(1, 3)).movedim(3, 1)  # its logits at each place
    up = partial(F.interpolate, size=(8, 8), mode="bilinear", align_corners=False)
    for head in (1.0, 0.0):  # without a saliency, where the local branch tells them
        net.prior.saliency.weight *= head
        evidence = up(net.prior.saliency(net.prior.backbone(images).coarse)) + up(local)
        conditions, cells = net.prior(images)
        torch.testing.assert_close(conditions.saliency, evidence)
        windows = F.avg_pool2d(importance_map(evidence, net.task, "contrast"), 2, stride=1)
        assert cells[:, 0].tolist() == [[i // 7, i % 7] for i in windows.flatten(1).argmax(dim=1)]
    saliency_alone.prior.saliency.weight.zero_()
    assert saliency_alone.prior(images)[1].tolist() == [[[0, 0]]] * 4


def test_where_regions_are_changes_no_gradient():
    """Regions are chosen without gradients: only what is read in them is learnt."""
    net = network(region_importance="fused")
    weight = net.prior.classifier.weight
    conditions, _ = net.prior(torch.rand(2, 3, 32, 32))
    (found,) = torch.autograd.grad(conditions.local_logits.sum(), weight)
    pooled = torch.einsum("bk,bkd->bd", conditions.attention, conditions.region_features)
    torch.testing.assert_close(found, pooled.sum(dim=0).expand_as(weight))


@torch.no_grad()
def test_windows_are_of_the_upsampled_deep_map():
    images = torch.rand(2, 3, 32, 32)
    net = network().eval()
    backbone = net.prior.backbone
    assert backbone.fine_size == (4, 4)
    assert net.prior.regions.map_size == (8, 8)
    conditions, cells = net.prior(images)
    upsampled = F.interpolate(backbone(images).fine, (8, 8), mode="bilinear", align_corners=False)
    for image, region in product(range(2), range(net.n_regions)):
        row, column = cells[image, region].tolist()
        expected = upsampled[image, :, row : row + 2, column : column + 2].mean(dim=(1, 2))
        torch.testing.assert_close(conditions.region_features[image, region], expected)
        box = torch.tensor([column, row, column + 2, row + 2]) / 8
        torch.testing.assert_close(conditions.boxes[image, region], box)


@pytest.mark.parametrize(("size", "cells"), [(8, 1), (16, 4), (32, 8), (64, 8), (80, 10)])
def test_cells_are_not_smaller_than_four_pixels(size, cells):
    assert network(image_size=size).prior.regions.map_size == (cells, cells)


@pytest.mark.parametrize(
    ("prediction_type", "guidance", "sampler", "readout"),
    list(
        product(
            ["probability", "noise", "v", "label"],
            ["logits", "probabilities"],
            ["ddim", "dpm-solver++"],
            ["mean", "last"],
        )
    ),
)
@pytest.mark.parametrize("task", [MULTICLASS, MULTILABEL])
@torch.no_grad()
def test_sampling_by_distance_equals_the_dense_form(
    prediction_type, guidance, sampler, readout, task
):
    settings = DiffusionSettings(
        prediction_type=prediction_type, guidance=guidance, sampler=sampler, readout=readout
    )
    net = network(settings, task)
    conditions = net.encode(torch.rand(3, 3, 32, 32))
    by_distance = net.sample(conditions, noise(net), num_steps=10)
    dense = net.sample(conditions, noise(net), num_steps=10, dense=True)
    assert by_distance.shape == (3, 2, 3)
    torch.testing.assert_close(by_distance, dense, atol=1e-5, rtol=0)


@pytest.mark.parametrize("parts", [ONE, FOUR])
@pytest.mark.parametrize("num_steps", [1, 20])
@torch.no_grad()
def test_encoders_run_once_whatever_the_number_of_steps(parts, num_steps):
    net, calls = network(**parts), []
    for module in net.modules():
        if isinstance(module, Tiny):
            module.register_forward_hook(lambda module, *_: calls.append(module))
    context_calls, denoiser_calls = [], []
    net.context.register_forward_hook(lambda *_: context_calls.append(1))
    net.denoiser.out.register_forward_hook(lambda *_: denoiser_calls.append(1))
    net.sample(net.encode(torch.rand(2, 3, 32, 32)), noise(net), num_steps=num_steps)
    assert len(calls) == len(set(calls)) == (1 if parts is ONE else 4)
    assert len(context_calls) == 1
    assert len(denoiser_calls) == num_steps


@TASKS
@torch.no_grad()
def test_probabilities_of_exclusive_classes_sum_to_1_at_every_step(task):
    net = network(DiffusionSettings(readout="mean"), task)
    conditions = net.encode(torch.rand(3, 3, 32, 32))
    one, ten = (net.sample(conditions, noise(net), num_steps=n) for n in (1, 10))
    for scores in (one, ten):
        assert ((scores > 0) & (scores < 1)).all()
        sums_to_1 = torch.allclose(scores.sum(dim=2), torch.ones(3, 2), atol=1e-5)
        assert sums_to_1 == task.exclusive
    assert not torch.allclose(one, ten)


@torch.no_grad()
def test_the_mean_readout_is_the_mean_of_what_each_step_estimates():
    net = network(DiffusionSettings(readout="mean"))
    conditions = net.encode(torch.rand(3, 3, 32, 32))
    seen, denoise = [], net.denoise
    net.denoise = lambda *args: seen.append(denoise(*args)) or seen[-1]
    scores = net.sample(conditions, noise(net), num_steps=4)
    assert len(seen) == 4
    expected = torch.stack([scores_by_distance(d.label) for d in seen]).mean(dim=0)
    torch.testing.assert_close(scores, expected)


@torch.no_grad()
def test_scores_of_an_image_do_not_depend_on_its_neighbours():
    net, images = network(), torch.rand(6, 3, 32, 32)
    together = net.sample(net.encode(images), noise(net), num_steps=5)
    alone = net.sample(net.encode(images[3:4]), noise(net), num_steps=5)
    torch.testing.assert_close(together[3:4], alone, atol=1e-5, rtol=0)


@torch.no_grad()
def test_chance_comes_from_the_generator_alone():
    net = network()
    conditions = net.encode(torch.rand(2, 3, 32, 32))
    before = torch.get_rng_state()
    first = net.sample(conditions, noise(net), num_steps=5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(123)
    assert torch.equal(net.sample(conditions, noise(net), num_steps=5), first)


def test_noise_is_drawn_by_distance_or_is_the_guidance_map_of_two_uniform_draws():
    net = network(DiffusionSettings(start="uniform"), n_regions=6)
    uniform = noise(net, 200)
    assert uniform.shape == (200, 6, 3)
    assert uniform.min() >= 0
    assert uniform.max() <= 1
    middle = uniform[:, 0] * 0.4 + uniform[:, 5] * 0.6
    torch.testing.assert_close(uniform[:, 3], middle)
    gaussian = noise(network(), 2000)
    assert gaussian.mean().abs() < 0.05
    assert gaussian.std() == pytest.approx(1, abs=0.05)


def test_guidance_is_the_prior_as_logits_or_as_probabilities():
    images = torch.rand(2, 3, 32, 32)
    for task, squash in ((MULTICLASS, lambda x: x.softmax(-1)), (MULTILABEL, torch.sigmoid)):
        net = network(task=task)
        conditions = net.encode(images)
        guidance = net.guidance(conditions)
        torch.testing.assert_close(guidance[:, 0], squash(conditions.global_logits))
        torch.testing.assert_close(guidance[:, -1], squash(conditions.local_logits))
    net = network(DiffusionSettings(guidance="logits"))
    conditions = net.encode(images)
    assert torch.equal(net.guidance(conditions)[:, 0], conditions.global_logits)


def test_a_single_region_works():
    net = network(n_regions=1)
    scores = net.sample(net.encode(torch.rand(2, 3, 32, 32)), noise(net), num_steps=3)
    assert scores.shape == (2, 2, 3)


def test_small_images_get_fewer_regions():
    assert network(image_size=8).n_regions == 1
    assert network(image_size=16).n_regions == 4
    assert network(image_size=32).n_regions == 4
    assert network(image_size=64).n_regions == 4
    assert network(image_size=80).n_regions == 6
    assert network(image_size=32, region_map="coarse").n_regions == 6


@pytest.mark.parametrize("image_size", [32, 40, 64, 80, 96, 128, 256])
def test_regions_together_cover_at_most_30_percent_of_the_image(image_size):
    net = network(image_size=image_size)
    boxes = net.encode(torch.rand(2, 3, image_size, image_size)).boxes
    areas = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    assert areas.sum(dim=1).max() <= 0.3


def test_attention_is_weighed_by_importance_unless_the_paper_chooses():
    images = torch.rand(4, 3, 64, 64)
    conditions = network().encode(images)
    weights = conditions.region_weights
    assert torch.equal(weights[:, 0], torch.ones(4))
    assert (weights.diff(dim=1) <= 0).all()
    assert weights.min() > 0
    net = network()
    net.prior.attention.w.weight.data.zero_()
    expected = weights / weights.sum(dim=1, keepdim=True)
    torch.testing.assert_close(net.encode(images).attention, expected)
    papers = network(region_importance="paper").encode(images)
    assert (papers.region_weights == 1).all()


def test_rereading_unchanged_features_gives_the_same_logits():
    net = network()
    conditions = net.encode(torch.rand(4, 3, 64, 64))
    again = net.prior.reread(
        conditions.image_features, conditions.region_features, conditions.region_weights
    )
    torch.testing.assert_close(again[0], conditions.global_logits)
    torch.testing.assert_close(again[1], conditions.local_logits)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_regions": 50}, "n_regions is 50.*8 × 8 cells.*room for 49"),
        ({"n_regions": 2, "region_size": 32}, "room for 1 windows of 8 × 8"),
        ({"region_size": 33}, "region_size is 33.*between 1 and the image_size of 32"),
        ({"n_regions": "many"}, "n_regions is 'many'"),
    ],
)
def test_regions_that_do_not_fit_are_errors(changes, message):
    with pytest.raises(InputError, match=message):
        network(**changes)


def test_conditions_are_joined_and_indexed_row_by_row():
    net = network()
    first, second = (net.encode(torch.rand(n, 3, 32, 32)) for n in (2, 3))
    both = Conditions.cat([first, second])
    assert len(both) == 5
    picked = both[torch.tensor([4, 0])]
    assert torch.equal(picked.boxes[0], second.boxes[2])
    assert torch.equal(picked.global_logits[1], first.global_logits[0])


def test_other_classes_keep_the_backbones_and_the_same_classes_keep_everything():
    learnt, same, other = network(**FOUR), network(**FOUR), network(num_classes=5, **FOUR)
    with torch.no_grad():
        for parameter in learnt.parameters():
            parameter.add_(1)
    carry_over(learnt, same, heads=True)
    for name, tensor in learnt.state_dict().items():
        assert torch.equal(same.state_dict()[name], tensor)
    carry_over(learnt, other, heads=False)
    pairs = [
        (learnt.prior.backbone, other.prior.backbone),
        (learnt.prior.regions.backbone, other.prior.regions.backbone),
        (learnt.image_encoder, other.image_encoder),
        (learnt.region_encoder.backbone, other.region_encoder.backbone),
    ]
    for old, new in pairs:
        assert all(map(torch.equal, old.parameters(), new.parameters()))
    assert not torch.equal(learnt.denoiser.out.bias[:3], other.denoiser.out.bias[:3])


def test_a_backbone_of_another_kind_cannot_be_carried_over():
    with pytest.raises(InputError, match="warm_start cannot continue"):
        carry_over(network(), network(backbone=Tiny(9)), heads=True)


class NoFloat64(TorchDispatchMode):
    """Refuses what devices without float64 cannot make."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            assert getattr(tensor, "dtype", None) != torch.float64, func
        return found


@pytest.mark.parametrize("parts", [ONE, FOUR])
@pytest.mark.parametrize("prediction_type", ["probability", "noise"])
@pytest.mark.parametrize("sampler", ["ddim", "dpm-solver++"])
@torch.no_grad()
def test_a_device_without_float64_can_encode_and_sample(parts, prediction_type, sampler):
    settings = DiffusionSettings(prediction_type=prediction_type, sampler=sampler)
    net = network(settings, **parts).to("meta")
    with NoFloat64():
        conditions = net.encode(torch.rand(2, 3, 32, 32, device="meta"))
        drawn = noise(net)
        scores = net.sample(conditions, drawn, num_steps=4)
    assert scores.device.type == "meta"
    assert scores.shape == (2, 2, 3)


def test_float64_would_be_noticed():
    with pytest.raises(AssertionError), NoFloat64():
        torch.zeros(2, dtype=torch.float64, device="meta")


def test_every_auto_of_a_plan_is_replaced_by_what_was_built():
    plan = plan_of()
    found = resolved(plan, build_network(plan)).architecture
    assert (found.n_regions, found.region_size) == (4, 8)
    again = build_network(resolved(plan, network()))
    assert again.n_regions == 4


@torch.no_grad()
def test_noise_of_the_label_map_process_serves_any_process_of_the_same_seam():
    """The network asks its process for noise, start, timesteps and the way back."""

    class Drifting(LabelMapProcess):
        """Starts at the guidance, as a process that drifts to the prior would."""

        def start(self, noise, guidance):
            return super().start(noise, guidance) + guidance

    net = network(DiffusionSettings(readout="last"))
    conditions = net.encode(torch.rand(2, 3, 32, 32))
    usual = net.sample(conditions, noise(net), num_steps=3)
    net.process = Drifting(
        net.process.schedule, start="gaussian", timestep_spacing="trailing", sampler="ddim"
    )
    drifting = net.sample(conditions, noise(net), num_steps=3)
    assert not torch.allclose(drifting, usual)
    dense = net.sample(conditions, noise(net), num_steps=3, dense=True)
    torch.testing.assert_close(drifting, dense, atol=1e-5, rtol=0)


# --- As other tools call it ----------------------------------------------------------------------

KINDS = pytest.mark.parametrize("architecture", [ONE, FOUR], ids=["one", "four"])


@TASKS
@KINDS
def test_the_network_itself_gives_class_scores(task, architecture):
    net, images = network(task=task, **architecture), torch.rand(3, 3, 32, 32)
    draws = net.noise(8, torch.Generator().manual_seed(0))
    expected = net.sample(net.encode(images), draws, num_steps=10).mean(dim=1)
    assert torch.equal(net(images), expected)
    assert expected.shape == (3, 3)
    torch.testing.assert_close(net(images[:1]), net(images)[:1])


def test_scores_can_be_differentiated_with_respect_to_the_images_and_inner_maps():
    net, images = network(), torch.rand(2, 3, 32, 32, requires_grad=True)
    maps = []
    layer = net.prior.backbone.net[-1]
    layer.register_forward_hook(lambda module, _, output: maps.append(output))
    scores = net(images)
    gradients = torch.autograd.grad(scores[:, 1].sum(), [images, maps[0]])
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_the_network_is_called_while_it_is_trained_too():
    net = network().train()
    net(torch.rand(2, 3, 32, 32)).sum().backward()
    assert net.denoiser.out.weight.grad is not None


def test_the_prior_has_the_default_importance_of_an_architecture():
    default = inspect.signature(DualGranularityPrior).parameters["importance"].default
    assert default == Architecture().region_importance


def test_what_the_network_needs_to_be_called_is_no_weight():
    net = network(num_train_timesteps=4)
    assert net(torch.rand(1, 3, 32, 32)).shape == (1, 3)
    assert not any("forward" in name for name in net.state_dict())


class Encoder(nn.Module):
    """What gives conditions."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, images):
        return self.net.encode(images)


@pytest.mark.slow
@KINDS
@pytest.mark.parametrize("dynamic", [False, True], ids=["fixed", "any batch"])
def test_network_and_encoder_are_exported(architecture, dynamic):
    net, images = network(**architecture), torch.rand(4, 3, 32, 32)
    shapes = ({0: torch.export.Dim("batch", min=2)},) if dynamic else None
    other = images[:3] if dynamic else images
    scores = torch.export.export(net, (images,), dynamic_shapes=shapes).module()
    torch.testing.assert_close(scores(other), net(other))
    encoder = torch.export.export(Encoder(net), (images,), dynamic_shapes=shapes).module()
    found, expected = encoder(other), net.encode(other)
    assert isinstance(found, Conditions)
    for name, tensor in vars(expected).items():
        torch.testing.assert_close(getattr(found, name), tensor)
