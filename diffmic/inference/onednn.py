"""Layers for predictions on a CPU, by oneDNN's own operators: packed weights, one pass over memory.

These operators of torch are not public, and not in every build: where one is missing, or takes
something else, the plain layer is kept.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# oneDNN's names of activations, their numbers, and the variant.
ACTIVATIONS: dict[type[nn.Module], tuple[str, list[float], str]] = {
    nn.ReLU: ("relu", [], ""),
    nn.ReLU6: ("hardtanh", [0.0, 6.0], ""),
    nn.SiLU: ("swish", [], ""),
    nn.Hardswish: ("hardswish", [], ""),
    nn.GELU: ("gelu", [], "none"),
}
NOTHING: tuple[str, list[float], str] = ("none", [], "")
_ROWS = 6  # positions of one image with one draw: fewer rows than this are rare


def has_amx() -> bool:
    """Whether the processor multiplies small matrices of bf16 and of 8-bit integers in tiles."""
    # Not a public function yet, so that it may be missing.
    return bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())


def packed_linear(weight: Tensor) -> Callable[[Tensor], Tensor]:
    """Multiplication by a weight that oneDNN has put in its own order: a third faster."""
    onednn = torch.ops.mkldnn
    try:
        packed = onednn._reorder_linear_weight(weight, _ROWS)
    except (AttributeError, RuntimeError):
        return lambda features: F.linear(features, weight)

    def times_weight(features: Tensor) -> Tensor:
        rows = onednn._linear_pointwise(features.flatten(0, -2), packed, None, *NOTHING)
        return rows.view(*features.shape[:-1], -1)  # type: ignore[no-any-return]

    return times_weight


def with_activation(layer: nn.Module, activation: nn.Module, given: Tensor) -> nn.Module | None:
    """The layer with its activation, applied before its output leaves the cache.

    Parameters
    ----------
    layer : nn.Conv2d or nn.Linear
        On the CPU, in float32.
    activation : nn.Module
        What follows: one of :data:`ACTIVATIONS`, or nothing.
    given : Tensor
        An input as it will come.

    Returns
    -------
    nn.Module or None
        None where this layer or activation cannot be had.
    """
    kind = _JoinedLinear if isinstance(layer, nn.Linear) else _JoinedConv
    try:
        joined = kind(layer, _name_of(activation), given)
        joined(given)
    except (AttributeError, KeyError, RuntimeError, TypeError):
        return None
    return joined


def _name_of(activation: nn.Module) -> tuple[str, list[float], str]:
    if isinstance(activation, nn.Identity):
        return NOTHING
    if isinstance(activation, nn.GELU) and activation.approximate == "tanh":
        return "gelu", [], "tanh"
    return ACTIVATIONS[type(activation)]


class Joined(nn.Module):
    """A layer, its bias and what follows in a single call."""

    activation: tuple[str, list[float], str]


class _JoinedLinear(Joined):
    def __init__(
        self, linear: Any, activation: tuple[str, list[float], str], given: Tensor
    ) -> None:
        super().__init__()
        if type(linear) is not nn.Linear:
            raise TypeError(f"nothing is known of {type(linear).__name__}")
        self.activation, self.bias = activation, linear.bias
        n_rows = given.numel() // given.shape[-1]
        self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), n_rows)

    def forward(self, features: Tensor) -> Tensor:
        """As the layer, with the activation."""
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
        """As the convolution, with the activation."""
        maps: Tensor = torch.ops.mkldnn._convolution_pointwise(
            self.pads(images), self.packed, self.bias, *self.options, *self.activation
        )
        return maps


def _pads(conv: nn.Conv2d) -> Callable[[Tensor], Tensor]:
    """What a convolution does to its input first."""
    if type(conv) is nn.Conv2d and conv.padding_mode == "zeros":
        return lambda images: images
    from timm.layers.conv2d_same import Conv2dSame
    from timm.layers.padding import pad_same

    if type(conv) is not Conv2dSame:
        raise TypeError(f"nothing is known of {type(conv).__name__}")
    sizes = list(conv.kernel_size), list(conv.stride), list(conv.dilation)
    return lambda images: pad_same(images, *sizes)
