"""Layers for predictions on a CPU by oneDNN operators: packed weights and fused activations.

These torch operators are private and not in every build. If one is missing, or has another
signature, the plain layer is kept.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# oneDNN's name of each activation, its parameters, and the variant of the algorithm.
ACTIVATIONS: dict[type[nn.Module], tuple[str, list[float], str]] = {
    nn.ReLU: ("relu", [], ""),
    nn.ReLU6: ("hardtanh", [0.0, 6.0], ""),
    nn.SiLU: ("swish", [], ""),
    nn.Hardswish: ("hardswish", [], ""),
    nn.GELU: ("gelu", [], "none"),
}
NOTHING: tuple[str, list[float], str] = ("none", [], "")
_ROWS = 6  # rows of one image with one draw (K positions); fewer rows are rare


def packed_linear(weight: Tensor) -> Callable[[Tensor], Tensor]:
    """Function that multiplies by a weight packed in oneDNN's layout, which is a third faster."""
    onednn = torch.ops.mkldnn

    def times_weight(features: Tensor) -> Tensor:
        rows = onednn._linear_pointwise(features.flatten(0, -2), packed, None, *NOTHING)
        return rows.view(*features.shape[:-1], -1)  # type: ignore[no-any-return]

    try:
        packed = onednn._reorder_linear_weight(weight, _ROWS)
        row = weight[:1]
        exact = F.linear(row, weight)
        same = torch.allclose(
            times_weight(row), exact, rtol=0, atol=1e-5 * float(exact.abs().max())
        )
    except (AttributeError, RuntimeError, TypeError):
        same = False
    return times_weight if same else lambda features: F.linear(features, weight)


def with_activation(layer: nn.Module, activation: nn.Module, given: Tensor) -> nn.Module | None:
    """Layer fused with its activation, which is applied before the output leaves the cache.

    Parameters
    ----------
    layer : nn.Conv2d or nn.Linear
        Layer on the CPU, in float32.
    activation : nn.Module
        Activation that follows: one of :data:`ACTIVATIONS`, or ``nn.Identity``.
    given : Tensor
        Example input of the layer.

    Returns
    -------
    nn.Module or None
        None if this layer or activation cannot be fused.
    """
    kind = _JoinedLinear if isinstance(layer, nn.Linear) else _JoinedConv
    try:
        joined = kind(layer, _name_of(activation), given)
        joined(given)
    except (AttributeError, ImportError, KeyError, RuntimeError, TypeError):
        return None
    return joined


def _name_of(activation: nn.Module) -> tuple[str, list[float], str]:
    if isinstance(activation, nn.Identity):
        return NOTHING
    if isinstance(activation, nn.GELU) and activation.approximate == "tanh":
        return "gelu", [], "tanh"
    return ACTIVATIONS[type(activation)]


class Joined(nn.Module):
    """Layer with bias and activation in a single operator."""

    activation: tuple[str, list[float], str]


class _JoinedLinear(Joined):
    def __init__(
        self, linear: Any, activation: tuple[str, list[float], str], given: Tensor
    ) -> None:
        super().__init__()
        if type(linear) is not nn.Linear:
            raise TypeError(f"unknown layer {type(linear).__name__}")
        self.activation, self.bias = activation, linear.bias
        n_rows = given.numel() // given.shape[-1]
        self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), n_rows)

    def forward(self, features: Tensor) -> Tensor:
        """Output of the layer, with the activation applied."""
        rows: Tensor = torch.ops.mkldnn._linear_pointwise(
            features.reshape(-1, features.shape[-1]), self.packed, self.bias, *self.activation
        )
        return rows.view(*features.shape[:-1], -1)


class _JoinedConv(Joined):
    def __init__(self, conv: Any, activation: tuple[str, list[float], str], given: Tensor) -> None:
        super().__init__()
        self.options = (list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups)
        self.pads = _pads(conv)
        self.activation, self.bias = activation, conv.bias
        self.packed = torch.ops.mkldnn._reorder_convolution_weight(
            conv.weight.detach(), *self.options, list(self.pads(given).shape)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Output of the convolution, with the activation applied."""
        maps: Tensor = torch.ops.mkldnn._convolution_pointwise(
            self.pads(images), self.packed, self.bias, *self.options, *self.activation
        )
        return maps


def _pads(conv: nn.Conv2d) -> Callable[[Tensor], Tensor]:
    """Padding that must be applied before the operator."""
    if type(conv) is nn.Conv2d and conv.padding_mode == "zeros":
        return lambda images: images
    from timm.layers.conv2d_same import Conv2dSame
    from timm.layers.padding import pad_same

    if type(conv) is not Conv2dSame:
        raise TypeError(f"unknown layer {type(conv).__name__}")
    sizes = list(conv.kernel_size), list(conv.stride), list(conv.dilation)
    return lambda images: pad_same(images, *sizes)
