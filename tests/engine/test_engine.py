"""A prediction engine answers as the network itself, and is made once, from what it is then."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import small, stripes
from torch import nn
from torch.testing import assert_close

from diffmic import BackboneError, DiffMICClassifier, DiffMICWarning, InputError
from diffmic.data import PreparedImages, read_inputs
from diffmic.engine import folding, onednn, prediction_engine
from diffmic.engine.denoiser import WideTimeGain
from diffmic.engine.folding import folded
from diffmic.engine.onednn import Joined
from diffmic.inference import Engine, SamplingOptions, encode_images, evidence_of
from diffmic.model import Architecture, DiffusionSettings, NetworkPlan, build_network, denoiser
from diffmic.model.backbone import build_backbone
from diffmic.tasks import MULTICLASS


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


def network(backbone="test_resnet", image_size=64, **changes):
    architecture = Architecture(
        **{"n_regions": 4, "feature_dim": 32, "num_train_timesteps": 100, **changes}
    )
    plan = NetworkPlan(backbone, architecture, image_size, 3, MULTICLASS, DiffusionSettings())
    torch.manual_seed(0)
    return shaken(build_network(plan))


FOUR = {"backbone": "test_vit", "prior_backbone": "test_resnet", "region_backbone": "test_resnet"}
FOUR |= {"image_size": 160, "region_size": 32}


def noise(net, n_draws=2):
    return net.noise(n_draws, torch.Generator().manual_seed(0))


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


class InPlace(nn.Module):
    """What the batch norm gives is changed in place before the activation reads it."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()

    def forward(self, images):
        maps = self.norm(self.conv(images))
        maps += 1
        return self.act(maps)


def test_what_is_changed_in_place_before_an_activation_is_not_joined_and_still_folded():
    backbone = shaken(build_backbone(InPlace(), image_size=16))
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        assert_close(folded(backbone)(images), backbone(images))
    assert joined(folded(backbone)) <= {"none"}
    assert n_norms(folded(backbone)) == 0


class Random(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 4, stride=4)

    def forward(self, images):
        return nn.functional.dropout(self.conv(images), 0.5, training=True)


class Overflowing(Random):
    def forward(self, images):
        maps = self.conv(images) * 1e38 * 1e38
        return maps - maps


@pytest.mark.parametrize(
    ("module", "told"),
    [
        (Random(), "draws random numbers although it is in evaluation mode"),
        (Overflowing(), "gives other feature maps for the same images"),
    ],
    ids=["random", "NaN"],
)
def test_a_backbone_that_does_not_repeat_itself_stays_as_it_is_and_the_user_hears_of_it(
    module, told
):
    net = network(module, image_size=16, n_regions=2)
    with pytest.warns(DiffMICWarning, match=told):
        engine = prediction_engine(net)
    assert type(engine.network.prior.backbone.net) is type(module)


def test_nan_in_the_maps_is_an_error_that_names_the_image():
    engine = Engine(network(Overflowing(), image_size=16, n_regions=2))
    images = PreparedImages(read_inputs(torch.rand(2, 3, 16, 16)).images, 16)
    encoded = [conditions for conditions, _ in encode_images(engine, images, batch_size=2)]
    with pytest.raises(BackboneError, match="NaN or infinity for image 0"):
        evidence_of(engine, encoded, "diffusion", SamplingOptions(2, 1), seed=0)


def test_a_label_map_that_overflows_is_told_from_damaged_weights():
    net = network(image_size=16, n_regions=2)
    engine = Engine(net)
    images = PreparedImages(read_inputs(torch.rand(2, 3, 16, 16)).images, 16)
    encoded = [conditions for conditions, _ in encode_images(engine, images, batch_size=2)]
    with torch.no_grad():
        net.denoiser.out.bias.fill_(float("inf"))
    with pytest.raises(BackboneError, match=r"image 0, .* num_steps"):
        evidence_of(engine, encoded, "diffusion", SamplingOptions(2, 1), seed=0)


@pytest.mark.parametrize("changes", [{}, FOUR], ids=["one backbone", "four networks"])
def test_conditions_and_scores_are_those_of_the_network(changes):
    original = network(**changes)
    engine = prediction_engine(original)
    for n_images in (5, 1):
        images = torch.rand(n_images, 3, *2 * (changes.get("image_size", 64),))
        with torch.no_grad():
            expected, found = original.encode(images), engine.encode(images)
            for name, value in vars(expected).items():
                assert_close(getattr(found, name), value, rtol=1e-4, atol=1e-4)
            assert_close(
                engine.sample(expected, noise(original), num_steps=10),
                original.sample(expected, noise(original), num_steps=10),
                rtol=0,
                atol=1e-5,
            )
    assert n_norms(engine.network) == 0 < n_norms(original)


def test_the_plain_engine_is_the_network_itself():
    original = network()
    engine = prediction_engine(original, "plain")
    assert engine.network is original
    assert engine.kind == "plain"


def test_an_unknown_engine_names_the_known_ones():
    with pytest.raises(InputError, match="'auto', 'plain'"):
        prediction_engine(network(), "tensorrt")


@torch.no_grad()
@pytest.mark.parametrize("n_draws", [1, 64], ids=["few rows", "many rows"])
def test_a_folded_denoiser_gives_the_scores_of_the_plain_one(n_draws):
    plain = network(n_regions=2)
    conditions = plain.encode(torch.rand(3, 3, 64, 64))
    found = plain.sample(conditions, noise(plain, n_draws), num_steps=10)
    plain.training = True  # of this module alone: its parts stay in evaluation mode
    expected = plain.sample(conditions, noise(plain, n_draws), num_steps=10)
    assert_close(found, expected, rtol=0, atol=1e-5)
    assert not torch.equal(found, expected)  # else it was not another way


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_faster_softplus_is_torchs(dtype):
    features = torch.linspace(-200, 200, 4000).to(dtype)
    features[:4] = torch.tensor([-torch.inf, torch.inf, 1e4, 0.0])
    before = features.clone()
    found = denoiser._softplus(features)
    assert_close(found, torch.nn.functional.softplus(features), rtol=1e-6, atol=1e-6)
    assert torch.equal(features, before)
    assert denoiser._softplus(features * torch.nan).isnan().all()


@pytest.mark.parametrize(
    ("precision", "tolerance"), [("auto", 1e-5), ("bf16", 1e-2), ("fp16", 1e-2)]
)
def test_wide_layers_give_the_same_scores(precision, tolerance):
    wide = network(feature_dim=1024)
    conditions = wide.encode(torch.rand(3, 3, 64, 64))
    engine = prediction_engine(wide, precision=precision)
    with torch.no_grad():
        expected = wide.sample(conditions, noise(wide), num_steps=5)
        found = engine.sample(conditions, noise(wide), num_steps=5)
    assert found.dtype == torch.float32
    assert_close(found, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("kind", ["auto", "plain"])
@pytest.mark.parametrize("changes", [{}, FOUR], ids=["one backbone", "four networks"])
def test_a_half_precision_is_that_of_every_backbone(changes, kind):
    original = network(**changes, feature_dim=1024)
    images = torch.rand(4, 3, *2 * (changes.get("image_size", 64),))
    with torch.no_grad():
        exact = original.encode(images)
    half = prediction_engine(original, kind, precision="bf16").encode(images)
    assert all(value.dtype == torch.float32 for value in vars(half).values())
    assert not torch.equal(half.global_logits, exact.global_logits)
    spread = float(exact.global_logits.std())
    assert_close(half.global_logits, exact.global_logits, rtol=0, atol=0.2 * spread)


def test_an_engine_does_not_change_with_the_network_and_leaves_it_alone():
    original = network(feature_dim=1024)
    before = {name: tensor.clone() for name, tensor in original.state_dict().items()}
    trained = [p.requires_grad for p in original.parameters()]
    engine = prediction_engine(original)
    after = original.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert [p.requires_grad for p in original.parameters()] == trained
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        first = engine.sample(engine.encode(images), noise(original), num_steps=2)
        for parameter in original.parameters():
            parameter.add_(1)
        again = engine.sample(engine.encode(images), noise(original), num_steps=2)
    assert torch.equal(first, again)


def test_nothing_is_tried_at_a_prediction(monkeypatch):
    engine = prediction_engine(network(feature_dim=1024))

    def tried(*_):
        raise AssertionError("made anew")

    for name in ("folded", "reproduces", "_observed"):
        monkeypatch.setattr(folding, name, tried)
    for name in ("packed_linear", "with_activation"):
        monkeypatch.setattr(onednn, name, tried)
    engine.sample(engine.encode(torch.rand(2, 3, 64, 64)), noise(engine.network), num_steps=3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [None, "auto", "bf16"], ids=["as trained", "rewritten", "rewritten, bf16"]
)
@pytest.mark.parametrize(
    "changes",
    [{}, {"feature_dim": 1024}, FOUR, {**FOUR, "feature_dim": 1024}],
    ids=["one backbone", "wide", "four networks", "four networks, wide"],
)
def test_encoding_and_sampling_compile_without_a_graph_break(changes, kind):
    original = network(**changes)
    run = original
    if kind is not None:
        run = prediction_engine(original, precision="bf16" if kind == "bf16" else "auto").network
        wide = any(isinstance(part, WideTimeGain) for part in run.denoiser.layers)
        assert wide == ("feature_dim" in changes)
    images = torch.rand(2, 3, *2 * (changes.get("image_size", 64),))
    with torch.no_grad():
        conditions = run.encode(images)
        scores = run.sample(conditions, noise(original), num_steps=3)
        torch.compiler.reset()
        encode = torch.compile(run.encode, fullgraph=True, backend="eager")
        sample = torch.compile(run.sample, fullgraph=True, backend="eager")
        compiled = encode(images)
        for name, value in vars(conditions).items():
            assert_close(getattr(compiled, name), value)
        assert_close(sample(conditions, noise(original), num_steps=3), scores)


def test_whether_the_network_draws_is_found_out_once_for_an_engine(monkeypatch):
    """The search walks through all modules, which a prediction of one image would notice."""
    X, y = stripes(30)
    clf = DiffMICClassifier(**small(max_epochs=1)).fit(X, y)
    expected, network, walks = clf.predict_proba(X[:2]), clf.model_.engine.network, []
    walk = network.modules
    monkeypatch.setattr(network, "modules", lambda: walks.append(1) or walk())
    for _ in range(3):
        np.testing.assert_array_equal(clf.predict_proba(X[:2]), expected)
    assert len(walks) == 0
