"""Every state of a fitted model comes back whole from a folder, a pickle and a copy."""

import copy
import pickle
from dataclasses import fields, is_dataclass

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from states import STATES, X, needed
from tiny import stripes
from torch import nn

from diffmic import DiffMICClassifier

pytestmark = pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")


@pytest.fixture(scope="module", params=STATES)
def state(request):
    return request.param, STATES[request.param]()


def differences(one, other, where="model"):
    """Places at which two values differ, and what is there; types count, too."""
    if where.endswith((".engine", ".task", ".denoiser", ".part")) or isinstance(one, type):
        return  # made anew, or code
    if isinstance(one, nn.Module):
        yield from differences(dict(one.state_dict()), dict(other.state_dict()), where)
    elif isinstance(one, torch.Tensor):
        if not (one.dtype == other.dtype and torch.equal(one, other)):
            yield where, one, other
    elif isinstance(one, np.ndarray):
        try:
            assert one.dtype == other.dtype or where == "model.classes"
            assert_array_equal(one, other)
        except (AssertionError, AttributeError):
            yield where, one, other
    elif is_dataclass(one):
        if type(one) is not type(other):
            yield where, one, other
            return
        for field in fields(one):
            pair = getattr(one, field.name), getattr(other, field.name)
            yield from differences(*pair, f"{where}.{field.name}")
    elif isinstance(one, dict):
        if [*one] != [*other] and sorted(map(str, one)) != sorted(map(str, other)):
            yield where, [*one], [*other]
            return
        for key, value in one.items():
            yield from differences(value, other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        if type(one) is not type(other) or len(one) != len(other):
            yield where, one, other
            return
        for number, pair in enumerate(zip(one, other, strict=True)):
            yield from differences(*pair, f"{where}[{number}]")
    elif not (type(one) is type(other) and (one == other or (one != one and other != other))):
        yield where, one, other


def saved(name, clf, folder):
    clf.save_pretrained(folder)
    return DiffMICClassifier.from_pretrained(folder, **needed(name))


TRIPS = {
    "folder": saved,
    "pickle": lambda name, clf, folder: pickle.loads(pickle.dumps(clf)),
    "copy": lambda name, clf, folder: copy.deepcopy(clf),
    "folder of a pickle": lambda name, clf, folder: saved(
        name, pickle.loads(pickle.dumps(clf)), folder
    ),
}


@pytest.mark.parametrize("trip", TRIPS)
def test_a_state_comes_back_whole(state, trip, tmp_path):
    name, clf = state
    back = TRIPS[trip](name, clf, tmp_path / "model")
    assert [*differences(clf.model_, back.model_)] == []
    assert back.card_ == clf.card_
    assert back.class_names_ == clf.class_names_
    images = X[:4] if name != "zoom" else stripes(4, size=96)[0]
    if "16" in name:
        images = images.astype(np.uint16) * 16
    if "Hounsfield" in name:
        images = images.astype(np.float32)
    for stage in clf.model_.stages:
        assert_array_equal(
            back.predict_proba(images, stage=stage), clf.predict_proba(images, stage=stage)
        )
        if stage != "diffusion_alone":
            assert_array_equal(back.predict(images, stage=stage), clf.predict(images, stage=stage))
