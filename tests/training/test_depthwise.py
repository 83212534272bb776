"""Depthwise convolutions in bf16 whose gradients are computed in float32."""

import pytest
import torch
from torch import nn

from diffmic.training.depthwise import DepthwiseGradients
from diffmic.training.precision import MixedPrecision

CPU = torch.device("cpu")


def gradients(conv, images, weights):
    """Output and gradients of a convolution, by how it is called."""
    images = images.clone().requires_grad_()
    conv.zero_grad()
    out = conv(images)
    (out.float() * weights).sum().backward()
    return [out.detach().float(), images.grad, *(p.grad.clone() for p in conv.parameters())]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("bias", [False, True])
def test_output_and_gradients_are_those_of_float32(stride, kernel, bias):
    generator = torch.Generator().manual_seed(0)
    conv = nn.Conv2d(8, 8, kernel, stride, kernel // 2, groups=8, bias=bias)
    images = torch.randn(4, 8, 12, 12, generator=generator)
    weights = torch.randn(conv(images).shape, generator=generator)
    exact = gradients(conv, images, weights)
    with DepthwiseGradients(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = gradients(conv, images, weights)
    for ours, theirs in zip(found, exact, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.02 * float(theirs.abs().max()))


def test_the_first_layer_and_frozen_weights_are_no_trouble():
    conv, images = nn.Conv2d(8, 8, 3, stride=2, groups=8), torch.randn(2, 8, 6, 6)
    with DepthwiseGradients(), torch.autocast("cpu", dtype=torch.bfloat16):
        conv(images).sum().backward()  # images have no gradient
        assert conv.weight.grad.dtype == torch.float32
        conv.zero_grad()
        conv.requires_grad_(False)
        images.requires_grad_()
        conv(images).sum().backward()
    assert conv.weight.grad is None
    assert images.grad.abs().sum() > 0


def test_convolutions_that_mix_channels_are_left_alone():
    conv, images = nn.Conv2d(8, 8, 3, groups=4), torch.randn(2, 8, 6, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        usual = conv(images)
        with DepthwiseGradients():
            ours = conv(images)
    assert "Depthwise" not in type(ours.grad_fn).__name__
    assert torch.equal(ours, usual)


def test_without_autocast_nothing_changes():
    conv, images = nn.Conv2d(8, 8, 3, groups=8), torch.randn(2, 8, 6, 6)
    with DepthwiseGradients():
        ours = conv(images)
    assert ours.dtype == torch.float32
    assert torch.equal(ours, conv(images))


@pytest.mark.parametrize(("precision", "taken"), [("bf16", True), ("fp32", False)])
def test_training_in_bf16_on_a_cpu_takes_them(precision, taken):
    conv, images = nn.Conv2d(8, 8, 3, groups=8), torch.randn(2, 8, 6, 6)
    mixed = MixedPrecision(CPU, precision)
    with mixed.loop(), mixed.autocast():
        out = conv(images)
    assert ("Depthwise" in str(out.grad_fn)) == taken
