"""Layers for predictions on a CPU, by oneDNN's own operators: packed weights, one pass over memory.

These operators of torch are not public, and not in every build: where one is missing, or takes
something else, the plain layer is kept.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# oneDNN's names of activations, and their numbers.
ACTIVATIONS: dict[type[nn.Module], tuple[str, list[float]]] = {
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
    nn.SiLU: ("swish", []),
    nn.Hardswish: ("hardswish", []),
}
_ROWS = 6  # positions of one image with one draw: fewer rows than this are rare


def packed_linear(weight: Tensor) -> Callable[[Tensor], Tensor]:
    """Multiplication by a weight that oneDNN has put in its own order: a third faster."""
    onednn = torch.ops.mkldnn
    try:
        packed = onednn._reorder_linear_weight(weight, _ROWS)
    except (AttributeError, RuntimeError):
        return lambda features: F.linear(features, weight)

    def times_weight(features: Tensor) -> Tensor:
        rows = onednn._linear_pointwise(features.flatten(0, -2), packed, None, "none", [], "")
        return rows.view(*features.shape[:-1], -1)  # type: ignore[no-any-return]

    return times_weight


def with_activation(conv: nn.Conv2d, activation: nn.Module, image: Tensor) -> nn.Module | None:
    """The convolution with its activation, applied before its output leaves the cache.

    Parameters
    ----------
    conv : nn.Conv2d
        On the CPU, in float32.
    activation : nn.Module
        What follows: one of :data:`ACTIVATIONS`, or nothing.
    image : Tensor of shape (B, C, H, W)
        An input as it will come.

    Returns
    -------
    nn.Module or None
        None where this convolution or activation cannot be had.
    """
    try:
        fused = _FusedConv(conv, activation, image)
        fused(image)
    except (AttributeError, KeyError, RuntimeError, TypeError):
        return None
    return fused


class _FusedConv(nn.Module):
    """A convolution, its bias and what follows in a single call."""

    def __init__(self, conv: nn.Conv2d, activation: nn.Module, image: Tensor) -> None:
        super().__init__()
        self.options = (list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups)
        self.pads = _pads(conv)
        self.activation = (ACTIVATIONS | {nn.Identity: ("none", [])})[type(activation)]
        self.bias = conv.bias
        self.packed = torch.ops.mkldnn._reorder_convolution_weight(
            conv.weight.detach(), *self.options, list(self.pads(image).shape)
        )

    def forward(self, images: Tensor) -> Tensor:
        """As the convolution, with the activation."""
        maps: Tensor = torch.ops.mkldnn._convolution_pointwise(
            self.pads(images), self.packed, self.bias, *self.options, *self.activation, ""
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
