"""Depthwise convolutions in bf16 on CPUs, with gradients in fp32."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_input, conv2d_weight
from torch.overrides import TorchFunctionMode


class DepthwiseGradients(TorchFunctionMode):
    """Context manager that computes gradients of depthwise convolutions under autocast in float32.

    oneDNN computes some of these gradients in bf16 with plain loops. With a stride of 2 they take
    ten times as long as in float32, which would cancel the gains of bf16 elsewhere.
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
    """Depthwise conv2d (one group per channel): forward pass in bf16, backward pass in float32."""

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
        exact, options = gradient.float(), (ctx.stride, ctx.padding, 1, len(weight))
        of_images = of_bias = None
        if ctx.needs_input_grad[0]:
            of_images = conv2d_input(  # type: ignore[no-untyped-call]
                images.shape, weight.float(), exact, *options
            )
        of_weight = conv2d_weight(  # type: ignore[no-untyped-call]
            images.float(), weight.shape, exact, *options
        )
        if ctx.with_bias:
            of_bias = exact.sum(dim=(0, 2, 3))
        return of_images, of_weight, of_bias, None, None
