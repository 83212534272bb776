"""Classifiers in every state that can be saved: of each task, process, kind of label and part."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from tiny import RECIPE, TinyBackbone, small, stripes
from torch import nn

from diffmic import DiffMICClassifier
from diffmic.training import resolve_recipe

ODD_NAMES = ["\x00", 'a"\\\n\u2028', "b\udcf6se 🫁"]
X, Y = stripes(60)
NEW, NEW_Y = stripes(60, seed=3)
NEW_Y = np.where(np.random.RandomState(3).rand(60) < 0.3, (NEW_Y + 1) % 3, NEW_Y)
V1 = replace(resolve_recipe("paper-v1"), denoiser_epochs=1, ema_decay=None, ema=0.2, patience=None)


class Platt(LogisticRegression):
    """A calibration of one's own, with a state that can be saved."""

    def state_dict(self):
        return {name: getattr(self, name) for name in ("coef_", "intercept_", "classes_")}

    def load_state_dict(self, state):
        vars(self).update(state)


class OwnLayer(nn.Module):
    """A denoiser of one's own: one layer."""

    def __init__(self, plan):
        super().__init__()
        self.enter = nn.Linear(2 * plan.num_classes, plan.architecture.feature_dim)
        self.leave = nn.Linear(plan.architecture.feature_dim, plan.num_classes)

    def forward(self, guidance, noisy, timesteps, context):
        both = guidance * noisy.sigmoid()
        hidden = self.enter(nn.functional.pad(both, (0, both.shape[-1])))
        return self.leave(hidden.relu() * context[:, None])


def _fit(y: Any = Y, X: Any = X, **parameters: Any) -> DiffMICClassifier:
    return DiffMICClassifier(**small(**{"max_epochs": 1} | parameters)).fit(X, y)


def _names(y: Any) -> Any:
    return np.array(["quer", "längs", "ohne"])[y]


def _indicators(y: Any) -> Any:
    return (y[:, None] == [0, 1]).astype(int)


def _partly_known() -> DiffMICClassifier:
    y = _indicators(Y).astype(float)
    y[::7, 0] = np.nan
    clf = _fit(y, class_names=["across", "along"])
    return clf.tune_thresholds(NEW, _indicators(NEW_Y), sensitivity=0.9)


def _grades() -> DiffMICClassifier:
    return _fit(task="ordinal", class_names=ODD_NAMES).calibrate(NEW, NEW_Y, n_draws=3)


def _two() -> DiffMICClassifier:
    clf = _fit(Y > 0, validation_fraction=0.3).tune_thresholds(NEW, NEW_Y > 0, aim="youden")
    return clf.conformalize(NEW, NEW_Y > 0)


STATES: dict[str, Callable[[], DiffMICClassifier]] = {
    "integers, conformal": lambda: _fit(Y * 10 - 3).conformalize(NEW, NEW_Y * 10 - 3),
    "strings, recalibrated": lambda: _fit(_names(Y)).calibrate(NEW, _names(NEW_Y)),
    "booleans, tuned": _two,
    "labels partly known": _partly_known,
    "multi-label, conformal": lambda: _fit(_indicators(Y)).conformalize(NEW, _indicators(NEW_Y)),
    "grades of odd names": _grades,
    "16 bits": lambda: _fit(X=X.astype(np.uint16) * 16),
    "Hounsfield units": lambda: _fit(
        X=X.astype(np.float32) * 8 - 1000, value_range=(-1000, 1040), crop="square"
    ),
    "weighted, no validation part": lambda: _fit(
        class_weight="balanced", validation_fraction=None, precision="bf16"
    ),
    "v1": lambda: _fit(recipe=V1, augment=None),
    "zoom": lambda: _fit(
        X=stripes(60, size=96)[0],
        backbone="test_resnet",
        pretrained=False,
        regions="zoom",
        image_size=64,
    ),
    "networks of timm": lambda: _fit(
        backbone="test_resnet",
        pretrained=False,
        prior_backbone="test_resnet",
        region_backbone="test_resnet",
        region_size=32,
        recipe=replace(RECIPE, cached=False, n_cached_views=0, denoiser_epochs=1),
        image_size=64,
    ),
    "own parts": lambda: _fit(denoiser=OwnLayer, recipe=replace(RECIPE, calibration=Platt())),
}


def needed(name: str) -> dict[str, Any]:
    """What ``from_pretrained`` must be given to load this state."""
    options: dict[str, Any] = {"device": "cpu"}
    if name not in ("zoom", "networks of timm"):
        options["backbone"] = TinyBackbone()
    if name == "own parts":
        options["parts"] = {"denoiser": OwnLayer, "calibration": Platt()}
    return options
