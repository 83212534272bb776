"""Parts of one's own: each is used, checked, saved and loaded."""

import copy
import pickle
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC
from tiny import RECIPE, TinyBackbone, small, stripes
from torch import nn

from diffmic import DiffMICClassifier, InputError, ModelFileError
from diffmic.diffusion import LabelMapProcess, NoiseSchedule, ddim
from diffmic.model import Architecture
from diffmic.parts import (
    Calibrator,
    Conditions,
    DenoiserPart,
    Loss,
    PartError,
    Prior,
    RegionFinder,
)

pytestmark = pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")
X, Y = stripes(48)


class PooledPrior(nn.Module):
    """A linear prior on pooled features, with two regions: the halves of the image."""

    n_regions, image_channels, region_channels = 2, 16, 16

    def __init__(self, plan):
        super().__init__()
        self.encoder = TinyBackbone()
        self.head = nn.Linear(16, plan.num_classes)

    def forward(self, images):
        maps = self.encoder(images)
        halves = torch.stack([maps[:, :, :2].mean(dim=(2, 3)), maps[:, :, 2:].mean(dim=(2, 3))], 1)
        pooled = maps.mean(dim=(2, 3))
        return Conditions.of(
            self.head(pooled),
            pooled,
            local_logits=self.head(halves.mean(dim=1)),
            region_features=halves,
        )

    def reread(self, image_features, region_features, region_weights):
        return self.head(image_features), self.head(region_features.mean(dim=1))


class FrozenPrior(PooledPrior):
    """Nothing to learn: stage one is left out."""

    def __init__(self, plan):
        super().__init__(plan)
        self.requires_grad_(False)


def corners(images, saliency):
    """Two given boxes, the second of which is left out."""
    boxes = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.25, 0.25, 1.0, 1.0]])
    n = images.shape[0]  # a length would be fixed in a graph of ONNX
    return boxes.expand(n, 2, 4), torch.tensor([1.0, 0.0]).expand(n, 2)


class Pointwise(nn.Module):
    def __init__(self, plan):
        super().__init__()
        width, n_classes = plan.architecture.feature_dim, plan.num_classes
        self.time = nn.Embedding(plan.architecture.num_train_timesteps, width)
        self.enter = nn.Linear(2 * n_classes, width)
        self.leave = nn.Linear(width, n_classes)

    def forward(self, guidance, noisy, timesteps, context):
        h = self.enter(torch.cat([guidance, noisy], dim=-1)) + self.time(timesteps)
        return self.leave(torch.relu(h) * context[:, None])


class Mixing(Pointwise):
    """Sees all distances together; remembers how many there were."""

    mixes_positions = True

    def __init__(self, plan):
        super().__init__(plan)
        self.seen = []

    def forward(self, guidance, noisy, timesteps, context):
        self.seen.append(noisy.shape[1])
        return super().forward(guidance + guidance.mean(1, keepdim=True), noisy, timesteps, context)


def smooth(output, target):
    smoothed = 0.9 * target + 0.1 / target.shape[-1]
    return -(smoothed * output.log_softmax(dim=-1)).sum(dim=-1)


class Dirichlet(LogisticRegression):
    def state_dict(self):
        return {"coef_": self.coef_, "intercept_": self.intercept_, "classes_": self.classes_}

    def load_state_dict(self, state):
        vars(self).update(state)


class Isotonic:
    """One isotonic regression for each class, scaled to the sum 1."""

    def fit(self, X, y, sample_weight=None):
        p = self.softmax(X)
        self.maps = [
            IsotonicRegression(out_of_bounds="clip").fit(p[:, c], y == c, sample_weight)
            for c in range(p.shape[1])
        ]
        return self

    def softmax(self, X):
        logits = X[:, : X.shape[1] // 2] if X.shape[1] == 6 else X
        return torch.from_numpy(logits).softmax(dim=1).numpy()

    def predict_proba(self, X):
        columns = [
            m.predict(column) for m, column in zip(self.maps, self.softmax(X).T, strict=True)
        ]
        p = np.stack(columns, axis=1) + 1e-3
        return p / p.sum(axis=1, keepdims=True)


def fitted(recipe=RECIPE, **parameters):
    return DiffMICClassifier(**small(recipe=recipe, max_epochs=2, **parameters)).fit(X, Y)


ARCHITECTURAL = {
    "prior": ({"prior": PooledPrior}, {"prior": PooledPrior}),
    "frozen prior": ({"prior": FrozenPrior}, {"prior": FrozenPrior}),
    "region_finder": ({"region_finder": corners, "n_regions": 2}, {"region_finder": corners}),
    "denoiser": ({"denoiser": Pointwise}, {"denoiser": Pointwise}),
    "mixing denoiser": ({"denoiser": Mixing}, {"denoiser": Mixing}),
    "all": (
        {"region_finder": corners, "n_regions": 2, "denoiser": Mixing},
        {"region_finder": corners, "denoiser": Mixing},
    ),
}


def same_after_saving(clf, tmp_path, parts):
    proba = clf.predict_proba(X[:8])
    assert_allclose(proba.sum(axis=1), 1)
    alone = np.concatenate([clf.predict_proba(X[i : i + 1]) for i in range(8)])
    assert_allclose(alone, proba, atol=1e-5)  # whatever the neighbours
    assert_allclose(pickle.loads(pickle.dumps(clf)).predict_proba(X[:8]), proba, atol=1e-6)
    own = {} if not isinstance(clf.backbone, nn.Module) else {"backbone": TinyBackbone()}
    clf.save_pretrained(tmp_path / "model")
    for name in parts:
        fewer = {other: part for other, part in parts.items() if other != name}
        with pytest.raises(ModelFileError, match=rf"Pass these again: {name} \(it was .*\)"):
            DiffMICClassifier.from_pretrained(tmp_path / "model", parts=fewer, **own)
    loaded = DiffMICClassifier.from_pretrained(tmp_path / "model", parts=parts, **own)
    assert_allclose(loaded.predict_proba(X[:8]), proba, atol=1e-5)
    with pytest.raises(ModelFileError, match="no prior_loss of"):
        DiffMICClassifier.from_pretrained(
            tmp_path / "model", parts={**parts, "prior_loss": smooth}, **own
        )
    loaded.save_pretrained(tmp_path / "again")
    loaded.set_params(max_epochs=1, warm_start=True).fit(X, Y)


@pytest.mark.parametrize("name", ARCHITECTURAL)
def test_parts_of_an_architecture_are_used_saved_and_loaded(tmp_path, name):
    fields, parts = ARCHITECTURAL[name]
    clf = clone(DiffMICClassifier(**small(max_epochs=2, **fields))).fit(X, Y)
    assert clf.evaluate(X, Y).keys() >= {"prior", "diffusion"}
    same_after_saving(clf, tmp_path, parts)


def test_a_prior_of_ones_own_learns_and_is_explained():
    clf = DiffMICClassifier(**small(prior=PooledPrior, max_epochs=20)).fit(X, Y)
    assert clf.evaluate(X, Y)["prior"]["accuracy"] > 0.8
    found = clf.explain(X[:3])
    assert found.boxes.shape == (3, 2, 4)
    assert found.boxes[0, 0].tolist() == [0, 0, 32, 32]
    assert clf.transform(X[:3]).shape == (3, 16)
    assert len(clf.get_feature_names_out()) == 16


def test_a_frozen_prior_stays_as_it_is_and_stage_one_is_left_out():
    prior = FrozenPrior(type("Plan", (), {"num_classes": 3}))
    clf = fitted(prior=prior)
    assert {row["stage"] for row in clf.history_} == {"diffusion"}
    weights = clf.network_.prior.own.state_dict()
    assert all(weights[name].equal(tensor) for name, tensor in prior.state_dict().items())
    assert not any(weight.requires_grad for weight in clf.network_.prior.parameters())


def test_frozen_weights_of_a_backbone_stay_frozen_and_exact():
    backbone = TinyBackbone()
    backbone.layers[0].requires_grad_(False)
    recipe = replace(RECIPE, half_weights=True)
    clf = DiffMICClassifier(**small(backbone=backbone, recipe=recipe, max_epochs=1)).fit(X, Y)
    learnt = clf.network_.prior.backbone.net.layers
    assert learnt[0].weight.equal(backbone.layers[0].weight)
    assert learnt[3].weight.equal(learnt[3].weight.half().float())
    assert not learnt[0].weight.equal(learnt[0].weight.half().float())
    flags = [weight.requires_grad for weight in clf.network_.prior.backbone.net.parameters()]
    assert flags == [weight.requires_grad for weight in backbone.parameters()]


def test_a_region_finder_says_where_regions_are_and_zero_weights_leave_them_out():
    clf = fitted(region_finder=corners, n_regions=2)
    found = clf.explain(X[:3])
    assert_allclose(found.boxes[0], [[0, 0, 16, 16], [8, 8, 32, 32]])
    assert_allclose(found.attention, [[1, 0]] * 3, atol=1e-6)


def test_regions_of_boxes_are_read_where_they_are():
    """Only what lies in the box changes the features, for windows and for crops."""
    from diffmic.model import NetworkPlan, build_network
    from diffmic.tasks import MULTICLASS
    from diffmic.training import resolve_recipe

    def upper_left(images, saliency):
        return torch.tensor([[[0.0, 0.0, 0.25, 0.25]]]).expand(len(images), 1, 4)

    for own in ({}, {"region_backbone": TinyBackbone()}, {"regions": "zoom", "zoom_size": 64}):
        architecture = Architecture(
            region_finder=upper_left, n_regions=1, region_size=16, feature_dim=8, **own
        )
        plan = NetworkPlan(
            TinyBackbone(), architecture, 32, 3, MULTICLASS, resolve_recipe("default").diffusion
        )
        network = build_network(plan).eval()
        side = plan.input_size
        images = torch.rand(1, 3, side, side)
        far, near = images.clone(), images.clone()
        far[..., side // 2 :, side // 2 :], near[..., :4, :4] = 0, 0
        features = [network.encode(each).region_features for each in (images, far, near)]
        assert_allclose(features[0].detach(), features[1].detach(), atol=1e-6)
        assert (features[0] - features[2]).abs().max() > 1e-3


class OneRegion(PooledPrior):
    """The whole image is the only region, and outputs are float64."""

    n_regions = 1

    def forward(self, images):
        pooled = self.encoder(images).mean(dim=(2, 3))
        return Conditions.of(self.head(pooled).double(), pooled.double())


class Double(Pointwise):
    def forward(self, *args):
        return super().forward(*args).double()


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("denoiser", [Double, Mixing])
def test_one_region_other_floats_several_labels_and_images_encoded_anew(cached, denoiser):
    labels = np.stack([Y == 0, Y != 2], axis=1).astype(float)
    labels[0, 1] = np.nan
    recipe = RECIPE if cached else replace(RECIPE, cached=False, n_cached_views=0)
    clf = DiffMICClassifier(
        **small(prior=OneRegion, denoiser=denoiser, recipe=recipe, max_epochs=1, n_views=2)
    ).fit(X, labels)
    assert clf.predict_proba(X[:3], n_views=1).shape == (3, 2)
    assert clf.network_.n_regions == 1
    assert np.isfinite(clf.explain(X[:2]).heatmap(1)).all()


def test_a_part_that_fails_later_is_named_and_what_was_learnt_is_kept():
    class Breaks(Pointwise):
        calls = 0

        def forward(self, *args):
            type(self).calls += 1
            found = super().forward(*args)
            return found * torch.nan if type(self).calls > 5 else found

    clf = DiffMICClassifier(**small(denoiser=Breaks, max_epochs=1))
    with pytest.raises(PartError, match="Breaks, gave an output with NaN"):
        clf.fit(X, Y)
    assert clf.predict(X, stage="prior").shape == Y.shape


def breaks_after(calls, function):
    """A function that fails after a number of calls."""
    left = [None] * calls

    def broken(*args):
        left.pop()
        return function(*args)

    return broken


@pytest.mark.parametrize(
    ("role", "settings", "said"),
    [
        ("prior_loss", lambda: {"prior_loss": breaks_after(2, smooth)}, "fails on outputs"),
        ("denoiser_loss", lambda: {"denoiser_loss": breaks_after(2, smooth)}, "fails on outputs"),
        ("process", lambda: {"process": broken_process("forward")}, "fails in forward"),
        ("process", lambda: {"process": broken_process("backward")}, "fails in backward"),
        ("process", lambda: {"process": broken_process("timesteps")}, "fails in timesteps"),
        ("process", lambda: {"process": broken_process("noise")}, "fails in noise"),
        ("sampler", lambda: {"sampler": breaks_after(3, heun)}, "fails on label maps"),
    ],
)
def test_what_a_part_raises_while_training_names_it(role, settings, said):
    given = settings()
    of_diffusion = {name: part for name, part in given.items() if name in ("process", "sampler")}
    recipe = replace(diffusing(**of_diffusion), **{n: p for n, p in given.items() if "loss" in n})
    with pytest.raises(PartError, match=rf"{role} of your own.*{said}.*IndexError"):
        fitted(recipe)


def broken_process(method):
    def made(plan):
        process = FromPrior(plan)
        object.__setattr__(process, method, breaks_after(3, getattr(process, method)))
        return process

    return made


class Noisy(Pointwise):
    def forward(self, *args):
        return nn.functional.dropout(super().forward(*args), training=True)


def shaken(denoise, y, schedule, timesteps):
    return heun(denoise, y, schedule, timesteps) + torch.randn_like(y)


def any_noise(plan):
    """A process that does not draw from the generator it is given."""
    return Wrong(plan, noise=lambda n_draws, K, C, generator: torch.randn(n_draws, K, C))


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"denoiser": Noisy}, "other outputs"),
        ({"sampler": shaken}, "other label maps"),
        ({"process": any_noise}, "other noise"),
    ],
)
def test_parts_that_draw_at_random_in_predictions_are_refused(parts, said):
    of_diffusion = {name: part for name, part in parts.items() if name != "denoiser"}
    own = {name: part for name, part in parts.items() if name == "denoiser"}
    with pytest.raises(PartError, match=f"{next(iter(parts))} of your own.*{said}"):
        fitted(diffusing(**of_diffusion), **own)


def test_a_mixing_denoiser_sees_all_distances_in_order():
    clf = fitted(denoiser=Mixing)
    seen = clf.network_.denoiser.own.seen
    assert set(seen) == {clf.network_.n_regions}
    assert len(seen) > 20


def test_a_denoiser_learns():
    recipe = replace(RECIPE, denoiser_epochs=20, denoiser_learning_rate=1e-2)
    clf = DiffMICClassifier(**small(recipe=recipe, denoiser=Pointwise, max_epochs=15)).fit(X, Y)
    assert clf.evaluate(X, Y)["diffusion"]["accuracy"] > 0.8


@pytest.mark.parametrize("prediction_type", ["probability", "v"])
def test_losses_of_ones_own_are_used(prediction_type):
    calls = []

    def counted(output, target):
        calls.append(tuple(output.shape))
        return (output - target).square().mean(dim=-1)

    diffusion = replace(RECIPE.diffusion, prediction_type=prediction_type)
    recipe = replace(RECIPE, prior_loss=counted, denoiser_loss=counted, diffusion=diffusion)
    fitted(recipe)
    assert {len(shape) for shape in calls} == {2, 3}


def test_losses_are_only_needed_for_further_fits(tmp_path):
    clf = fitted(replace(RECIPE, prior_loss=smooth, denoiser_loss=smooth))
    clf.save_pretrained(tmp_path)
    loaded = DiffMICClassifier.from_pretrained(tmp_path, backbone=TinyBackbone())
    assert loaded.recipe.prior_loss is None
    assert_allclose(loaded.predict_proba(X[:4]), clf.predict_proba(X[:4]), atol=1e-5)
    loaded = DiffMICClassifier.from_pretrained(
        tmp_path, backbone=TinyBackbone(), parts={"prior_loss": smooth}
    )
    assert loaded.recipe.prior_loss is smooth


@pytest.mark.parametrize("stacked", [True, False])
def test_a_calibration_of_ones_own_is_used_saved_and_loaded(tmp_path, stacked):
    part = Dirichlet(C=0.1)
    clf = fitted(replace(RECIPE, calibration=part, stacked=stacked))
    assert not hasattr(part, "coef_")
    found = clf.calibrations_["diffusion"].part
    assert found.coef_.shape == (3, 6 if stacked else 3)
    assert clf.validation_scores_["diffusion"]["nll"] > 0
    same_after_saving(clf, tmp_path, {"calibration": part})
    assert "Dirichlet" in (tmp_path / "model" / "README.md").read_text()


def test_a_calibration_that_is_no_estimator_predicts_but_says_why_it_is_not_saved(tmp_path):
    clf = fitted(replace(RECIPE, calibration=Isotonic()))
    assert_allclose(clf.predict_proba(X[:4]).sum(axis=1), 1)
    with pytest.raises(InputError, match=r"Isotonic, has no state_dict"):
        clf.save_pretrained(tmp_path / "model")
    assert_allclose(pickle.loads(pickle.dumps(clf)).predict_proba(X), clf.predict_proba(X))


def test_a_calibration_that_missed_a_class_gives_it_little():
    clf = DiffMICClassifier(**small(recipe=replace(RECIPE, calibration=LogisticRegression())))
    few = np.flatnonzero(Y != 2)
    clf.fit(X, Y, validation_data=(X[few], Y[few]))
    proba = clf.predict_proba(X)
    assert 0 < proba[:, 2].max() < 1e-3


def test_multilabel_calibration():
    from sklearn.multiclass import OneVsRestClassifier

    labels = np.stack([Y == 0, Y != 2], axis=1).astype(int)
    recipe = replace(RECIPE, calibration=OneVsRestClassifier(NoWeights()))
    clf = DiffMICClassifier(**small(recipe=recipe))
    with pytest.raises(PartError, match="cannot be fitted"):  # it takes no sample_weight
        clf.fit(X, labels)


class NoWeights(LogisticRegression):
    def fit(self, X, y):
        return super().fit(X, y)


@pytest.mark.slow
def test_a_model_with_parts_is_exported_but_not_with_a_calibration(tmp_path):
    pytest.importorskip("onnxscript")
    clf = fitted(denoiser=Mixing, region_finder=corners, n_regions=2)
    expected = clf.predict_proba(X[:4])
    assert_allclose(clf.compile("onnxruntime").predict_proba(X[:4]), expected, atol=1e-3)
    clf = fitted(replace(RECIPE, calibration=Dirichlet()))
    with pytest.raises(InputError, match="Dirichlet, cannot be part of an exported model"):
        clf.export_onnx(tmp_path / "model.onnx")


def test_the_protocols_know_the_parts():
    assert isinstance(PooledPrior(type("P", (), {"num_classes": 3})), Prior)
    assert isinstance(corners, RegionFinder)
    assert isinstance(smooth, Loss)
    assert isinstance(LogisticRegression(), Calibrator)
    assert not isinstance(TinyBackbone(), Prior)
    assert issubclass(Pointwise, DenoiserPart)


def changed(kind, **changes):
    """A part whose output is changed."""

    class Changed(kind):
        def forward(self, *args):
            found = super().forward(*args)
            if isinstance(found, Conditions):
                return replace(found, **{n: f(getattr(found, n)) for n, f in changes.items()})
            return changes["output"](found)

    Changed.__qualname__ = "Changed"
    return Changed


def nan(tensor):
    tensor = tensor.clone()
    tensor[-1] = torch.nan
    return tensor


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"prior": changed(PooledPrior, local_logits=lambda t: t[:, :2])},
            r"local_logits.*\(\d+, 2\)",
        ),
        ({"prior": changed(PooledPrior, image_features=nan)}, "image_features with NaN.*first in"),
        ({"prior": changed(PooledPrior, saliency=lambda t: t.long())}, "saliency.*int64"),
        ({"prior": changed(PooledPrior, boxes=lambda t: t.tolist())}, "boxes of the type list"),
        ({"prior": TinyBackbone()}, "has n_regions = None"),
        ({"prior": lambda plan: 3}, "made a int"),
        ({"prior": lambda plan: plan.nonsense}, "could not be made.*nonsense"),
        (
            {"denoiser": changed(Pointwise, output=lambda t: t[:, :1])},
            r"denoiser.*shape \(4, 1, 3\)",
        ),
        ({"denoiser": changed(Pointwise, output=nan)}, "denoiser.*NaN"),
        ({"denoiser": changed(Pointwise, output=lambda t: t.numpy())}, "denoiser.*ndarray"),
        ({"denoiser": TinyBackbone()}, "denoiser.*fails on maps"),
        ({"region_finder": lambda i, s: i.new_zeros(len(i), 2, 4)}, "n_regions"),
        ({"region_finder": lambda i, s: i.new_zeros(len(i), 4, 4)}, "box .*for image 0"),
        ({"region_finder": lambda i, s: i.new_ones(len(i), 4, 5)}, "boxes of shape"),
        ({"region_finder": lambda i, s: None}, "NoneType"),
        ({"region_finder": lambda i: None}, r"region_finder .* fails on images.*takes 1"),
        ({"prior": changed(PooledPrior, boxes=lambda t: t.nonsense)}, "prior .* fails.*nonsense"),
        ({"region_finder": lambda i, s: nan(i.new_ones(len(i), 4, 4))}, "boxes with NaN"),
        (
            {
                "region_finder": lambda i, s: (corners(i, s)[0], i.new_zeros(len(i), 2)),
                "n_regions": 2,
            },
            "weights.*for image 0",
        ),
    ],
)
def test_what_a_part_gives_is_checked_before_or_as_training_begins(fields, said):
    clf = DiffMICClassifier(**small(**fields))
    with pytest.raises(PartError, match=said):
        clf.fit(X, Y)
    assert not hasattr(clf, "model_")


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (lambda o, t: (o - t).square().mean(), r"shape \(\).*expected"),
        (lambda o, t: (o - t).square(), "a loss for each row"),
        (lambda o, t: 3.0, "a float"),
        (lambda o, t: (o.detach() - t).square().mean(-1), "without a gradient"),
        (lambda o, t: (o * torch.nan).mean(-1), "NaN"),
        (lambda o, t: o.nonsense, "fails.*nonsense"),
    ],
)
@pytest.mark.parametrize("role", ["prior_loss", "denoiser_loss"])
def test_losses_are_tried_before_anything_is_trained(role, loss, said):
    with pytest.raises(PartError, match=rf"{role} of your own.*{said}"):
        fitted(replace(RECIPE, **{role: loss}))


class Gives:
    def __init__(self, function):
        self.function = function

    def fit(self, X, y, sample_weight=None):
        return self

    def predict_proba(self, X):
        return self.function(X)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda X: X[:, :2], "of shape"),
        (lambda X: X[:, :3], "in 0–1"),
        (lambda X: np.full((len(X), 3), np.nan), "nan"),
        (lambda X: np.full((len(X), 3), 0.5), "with the sum 1"),
        (lambda X: X.nonsense, "nonsense"),
    ],
)
def test_probabilities_of_a_calibration_are_checked_and_what_was_learnt_is_kept(function, said):
    clf = DiffMICClassifier(**small(recipe=replace(RECIPE, calibration=Gives(function))))
    with pytest.raises(PartError, match=f"calibration of your own.*{said}"):
        clf.fit(X, Y)
    assert clf.predict(X).shape == Y.shape


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Architecture(prior="resnet"), "prior is 'resnet'"),
        (lambda: Architecture(denoiser=3), "denoiser is 3"),
        (lambda: Architecture(region_finder=[1]), "region_finder"),
        (lambda: Architecture(prior=PooledPrior, region_finder=corners), "region_finder is given"),
        (lambda: Architecture(prior=PooledPrior, prior_backbone="resnet18"), "prior_backbone is"),
        (lambda: Architecture(prior=PooledPrior, regions="zoom"), "zoom"),
        (lambda: replace(RECIPE, prior_loss="focal"), "prior_loss is 'focal'"),
        (lambda: replace(RECIPE, calibration=LogisticRegression), "calibration is"),
        (lambda: replace(RECIPE, calibration=nn.Linear(3, 3)), "calibration is"),
        (lambda: replace(RECIPE, calibration=LinearSVC()), "calibration is"),
    ],
)
def test_what_cannot_be_a_part_is_refused(make, said):
    with pytest.raises(InputError, match=said):
        make()


@pytest.mark.parametrize("parts", [3, ["prior"], {"nonsense": 1}])
def test_parts_that_there_are_not_are_refused(tmp_path, parts):
    fitted(denoiser=Pointwise).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="parts is"):
        DiffMICClassifier.from_pretrained(tmp_path, backbone=TinyBackbone(), parts=parts)


@pytest.mark.parametrize("value", ["os.system", 3, {"own": 3}, {"own": "a", "b": 1}, ["x"]])
def test_a_file_names_parts_and_nothing_else(tmp_path, value):
    import json

    fitted().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["network"]["architecture"]["denoiser"] = value
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelFileError):
        DiffMICClassifier.from_pretrained(tmp_path, backbone=TinyBackbone())


def test_another_denoiser_does_not_take_the_weights(tmp_path):
    fitted(denoiser=Pointwise).save_pretrained(tmp_path)

    class Other(Pointwise):
        def __init__(self, plan):
            super().__init__(plan)
            self.more = nn.Linear(2, 2)

    with pytest.raises(ModelFileError, match=r"missing \['denoiser.own.more"):
        DiffMICClassifier.from_pretrained(
            tmp_path, backbone=TinyBackbone(), parts={"denoiser": Other}
        )


def test_files_without_parts_do_not_mention_them(tmp_path):
    clf = fitted()
    clf.save_pretrained(tmp_path)
    text = (tmp_path / "config.json").read_text()
    assert not any(f'"{name}"' in text for name in ("denoiser", "region_finder", "prior_loss"))
    assert copy.deepcopy(clf).architecture == clf.architecture


def heun(denoise, y, schedule, timesteps):
    """A sampler of the second order, in a few lines."""
    for t, s in zip(timesteps, [*timesteps[1:], None], strict=True):
        found = denoise(y, t)
        if s is None:
            return found.label
        guess = schedule.signal[s] * found.label + schedule.noise[s] * found.noise
        again = denoise(guess, s)
        label, noise = (found.label + again.label) / 2, (found.noise + again.noise) / 2
        y = schedule.signal[s] * label + schedule.noise[s] * noise


class FromPrior(LabelMapProcess):
    """Sampling begins half-way, at the noisy guidance of the prior."""

    def __init__(self, plan):
        super().__init__(
            NoiseSchedule(plan.architecture.num_train_timesteps),
            start="gaussian",
            timestep_spacing="trailing",
            sampler="ddim",
        )

    def timesteps(self, num_steps):
        half = self.schedule.num_train_timesteps // 2
        return [t for t in super().timesteps(2 * num_steps) if t < half]

    def backward(self, denoise, noise, guidance, timesteps):
        t = timesteps[0]
        start = self.schedule.signal[t] * guidance + self.schedule.noise[t] * noise.to(guidance)
        estimates = []

        def watched(y, t):
            estimates.append(denoise(y, t))
            return estimates[-1]

        last = ddim(watched, start, self.schedule, timesteps)
        return last, torch.stack([each.label for each in estimates]).mean(dim=0)


def diffusing(**settings):
    return replace(RECIPE, diffusion=replace(RECIPE.diffusion, **settings))


def test_a_sampler_of_ones_own_that_is_ddim_gives_what_ddim_gives():
    expected = fitted().predict_proba(X[:6])
    clf = fitted(diffusing(sampler=lambda d, y, s, t: ddim(d, y, s, t)))
    assert_allclose(clf.predict_proba(X[:6]), expected, atol=1e-6)


@pytest.mark.parametrize(
    "parts", [{"sampler": heun}, {"process": FromPrior}, {"denoiser": Mixing, "sampler": heun}]
)
def test_a_sampler_or_process_is_used_saved_and_loaded(tmp_path, parts):
    settings = {name: part for name, part in parts.items() if name != "denoiser"}
    clf = fitted(diffusing(**settings), **({"denoiser": Mixing} if "denoiser" in parts else {}))
    usual = fitted().predict_proba(X[:8])
    assert np.abs(clf.predict_proba(X[:8]) - usual).max() > 1e-4
    same_after_saving(clf, tmp_path, parts)
    card = (tmp_path / "model" / "README.md").read_text()
    assert ("FromPrior" in card) == ("process" in parts)


class Wrong(FromPrior):
    """A process with one method replaced."""

    def __init__(self, plan, **methods):
        super().__init__(plan)
        for name, method in methods.items():
            object.__setattr__(self, name, method)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"sampler": lambda d, y, s, t: y}, "never called denoise"),
        ({"sampler": lambda d, y, s, t: d(y, t[0]).label.mean()}, r"final label map of shape \(\)"),
        ({"sampler": lambda d, y, s, t: d(y, t[0]).label * torch.nan}, "final label map with NaN"),
        ({"sampler": lambda d, y, s, t: d(y[:1], t[0]).label}, "noisy map of shape"),
        ({"sampler": lambda d, y: y}, "fails on label maps"),
        ({"process": partial(Wrong, timesteps=lambda n: [0, 1])}, r"timesteps \[0, 1\]"),
        ({"process": partial(Wrong, timesteps=lambda n: [99, 0])}, "0–49"),
        (
            {"process": partial(Wrong, noise=lambda *a: torch.zeros(1, 2))},
            r"noise of shape \(1, 2\)",
        ),
        ({"process": partial(Wrong, forward=lambda *a: a[0])}, r"noisy labels of shape \(2, 3\)"),
        ({"process": partial(Wrong, backward=lambda *a: a[1])}, "a Tensor from backward"),
        ({"process": partial(Wrong, backward=lambda *a: (a[2], a[2] * torch.nan))}, "mean.*NaN"),
        ({"process": partial(Wrong, schedule=None)}, "a schedule of None"),
        ({"process": lambda plan: NoiseSchedule(50)}, "has a schedule of None"),
    ],
)
def test_samplers_and_processes_are_tried_before_anything_is_trained(settings, said):
    with pytest.raises(PartError, match=f"{next(iter(settings))} of your own.*{said}"):
        fitted(diffusing(**settings))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"sampler": "euler"}, "sampler is 'euler'; give one of"),
        ({"sampler": None}, "sampler is None"),
        ({"process": 3}, "process is 3"),
        ({"process": FromPrior, "sampler": heun}, "both your own"),
        ({"process": "drift", "sampler": heun}, "does not go with it"),
    ],
)
def test_settings_that_are_no_sampler_or_process_are_refused(settings, said):
    defaults = {"prediction_type": "noise", "readout": "last"} if "drift" in str(settings) else {}
    with pytest.raises(InputError, match=said):
        diffusing(**defaults, **settings)
