import pytest
import torch
from torch import nn

from diffmic.errors import BackboneError
from diffmic.model import (
    Architecture,
    DiffusionSettings,
    NetworkPlan,
    build_backbone,
    build_network,
    default_image_size,
)
from diffmic.tasks import MULTICLASS

# Tiny variants of each family; (name, image size, side of the map, side of the finer map).
FAMILIES = [
    ("resnet10t", 64, 2, 4),
    ("test_convnext", 64, 2, 4),
    ("test_efficientnet", 64, 2, 4),
    ("mobilenetv3_small_050", 64, 2, 4),
    ("densenet121", 64, 2, 4),
    ("test_vit", 64, 4, 4),
    ("vit_tiny_patch16_224", 64, 4, 4),
    ("swin_tiny_patch4_window7_224", 64, 2, 4),
    ("pvt_v2_b0", 64, 2, 4),
]


def plan(backbone, image_size):
    architecture = Architecture(feature_dim=16, num_train_timesteps=100)
    return NetworkPlan(backbone, architecture, image_size, 3, MULTICLASS, DiffusionSettings())


@pytest.mark.parametrize(("name", "size", "side", "fine_side"), FAMILIES)
def test_every_family_serves_as_backbone(name, size, side, fine_side):
    network = build_network(plan(name, size)).eval()
    backbone = network.prior.backbone
    images = torch.rand(2, 3, size, size)
    maps = backbone(images)
    assert maps.coarse.shape == (2, backbone.channels, side, side)
    assert maps.fine.shape == (2, backbone.fine_channels, fine_side, fine_side)
    assert network.prior.regions.map_size == network.prior.regions.fine_size == (8, 8)
    conditions = network.encode(images)
    scores = network.sample(conditions, network.noise(2, torch.Generator()), num_steps=2)
    assert scores.shape == (2, 2, 3)
    assert torch.isfinite(scores).all()
    (conditions.fused_logits.sum() + conditions.image_features.sum()).backward()
    first = next(p for p in backbone.parameters() if p.requires_grad)
    assert first.grad is not None
    assert first.grad.abs().sum() > 0


def test_a_timm_backbone_gives_the_same_final_features_as_timm():
    import timm

    backbone = build_backbone("test_efficientnet", image_size=64).eval()
    model = timm.create_model("test_efficientnet", num_classes=0).eval()
    model.load_state_dict(backbone.net.model.state_dict())
    images = torch.rand(2, 3, 64, 64)
    expected = model.forward_features((images - backbone.mean) / backbone.std)
    torch.testing.assert_close(backbone(images).coarse, expected)


def test_images_are_normalised_with_the_statistics_of_the_weights():
    lite, resnet = (
        build_backbone(name, image_size=32) for name in ("tf_efficientnet_lite0", "resnet10t")
    )
    assert lite.mean.flatten().tolist() == [0.5, 0.5, 0.5]
    assert resnet.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])


class Pyramid(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 5, 8, stride=8), nn.ReLU())


def test_any_module_that_returns_a_feature_map_serves_and_is_copied():
    module = Pyramid()
    backbone = build_backbone(module, image_size=32)
    maps = backbone(torch.rand(2, 3, 32, 32))
    assert maps.coarse.shape == (2, 5, 4, 4)
    assert maps.fine is maps.coarse
    assert backbone.net is not module
    with torch.no_grad():
        backbone.net[0].weight.zero_()
    assert module[0].weight.abs().sum() > 0


def test_an_unknown_name_is_an_error_that_suggests_close_ones():
    with pytest.raises(BackboneError, match=r"no model 'resnet_18'.*resnet18"):
        build_backbone("resnet_18", image_size=64)


@pytest.mark.parametrize("value", [None, 18, 3.5])
def test_what_is_neither_name_nor_module_is_an_error(value):
    with pytest.raises(BackboneError, match=r"name of a timm model or a torch.nn.Module"):
        build_backbone(value, image_size=64)


@pytest.mark.parametrize(
    "module",
    [
        nn.Sequential(Pyramid(), nn.Flatten()),
        nn.Sequential(Pyramid(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    ],
)
def test_a_module_without_a_feature_map_is_an_error(module):
    with pytest.raises(BackboneError, match=r"returned \(1, \d+\); a feature map"):
        build_backbone(module, image_size=32)


@pytest.mark.parametrize(
    ("name", "size"), [("inception_v3", 32), ("vit_tiny_patch16_224", 8), (Pyramid(), 4)]
)
def test_an_image_size_that_does_not_fit_is_an_error(name, size):
    with pytest.raises(BackboneError, match=f"{size} × {size} pixels"):
        build_backbone(name, image_size=size)


def test_the_default_size_is_the_backbones_own_or_that_of_the_images():
    assert default_image_size("vit_tiny_patch16_224", 64) == 224
    assert default_image_size("resnet18", 64) == 64
    assert default_image_size("resnet18", 1000) == 224
    assert default_image_size(Pyramid(), 100) == 100


class NeedsNumbers(nn.Conv2d):
    """What it does hangs on values, so that shapes alone do not suffice."""

    def forward(self, images):
        maps = super().forward(images)
        return maps if maps.sum().item() < 1e9 else -maps


def test_a_network_that_needs_numbers_is_tried_on_numbers():
    assert build_backbone(NeedsNumbers(3, 5, 8, stride=8), image_size=32).map_size == (4, 4)


def test_a_tied_backbone_of_another_size_shares_weights_but_no_statistics():
    backbone = build_backbone("test_resnet", image_size=64)
    twin = backbone.tied(32)
    assert (twin.image_size, twin.map_size) == (32, (1, 1))
    pairs = list(zip(backbone.parameters(), twin.parameters(), strict=True))
    assert pairs
    assert all(one is other for one, other in pairs)
    twin.train()(torch.rand(4, 3, 32, 32))
    means = [dict(b.named_buffers()) for b in (backbone, twin)]
    name = next(name for name in means[0] if name.endswith("running_mean"))
    assert not torch.equal(means[0][name], means[1][name])
