"""Batch norm with the statistics of a batch whose rows several processes have."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

Reduce = Callable[[Tensor], Tensor]


class SynchronisedNorms(TorchFunctionMode):
    """Context manager in which batch norm, in training, uses the rows of all processes.

    It does for any module that calls ``torch.nn.functional.batch_norm`` what
    ``torch.nn.SyncBatchNorm`` does on GPUs, on any device, and leaves the modules as they are.

    Parameters
    ----------
    reduce : callable
        Sum of a tensor over all processes.
    counts : bool
        Whether the rows of this process count.
    """

    def __init__(self, reduce: Reduce, *, counts: bool = True) -> None:
        super().__init__()
        self.reduce, self.counts = reduce, counts

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.batch_norm:
            return self._batch_norm(*args, **kwargs)
        return func(*args, **kwargs)

    def _batch_norm(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        if not training:
            return F.batch_norm(
                input, running_mean, running_var, weight, bias, training, momentum, eps
            )
        dims = [d for d in range(input.ndim) if d != 1]
        with torch.no_grad():
            var, mean = torch.var_mean(input.float(), dims, correction=0)
            n = input.numel() // input.shape[1] if self.counts else 0
            total, mean, var = pooled_moments(self.reduce, n, mean, var)
            if running_mean is not None and running_var is not None:
                unbiased = var * (total / (total - 1).clamp_min(1))
                running_mean.lerp_(mean.to(running_mean), momentum)
                running_var.lerp_(unbiased.to(running_var), momentum)
        normed: Tensor = _Normed.apply(
            input, mean, (var + eps).rsqrt(), total if self.counts else None, self.reduce
        )
        shape = [1, -1] + [1] * (input.ndim - 2)
        if weight is not None:
            normed = normed * weight.view(shape)
        if bias is not None:
            normed = normed + bias.view(shape)
        return normed.to(input.dtype)


class _Normed(torch.autograd.Function):
    """x̂ = (x − μ)/σ, whose gradient is (g − mean g − x̂ · mean(g x̂))/σ over the rows of all.

    ``total`` is the number of these rows; None: those of this process do not count, and none of the
    others depends on them.
    """

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, mean: Tensor, scale: Tensor, total: Tensor | None, reduce: Reduce
    ) -> Tensor:
        shape = [1, -1] + [1] * (input.ndim - 2)
        normed = (input - mean.view(shape)) * scale.view(shape)
        ctx.save_for_backward(normed, scale)
        ctx.total, ctx.reduce, ctx.type = total, reduce, input.dtype
        return normed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        normed, scale = ctx.saved_tensors
        dims, shape = [d for d in range(normed.ndim) if d != 1], [1, -1] + [1] * (normed.ndim - 2)
        sums = torch.stack([gradient.sum(dims), (gradient * normed).sum(dims)])
        sums = ctx.reduce(sums if ctx.total is not None else torch.zeros_like(sums))
        centred = gradient
        if ctx.total is not None:
            means = sums / ctx.total.to(sums)
            centred = gradient - means[0].view(shape) - normed * means[1].view(shape)
        return (centred * scale.view(shape)).to(ctx.type), None, None, None, None


def pooled_moments(
    reduce: Reduce, n: int, mean: Tensor, var: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Number, mean and variance (not corrected) of the values that all processes have together.

    Parameters
    ----------
    reduce : callable
        Sum of a tensor over all processes.
    n : int
        Number of values in this process; with 0, those below have no influence.
    mean, var : Tensor of shape (C,)
        Their mean and variance.
    """
    # Sums of squares in float64, in which the square of a mean can be subtracted from them.
    first, second = mean.double(), var.double() + mean.double().square()
    mine = torch.cat([first, second, first.new_ones(1)])
    sums = reduce(mine * n if n else torch.zeros_like(mine))
    total = sums[-1]
    first, second = (sums[:-1] / total).chunk(2)
    return total, first.to(mean), (second - first.square()).clamp_min(0).to(mean)
