"""Depthwise convolutions in bf16 on CPUs, with their gradients in fp32."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class DepthwiseGradients(TorchFunctionMode):
    """Inside, under autocast, depthwise convolutions have their gradients computed in float32.

    oneDNN computes some of them in bf16 by plain loops: those of strides of 2 take ten times as
    long as in float32, and cost all that bf16 gains elsewhere.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.conv2d and not kwargs and _depthwise(*args):
            images, weight, bias, stride, padding, *_ = args
            return _DepthwiseConvolution.apply(images, weight, bias, stride, padding)
        return func(*args, **kwargs)


def _depthwise(
    images: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> bool:
    return (
        groups == images.shape[1] == weight.shape[0] > 1
        and not isinstance(padding, str)
        and set(_pair(dilation)) == {1}
        and torch.is_autocast_enabled("cpu")
    )


def _pair(value: int | Sequence[int]) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


class _DepthwiseConvolution(torch.autograd.Function):
    """conv2d with as many groups as channels: forward in bf16, backward in float32."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any
    ) -> Tensor:
        images = images.bfloat16()
        ctx.save_for_backward(images, weight)
        ctx.stride, ctx.padding, ctx.with_bias = _pair(stride), _pair(padding), bias is not None
        small = None if bias is None else bias.bfloat16()
        return F.conv2d(images, weight.bfloat16(), small, stride, padding, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        images, weight = ctx.saved_tensors
        of_images, of_weight, of_bias = torch.ops.aten.convolution_backward(
            gradient.float(),
            images.float(),
            weight.float(),
            [len(weight)] if ctx.with_bias else None,
            ctx.stride,
            ctx.padding,
            [1, 1],
            False,
            [0, 0],
            len(weight),
            [ctx.needs_input_grad[0], ctx.needs_input_grad[1], ctx.with_bias],
        )
        return of_images, of_weight, of_bias, None, None
