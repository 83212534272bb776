"""How predictions run the network: the engine, the device and the precision."""

import copy

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import NotFittedError
from tiny import TinyBackbone, small, stripes

from diffmic import DiffMICClassifier, InputError

pytestmark = pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


@pytest.fixture
def classifier(fitted):
    """A fitted classifier of one's own."""
    return copy.deepcopy(fitted)


def change_weights(network):
    """As somebody would who prunes, averages or quantises."""
    with torch.no_grad():
        network.prior.backbone.net.layers[0].weight.mul_(0.5)
        network.denoiser.out.weight.data.mul_(3.0)
        network.prior.saliency.weight.add_(0.1)


@pytest.mark.parametrize("stage", ["prior", "diffusion"])
def test_weights_changed_by_hand_count_after_compile(classifier, new_images, stage):
    X = new_images[0]
    before = classifier.predict_proba(X, stage=stage)
    change_weights(classifier.network_)
    assert_array_equal(classifier.predict_proba(X, stage=stage), before)
    assert classifier.compile() is classifier
    after = classifier.predict_proba(X, stage=stage)
    assert not np.allclose(after, before, atol=1e-3)
    plain = copy.deepcopy(classifier).compile("plain").predict_proba(X, stage=stage)
    assert_allclose(after, plain, atol=1e-5)


def test_the_plain_engine_is_the_network_itself(classifier, new_images):
    classifier.compile("plain")
    assert classifier.model_.engine.network is classifier.network_
    before = classifier.predict_proba(new_images[0])
    change_weights(classifier.network_)
    after = classifier.predict_proba(new_images[0])
    assert not np.allclose(after, before, atol=1e-3)
    assert_array_equal(classifier.compile("plain").predict_proba(new_images[0]), after)


def test_compiling_changes_nothing_of_the_model(classifier):
    model, parameters = classifier.model_, classifier.get_params(deep=False)
    state = copy.deepcopy(classifier.network_.state_dict())
    trained = [p.requires_grad for p in classifier.network_.parameters()]
    classifier.compile("plain").compile("auto")
    for name in set(vars(model)) - {"engine"}:
        assert getattr(classifier.model_, name) is getattr(model, name), name
    assert classifier.get_params(deep=False) == parameters
    for name, tensor in classifier.network_.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    assert [p.requires_grad for p in classifier.network_.parameters()] == trained


BACKBONES = {
    "module": (lambda: TinyBackbone(), 32),
    "test_resnet": (lambda: "test_resnet", 64),
    "test_vit": (lambda: "test_vit", 160),
    "test_efficientnet": (lambda: "test_efficientnet", 64),
}


@pytest.fixture(scope="module", params=BACKBONES)
def of_many_kinds(request):
    backbone, size = BACKBONES[request.param]
    parameters = small(backbone=backbone(), pretrained=False, image_size=size, max_epochs=1)
    return DiffMICClassifier(**parameters).fit(*stripes(24))


def test_engines_agree(of_many_kinds, new_images):
    X = new_images[0]
    classifier = copy.deepcopy(of_many_kinds)
    classifier.compile("plain")
    expected = {stage: classifier.predict_proba(X, stage=stage) for stage in ("prior", "diffusion")}
    features = classifier.transform(X)
    classifier.compile("auto")
    assert classifier.model_.engine.kind == "auto"
    for stage, proba in expected.items():
        assert_allclose(classifier.predict_proba(X, stage=stage), proba, atol=1e-5)
        assert_allclose(classifier.predict_proba(X[:1], stage=stage), proba[:1], atol=1e-5)
    assert_allclose(classifier.transform(X), features, atol=1e-3 * np.abs(features).max())


def test_an_unknown_engine_is_refused_and_changes_nothing(classifier):
    engine = classifier.model_.engine
    with pytest.raises(InputError, match=r"engine is 'tpu'; give one of \['auto', 'plain'"):
        classifier.compile("tpu")
    assert classifier.model_.engine is engine


def test_an_unfitted_classifier_cannot_be_compiled():
    with pytest.raises(NotFittedError):
        DiffMICClassifier().compile()


# --- Precision and device ------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["auto", "plain"])
def test_another_precision_holds_at_once_and_can_be_taken_back(classifier, new_images, engine):
    classifier.compile(engine)
    X = new_images[0]
    before = {stage: classifier.predict_proba(X, stage=stage) for stage in ("prior", "diffusion")}
    classifier.set_params(precision="bf16")
    for stage, proba in before.items():
        half = classifier.predict_proba(X, stage=stage)
        assert not np.array_equal(half, proba)
        assert_allclose(half, proba, atol=0.1)
    assert classifier.model_.engine.kind == engine
    assert {p.dtype for p in classifier.network_.parameters()} == {torch.float32}
    classifier.set_params(precision="auto")
    for stage, proba in before.items():
        assert_array_equal(classifier.predict_proba(X, stage=stage), proba)


def test_other_parameters_leave_the_engine_as_it_is(classifier):
    engine = classifier.model_.engine
    classifier.set_params(num_steps=2, n_draws=1, batch_size=4)
    assert classifier.model_.engine is engine


@pytest.mark.parametrize("move", ["to", "set_params"])
def test_another_device_holds_at_once(classifier, new_images, move):
    """The meta device stands for any other: it has shapes, and no values."""
    classifier.compile("plain")
    before, network = classifier.predict_proba(new_images[0]), classifier.network_
    moved = classifier.to("meta") if move == "to" else classifier.set_params(device="meta")
    assert moved is classifier
    assert classifier.device == "meta"
    assert classifier.model_.device.type == "meta"
    assert {p.device.type for p in classifier.network_.parameters()} == {"meta"}
    # Whoever predicts with the old network just now goes on.
    assert {p.device.type for p in network.parameters()} == {"cpu"}
    assert np.isfinite(before).all()


def test_a_move_to_where_the_model_is_changes_no_answer(classifier, new_images):
    before = classifier.predict_proba(new_images[0])
    assert classifier.to("cpu") is classifier
    assert_array_equal(classifier.predict_proba(new_images[0]), before)


@needs_cuda
@pytest.mark.parametrize("move", ["to", "set_params"])
def test_a_move_to_the_gpu_and_back_changes_no_answer(classifier, new_images, move):
    before = classifier.predict_proba(new_images[0])
    for device in ("cuda", "cpu"):
        if move == "to":
            classifier.to(device)
        else:
            classifier.set_params(device=device)
        assert classifier.model_.device.type == device
        assert {p.device.type for p in classifier.network_.parameters()} == {device}
        assert_allclose(classifier.predict_proba(new_images[0]), before, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"device": "abacus"}, "device is 'abacus', which cannot be used here"),
        ({"precision": "fp8"}, "precision is 'fp8'; give 'auto' or one of"),
    ],
)
def test_a_device_or_precision_that_cannot_be_used_leaves_the_model(
    classifier, new_images, change, message
):
    before = classifier.predict_proba(new_images[0])
    with pytest.raises(InputError, match=message):
        classifier.set_params(**change)
    assert_array_equal(classifier.predict_proba(new_images[0]), before)


def test_an_unfitted_classifier_only_keeps_what_is_set():
    classifier = DiffMICClassifier().to("abacus")  # fit will say so
    assert classifier.device == "abacus"
    assert not hasattr(classifier, "model_")
