"""Fit and predict without the private names of other libraries that speed uses where they exist."""

import sys
from types import SimpleNamespace

import pytest
import torch
from tiny import small, stripes

from diffmic import DiffMICClassifier
from diffmic.engine.onednn import Joined

pytestmark = [
    pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning"),
    pytest.mark.slow,
]
OPERATORS = (
    "_convolution_pointwise",
    "_linear_pointwise",
    "_reorder_convolution_weight",
    "_reorder_linear_weight",
)


def without(*names):
    """torch's oneDNN operators, but for some."""
    kept = set(OPERATORS) - set(names)
    return SimpleNamespace(**{name: getattr(torch.ops.mkldnn, name) for name in kept})


def fit_and_predict(backbone, precision):
    """Probabilities of a wide classifier, and how many of its layers were joined."""
    X, y = stripes(24, size=64)
    parameters = {"backbone": backbone, "pretrained": False, "precision": precision}
    parameters = small(feature_dim=1024, max_epochs=1, **parameters)
    clf = DiffMICClassifier(**parameters, image_size=64).fit(X, y)
    layers = clf.model_.engine.network.modules()
    return clf.predict_proba(X), sum(isinstance(layer, Joined) for layer in layers)


@pytest.mark.parametrize("backbone", ["test_efficientnet", "tf_efficientnet_lite0"])
@pytest.mark.parametrize("missing", [*((name,) for name in OPERATORS), OPERATORS], ids=" ".join)
def test_without_operators_of_onednn(backbone, missing, monkeypatch):
    expected, _ = fit_and_predict(backbone, "fp32")
    monkeypatch.setattr(torch.ops, "mkldnn", without(*missing))
    proba, joined = fit_and_predict(backbone, "fp32")
    assert abs(proba - expected).max() < 1e-4
    assert joined == 0 or len(missing) == 1


def test_without_timms_module_of_padded_convolutions(monkeypatch):
    expected, joined = fit_and_predict("tf_efficientnet_lite0", "fp32")
    monkeypatch.setitem(sys.modules, "timm.layers.conv2d_same", None)
    proba, fewer = fit_and_predict("tf_efficientnet_lite0", "fp32")
    assert abs(proba - expected).max() < 1e-4
    assert fewer < joined


def test_without_a_way_to_ask_for_the_processors_features(monkeypatch):
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported", raising=False)
    for precision in ("auto", "bf16"):
        fit_and_predict("test_efficientnet", precision)
