"""A network for predictions answers as the network itself, and is made anew when that changes."""

import gc
import weakref
from types import SimpleNamespace

import pytest
import torch
from tiny import TinyBackbone
from torch import nn
from torch.testing import assert_close

from diffmic.data import PreparedImages, read_inputs
from diffmic.inference import encode_images, folding, onednn, predict, sample_scores
from diffmic.inference.faster import WideTimeGain, for_encoding, for_sampling
from diffmic.inference.folding import folded
from diffmic.inference.onednn import Joined
from diffmic.model import Architecture, DiffusionSettings, build_network, denoiser
from diffmic.model.backbone import build_backbone


def shaken(module):
    """The module in evaluation mode, with statistics and weights of batch norms unlike new ones."""
    generator = torch.Generator().manual_seed(0)
    for part in module.modules():
        if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
            for tensor in (part.running_var, part.weight.data):
                tensor.uniform_(0.5, 2, generator=generator)
            for tensor in (part.running_mean, part.bias.data):
                tensor.normal_(0, 0.5, generator=generator)
    return module.eval()


def network(**changes):
    choices = {
        "backbone": "test_resnet",
        "prior_backbone": None,
        "region_backbone": None,
        "pretrained": False,
        "image_size": 64,
        "n_regions": 4,
        "region_size": "auto",
        "feature_dim": 32,
        "num_train_timesteps": 100,
        **changes,
    }
    torch.manual_seed(0)
    return shaken(
        build_network(Architecture(**choices), 3, multilabel=False, settings=DiffusionSettings())
    )


FOUR = {"backbone": "test_vit", "prior_backbone": "test_resnet", "region_backbone": "test_resnet"}
FOUR |= {"image_size": 160, "region_size": 32}


def n_norms(module):
    return sum(isinstance(part, nn.BatchNorm2d) for part in module.modules())


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("test_resnet", 0),
        ("test_efficientnet", 0),
        ("test_byobnet", 0),
        ("mobilenetv3_small_050", 0),
        ("tf_efficientnet_lite0", 0),
        ("test_vit", 0),
        ("test_convnext", 0),
    ],
)
def test_batch_norms_are_folded_and_the_maps_stay_the_same(name, left):
    size = 160 if name == "test_vit" else 64
    backbone = shaken(build_backbone(name, image_size=size))
    images = torch.rand(3, 3, size, size)
    with torch.no_grad():
        found, expected = folded(backbone)(images), backbone(images)
    for new, old in zip(found, expected, strict=True):
        assert_close(new, old, rtol=0, atol=3e-4 * float(old.abs().max()))
    assert n_norms(folded(backbone)) == left


class ReadTwice(nn.Module):
    """What the convolution gives is normalised, and read once more beside it."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 4, stride=4), nn.BatchNorm2d(4)

    def forward(self, images):
        maps = self.conv(images)
        return maps + self.norm(maps)


class Shared(nn.Module):
    """One convolution before two batch norms."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(3) for _ in range(2))

    def forward(self, images):
        for norm in self.norms:
            images = norm(self.conv(images))
        return images


@pytest.mark.parametrize("module", [ReadTwice(), Shared()], ids=["read twice", "shared"])
def test_a_batch_norm_that_cannot_be_folded_stays(module):
    backbone = shaken(build_backbone(module, image_size=16))
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        assert_close(folded(backbone)(images), backbone(images))
    assert n_norms(folded(backbone)) == n_norms(module)


def joined(backbone):
    """Names of the activations that joined a convolution."""
    return {part.activation[0] for part in backbone.modules() if isinstance(part, Joined)}


@pytest.mark.parametrize(
    ("name", "activations"),
    [
        ("test_resnet", {"relu", "none"}),
        ("tf_efficientnet_lite0", {"hardtanh", "none"}),
        ("test_efficientnet", {"swish", "none"}),
        ("test_vit", {"gelu", "none"}),
    ],
)
def test_activations_join_their_layer(name, activations):
    backbone = shaken(build_backbone(name, image_size=160 if name == "test_vit" else 64))
    assert joined(folded(backbone)) == activations
    assert joined(folded(backbone, torch.bfloat16)) == set()


def test_where_onednn_cannot_join_them_they_stay(monkeypatch):
    backbone = shaken(build_backbone("test_resnet", image_size=64))
    images = torch.rand(2, 3, 64, 64)
    monkeypatch.setattr(onednn.torch.ops, "mkldnn", SimpleNamespace())
    with torch.no_grad():
        plain = folded(backbone)
        assert joined(plain) == set()
        assert_close(plain(images).coarse, backbone(images).coarse, rtol=0, atol=1e-4)


class Branches(nn.Module):
    """What the batch norm gives is read by an activation and once more beside it."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()

    def forward(self, images):
        maps = self.norm(self.conv(images))
        return self.act(maps) - maps


def test_an_activation_that_cannot_join_stays():
    backbone = shaken(build_backbone(Branches(), image_size=16))
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        assert_close(folded(backbone)(images), backbone(images))
    assert joined(folded(backbone)) == set()


@pytest.mark.parametrize("module", ["test_resnet", Branches()], ids=["timm", "own"])
def test_images_that_pass_a_few_at_a_time_give_the_same_maps(module, monkeypatch):
    backbone = shaken(build_backbone(module, image_size=64))
    images = torch.rand(5, 3, 64, 64)
    monkeypatch.setattr(folding, "_LARGEST", 0)
    one_by_one = folded(backbone)
    assert one_by_one.net.n_images == 1
    with torch.no_grad():
        for new, old in zip(one_by_one(images), backbone(images), strict=True):
            assert_close(new, old, rtol=0, atol=1e-4)


@pytest.mark.parametrize("changes", [{}, FOUR], ids=["one backbone", "four networks"])
def test_conditions_and_scores_are_those_of_the_network(changes):
    original = network(**changes)
    faster = for_sampling(for_encoding(original))
    images = torch.rand(5, 3, *2 * (changes.get("image_size", 64),))
    start = original.start(2, torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = original.encode(images), faster.encode(images)
        for name, value in vars(expected).items():
            assert_close(getattr(found, name), value, rtol=1e-4, atol=1e-4)
        assert_close(
            faster.sample(expected, start, num_steps=10),
            original.sample(expected, start, num_steps=10),
            rtol=0,
            atol=1e-5,
        )
    assert n_norms(faster) == 0 < n_norms(original)


@torch.no_grad()
@pytest.mark.parametrize("n_samples", [1, 64], ids=["few rows", "many rows"])
def test_a_folded_denoiser_gives_the_scores_of_the_plain_one(n_samples):
    plain = network(n_regions=2)
    conditions = plain.encode(torch.rand(3, 3, 64, 64))
    start = plain.start(n_samples, torch.Generator().manual_seed(0))
    found = plain.sample(conditions, start, num_steps=10)
    plain.training = True  # of this module alone: its parts stay in evaluation mode
    expected = plain.sample(conditions, start, num_steps=10)
    assert_close(found, expected, rtol=0, atol=1e-5)
    assert not torch.equal(found, expected)  # else it was not another way


@torch.no_grad()
def test_the_faster_softplus_is_torchs():
    features = torch.linspace(-200, 200, denoiser._MANY)
    features[:4] = torch.tensor([-torch.inf, torch.inf, 1e30, 0.0])
    before = features.clone()
    found = denoiser._softplus(features)
    assert_close(found, torch.nn.functional.softplus(features), rtol=1e-6, atol=1e-6)
    assert not torch.equal(found, torch.nn.functional.softplus(features))
    assert torch.equal(features, before)
    assert denoiser._softplus(features * torch.nan).isnan().all()


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2), (torch.float16, 1e-2)]
)
def test_wide_layers_give_the_same_scores(dtype, tolerance):
    wide = network(feature_dim=1024)
    conditions = wide.encode(torch.rand(3, 3, 64, 64))
    start = wide.start(2, torch.Generator().manual_seed(0))
    faster = for_sampling(wide, dtype)
    assert any(isinstance(part, WideTimeGain) for part in faster.modules())
    with torch.no_grad():
        expected = wide.sample(conditions, start, num_steps=5)
        found = faster.sample(conditions, start, num_steps=5)
    assert found.dtype == torch.float32
    assert_close(found, expected, rtol=0, atol=tolerance)


def test_wide_layers_lose_nothing_where_calls_without_use_are_removed():
    wide = network(feature_dim=1024)
    conditions = wide.encode(torch.rand(2, 3, 64, 64))
    start = wide.start(2, torch.Generator().manual_seed(0))
    faster = for_sampling(wide)
    torch.compiler.reset()
    with torch.no_grad():
        found = torch.compile(faster.sample, backend="aot_eager")(conditions, start, num_steps=3)
        expected = wide.sample(conditions, start, num_steps=3)
    assert_close(found, expected, rtol=0, atol=1e-5)


def test_half_precision_is_of_what_neither_chooses_the_regions_nor_has_batch_norms():
    original = network(**FOUR, feature_dim=1024)
    half = for_encoding(original, torch.bfloat16)
    assert half.image_encoder.dtype == torch.bfloat16  # a transformer
    assert half.region_encoder.backbone.dtype == torch.float32
    assert half.prior.backbone.dtype == half.prior.regions.backbone.dtype == torch.float32
    images = torch.rand(2, 3, 160, 160)
    with torch.no_grad():
        found, expected = half.encode(images), original.encode(images)
    assert torch.equal(found.boxes, expected.boxes)
    assert found.image_features.dtype == found.region_features.dtype == torch.float32
    assert_close(found.image_features, expected.image_features, rtol=0.05, atol=0.05)


def test_a_backbone_is_made_once_until_it_changes():
    def made():
        return for_encoding(original).prior.backbone

    original = network()
    first = made()
    assert made() is first
    with torch.no_grad():
        next(original.prior.backbone.parameters()).add_(1)
    second = made()
    assert second is not first
    original.load_state_dict(original.state_dict())
    third = made()
    assert third is not second
    original.prior.backbone.net = build_backbone(TinyBackbone(), image_size=64).net
    assert made() is not third


def test_wide_weights_are_made_once_until_they_change():
    original = network(feature_dim=1024)
    layers = for_sampling(original).denoiser.layers
    assert for_sampling(original).denoiser.layers[1] is layers[1]
    with torch.no_grad():
        original.denoiser.layers[1].linear.weight.add_(1)
    again = for_sampling(original).denoiser.layers
    assert again[1] is not layers[1]
    assert again[2] is layers[2]


def test_hooks_see_what_passes():
    original, seen = network(), []
    for_encoding(original)
    hook = original.prior.backbone.net.register_forward_hook(lambda *_: seen.append(1))
    for_encoding(original).encode(torch.rand(2, 3, 64, 64))
    assert seen == [1]
    hook.remove()
    assert n_norms(for_encoding(original)) == 0


def test_the_network_itself_is_left_alone():
    original = network()
    before = {name: tensor.clone() for name, tensor in original.state_dict().items()}
    for_sampling(for_encoding(original))
    after = original.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    for part in (original.context, original.denoiser):
        assert all(p.requires_grad for p in part.parameters())


def test_a_network_that_is_gone_takes_its_copy_along():
    original = network()
    made = weakref.ref(for_encoding(original).prior.backbone)
    del original
    gc.collect()
    assert made() is None


def test_predicting_takes_the_faster_network(monkeypatch):
    taken = []
    for name in ("for_encoding", "for_sampling"):
        real = getattr(predict, name)
        monkeypatch.setattr(
            predict, name, lambda n, dtype, real=real: taken.append(dtype) or real(n, dtype)
        )
    net = network()
    images = PreparedImages(read_inputs(torch.rand(3, 3, 64, 64)).images, 64)
    options = {"batch_size": 2, "num_workers": 0, "device": torch.device("cpu")}
    for conditions, _ in encode_images(net, images, **options, dtype=torch.bfloat16):
        sample_scores(net, conditions, num_steps=2, n_samples=1, seed=0)
    assert taken == [torch.bfloat16, torch.float32, torch.float32]


@pytest.mark.parametrize(
    "dtype", [None, torch.float32, torch.bfloat16], ids=["as trained", "fp32", "bf16"]
)
@pytest.mark.parametrize(
    "changes",
    [{}, {"feature_dim": 1024}, FOUR, {**FOUR, "feature_dim": 1024}],
    ids=["one backbone", "wide", "four networks", "four networks, wide"],
)
def test_encoding_and_sampling_compile_without_a_graph_break(changes, dtype):
    original = network(**changes)
    encoding = sampling = original
    if dtype is not None:
        encoding, sampling = for_encoding(original, dtype), for_sampling(original, dtype)
        is_wide = any(isinstance(part, WideTimeGain) for part in sampling.modules())
        assert is_wide == ("feature_dim" in changes)
    images = torch.rand(2, 3, *2 * (changes.get("image_size", 64),))
    start = original.start(2, torch.Generator().manual_seed(0))
    with torch.no_grad():
        conditions = encoding.encode(images)
        scores = sampling.sample(conditions, start, num_steps=3)
        torch.compiler.reset()
        encode = torch.compile(encoding.encode, fullgraph=True, backend="eager")
        sample = torch.compile(sampling.sample, fullgraph=True, backend="eager")
        compiled = encode(images)
        for name, value in vars(conditions).items():
            assert_close(getattr(compiled, name), value)
        assert_close(sample(conditions, start, num_steps=3), scores)
