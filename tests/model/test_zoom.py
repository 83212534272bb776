"""Zoomed regions: where they are cut, what is read, and with which backbones."""

import pytest
import torch
from torch import nn

from diffmic.errors import BackboneError, InputError
from diffmic.model import (
    Architecture,
    Conditions,
    DiffusionSettings,
    NetworkPlan,
    build_backbone,
    build_network,
    resolved,
)
from diffmic.model.zoom import ZoomedCrops, zoomed_window
from diffmic.tasks import MULTICLASS


def zoomed(size=96, zoom=1024, cells=14):
    backbone = build_backbone("test_resnet", image_size=size)
    return ZoomedCrops(backbone, (size, size), (zoom, zoom), (cells, cells), (1, 1))


def plan(backbone="test_resnet", image_size=64, **architecture):
    settings = {"regions": "zoom", "zoom_size": 256, "feature_dim": 16, "num_train_timesteps": 20}
    chosen = Architecture(**settings | architecture)
    return NetworkPlan(backbone, chosen, image_size, 3, MULTICLASS, DiffusionSettings())


def watched(crops):
    """What the backbone of zoomed regions gets, as a list that fills."""
    seen = []
    crops.backbone.pooled = lambda images: seen.append(images) or images.mean(dim=(2, 3))
    return seen


def in_pixels(crops, cells, image):
    """Boxes of the regions of one image, as integers."""
    height, width = image.shape[1:]
    boxes = crops.boxes(cells, [image])[0] * torch.tensor([width, height, width, height])
    assert (boxes - boxes.round()).abs().max() < 1e-3
    return boxes.round().int().tolist()


def test_zoomed_crops_are_centred_on_their_windows_and_lie_within_the_image():
    crops = zoomed()
    cells = torch.tensor([[[0, 0], [7, 7], [13, 13], [13, 0]]])
    boxes = crops.boxes(cells, torch.zeros(1, 3, 1024, 1024))[0] * 1024
    assert (boxes.min(), boxes.max()) == (0, 1024)
    assert torch.equal(boxes[:, 2:] - boxes[:, :2], torch.full((4, 2), 96.0))
    centre = 7.5 * 1024 / 14
    assert (boxes[1, :2] + 48 - centre).abs().max() <= 1
    assert boxes[3].tolist() == [0, 928, 96, 1024]  # x first: the last row, the first column


@pytest.mark.parametrize("together", [True, False])
def test_zoomed_crops_hold_the_pixels_of_their_boxes(together):
    crops = zoomed()
    seen = watched(crops)
    images = torch.rand(2, 3, 1024, 1024)
    cells = torch.tensor([[[0, 3], [7, 7]], [[5, 13], [2, 2]]])
    given = images if together else list(images)
    assert crops(given, None, cells).shape == (2, 2, 3)
    boxes = (crops.boxes(cells, given) * 1024).round().int()
    for b in range(2):
        for k in range(2):
            x0, y0, x1, y1 = boxes[b, k].tolist()
            assert torch.equal(seen[0].view(2, 2, 3, 96, 96)[b, k], images[b, :, y0:y1, x0:x1])


@pytest.mark.parametrize("size", [(2048, 2048), (999, 1501), (200, 3000), (64, 80), (5, 2), (1, 1)])
def test_crops_of_another_size_are_the_pixels_of_their_boxes_resized(size):
    crops = zoomed()
    seen = watched(crops)
    image = (torch.rand(1, *size, generator=torch.Generator().manual_seed(0)) * 255).byte()
    cells = torch.tensor([[[0, 0], [13, 13], [6, 2]]])
    crops([image], None, cells)
    for k, (x0, y0, x1, y1) in enumerate(in_pixels(crops, cells, image)):
        assert 0 <= x0 < x1 <= size[1]
        assert 0 <= y0 < y1 <= size[0]
        part = image[:, y0:y1, x0:x1].float()[None] / 255
        expected = nn.functional.interpolate(part, (96, 96), mode="bilinear", antialias=True)[0]
        torch.testing.assert_close(seen[0][k], expected.expand(3, -1, -1), atol=0.01, rtol=0)


def test_a_region_is_the_same_share_of_images_of_any_size():
    crops, cells = zoomed(), torch.tensor([[[4, 9]]])
    usual = crops.boxes(cells, torch.zeros(1, 3, 1024, 1024))
    for size in ((512, 512), (4096, 3000), (700, 1300)):
        found = crops.boxes(cells, [torch.zeros(3, *size)])
        assert (found - usual).abs().max() < 1 / min(size)


def test_features_do_not_depend_on_the_sizes_or_kinds_of_the_neighbours():
    crops = zoomed().eval()
    draw = torch.Generator().manual_seed(0)
    images = [
        torch.rand(3, 1024, 1024, generator=draw),
        (torch.rand(1, 2000, 700, generator=draw) * 255).byte(),
        torch.rand(1, 90, 300, generator=draw),
    ]
    cells = torch.tensor([[[0, 3], [7, 7]]]).expand(3, 2, 2)
    with torch.no_grad():
        together = crops(images, None, cells)
        for i, image in enumerate(images):
            alone = crops([image], None, cells[:1])
            torch.testing.assert_close(together[i : i + 1], alone, atol=1e-5, rtol=1e-5)


# --- The window of the choice --------------------------------------------------------------------


@pytest.mark.parametrize("zoom_size", [224, 512, 640, 1024, 1700, 1792, 2048, 3584])
def test_a_crop_covers_the_window_that_was_chosen(zoom_size):
    net = build_network(plan("test_resnet", 224, zoom_size=zoom_size))
    regions, window = net.prior.regions, net.prior.choice.window
    assert window >= (1, 1)
    side = zoom_size / regions.map_size[0]
    rows = torch.arange(regions.map_size[0] - window[0] + 1)
    cells = torch.stack([rows, rows], dim=-1)[None]
    x0, _, x1, _ = (regions.boxes(cells, torch.zeros(1, 3, zoom_size, zoom_size)) * zoom_size)[0].T
    assert (x0 <= rows * side + 0.5).all()  # but for the rounding to whole pixels
    assert (x1 >= (rows + window[0]) * side - 0.5).all()


def test_the_window_is_the_largest_that_fits_the_crop():
    assert zoomed_window((128, 128), (1024, 1024), (28, 28)) == (3, 3)
    assert zoomed_window((128, 128), (1792, 1792), (28, 28)) == (2, 2)


def test_regions_smaller_than_their_cells_are_an_error_that_says_what_to_set():
    with pytest.raises(InputError, match="region_size to at least 147, zoom_size to at most 3584"):
        build_network(plan("test_resnet", 224, zoom_size=4096, region_size=128))
    for given in ({"region_size": 147}, {"zoom_size": 3584, "region_size": 128}):
        build_network(plan("test_resnet", 224, **{"zoom_size": 4096} | given))


@pytest.mark.parametrize(
    "settings", [{"zoom_size": 4096}, {"zoom_size": 1024, "region_map": "coarse"}]
)
def test_auto_regions_are_as_large_as_their_cells(settings):
    made = plan("test_resnet", 224, **settings)
    network = build_network(made)
    size = resolved(made, network).architecture.region_size
    assert size % 32 == 0
    assert size >= settings["zoom_size"] / network.prior.regions.map_size[0]
    again = build_network(resolved(made, network))
    assert again.prior.regions.region_size == (size, size)


@pytest.mark.parametrize("region_size", [300, 1000])
def test_a_region_larger_than_the_zoom_is_an_error(region_size):
    with pytest.raises(InputError, match=f"region_size is {region_size}; .*the zoom_size of 256"):
        build_network(plan(region_size=region_size))


def test_a_network_needs_a_zoom_size():
    with pytest.raises(InputError, match=r"zoom_size is 'auto'.*zoom_size=1024"):
        build_network(plan(zoom_size="auto"))


# --- Backbones -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "region_size"),
    [
        ("vit_tiny_patch16_224", 128),
        ("deit_tiny_patch16_224", 128),
        ("swin_tiny_patch4_window7_224", 128),
        ("eva02_tiny_patch14_224", 126),  # patches of 14 pixels
        ("cait_xxs24_224", 224),  # images of 224 pixels, and no others
    ],
)
@pytest.mark.slow
def test_transformers_of_a_fixed_size_read_regions(name, region_size):
    made = plan(name, 224, zoom_size=448)
    with torch.random.fork_rng(devices=[]):
        net = build_network(made).eval()
    assert resolved(made, net).architecture.region_size == region_size
    whole, crops = net.prior.backbone, net.prior.regions.backbone
    assert all(a is b for a, b in zip(whole.parameters(), crops.parameters(), strict=True))
    with torch.no_grad():
        assert net(torch.rand(1, 3, 448, 448)).isfinite().all()


def test_a_size_that_the_backbone_does_not_take_is_an_error_that_says_what_to_set():
    with pytest.raises(BackboneError, match=r"Set Architecture\(region_size=...\).*224"):
        build_network(plan("vit_tiny_patch16_224", 224, zoom_size=448, region_size=100))


class Encoder(nn.Module):
    """What gives conditions."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, images):
        return self.net.encode(images)


@pytest.mark.slow
def test_a_zoom_is_exported_for_batches_of_any_size():
    net = build_network(plan()).eval()
    images = torch.rand(4, 3, 256, 256)
    shapes = ({0: torch.export.Dim("batch", min=2)},)
    encoder = torch.export.export(Encoder(net), (images,), dynamic_shapes=shapes).module()
    scores = torch.export.export(net, (images,), dynamic_shapes=shapes).module()
    for other in (images[:3], torch.rand(7, 3, 256, 256)):
        found, expected = encoder(other), net.encode(other)
        assert isinstance(found, Conditions)
        for name, tensor in vars(expected).items():
            torch.testing.assert_close(getattr(found, name), tensor, msg=name)
        torch.testing.assert_close(scores(other), net(other))


def test_conditions_of_originals_are_those_of_the_same_pixels_in_a_tensor():
    net = build_network(plan()).eval()
    images = torch.rand(3, 3, 256, 256)
    with torch.no_grad():
        expected = net.encode(images)
        found = net.encode(net.prior.whole(images), list(images))
    for name, tensor in vars(expected).items():
        torch.testing.assert_close(getattr(found, name), tensor, msg=name)


def test_zoomed_scores_can_be_differentiated_with_respect_to_the_images():
    net = build_network(plan()).eval()
    images = torch.rand(2, 3, 256, 256, requires_grad=True)
    net(images)[:, 1].sum().backward()
    boxes = (net.encode(images).boxes[0, 0] * 256).int().tolist()
    inside = images.grad[0, :, boxes[1] : boxes[3], boxes[0] : boxes[2]].abs().mean()
    assert inside > images.grad[0].abs().mean()
