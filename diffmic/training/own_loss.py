"""Losses of one's own."""

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from ..model.part_checks import naming, part_error
from .recipe import Recipe


@runtime_checkable
class Loss(Protocol):
    """Loss of each image, and of each position of its label map: a function of tensors."""

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """Losses (...) of outputs and targets (..., C), which can be differentiated.

        Parameters
        ----------
        output : Tensor of shape (..., C)
            Logits of the classes; in stage two, for other prediction types than "probability", the
            predicted noise, v or label.
        target : Tensor of shape (..., C)
            One-hot or indicator targets, with NaN for unknown labels, or in stage one soft labels;
            else the noise, v or label.
        """
        ...


def own_loss(role: str, loss: Any, output: Tensor, target: Tensor) -> Tensor:
    """Losses of one's own, after a check of their type and shape; else a PartError.

    Values that are not finite are told by the training loop, which keeps the last good state.
    """
    with naming(role, loss, f"fails on outputs and targets of shape {tuple(output.shape)}"):
        found = loss(output, target)
    shape = tuple(output.shape[:-1])
    expected = (
        f"expected is a tensor of floats of shape {shape}, a loss for each row: the mean over the "
        "classes, but not over the images"
    )
    if not isinstance(found, Tensor):
        raise part_error(role, loss, f"gave a {type(found).__name__}; {expected}.")
    if tuple(found.shape) != shape or not found.is_floating_point():
        what = f"shape {tuple(found.shape)} and type {found.dtype}"
        raise part_error(role, loss, f"gave {what}; {expected}.")
    if output.requires_grad and torch.is_grad_enabled() and not found.requires_grad:
        told = "gave losses without a gradient; compute them from the output by torch."
        raise part_error(role, loss, told)
    return found


def try_losses(recipe: Recipe, num_classes: int) -> None:
    """Try losses of one's own, so that what does not fit is told before anything is trained."""
    for role, leading in (("prior_loss", (4,)), ("denoiser_loss", (4, 2))):
        loss = getattr(recipe, role)
        if loss is None:
            continue
        generator = torch.Generator().manual_seed(0)
        output = torch.rand(*leading, num_classes, generator=generator).requires_grad_()
        target = torch.eye(num_classes)[torch.arange(4) % num_classes]
        target = target.view(4, *[1] * (len(leading) - 1), num_classes).expand(*output.shape)
        found = own_loss(role, loss, output, target)
        if not found.isfinite().all():
            told = "gave NaN or infinity for logits in 0–1 and one-hot targets"
            raise part_error(role, loss, f"{told}; expected are finite losses.")
