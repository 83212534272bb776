"""Tensors of a network as they are stored: which, and in which data type."""

from typing import Literal

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..model.backbone import Backbone
from ..model.zoom import ZoomedCrops

DType = Literal["float32", "float16"]


def stored_tensors(network: nn.Module, dtype: DType) -> dict[str, Tensor]:
    """Tensors of a network in the data type in which they are stored, if they fit into it."""
    if dtype not in ("float32", "float16"):
        raise InputError(f"dtype is {dtype!r}; give 'float32' or 'float16'.")
    kept = stored_names(network)
    tensors = {  # copies, since two names may share a tensor
        name: t.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, t in network.state_dict().items()
        if name in kept
    }
    if dtype == "float32":
        return tensors
    # What images are normalised with, which the configuration tells, too, stays exact.
    constants = {
        f"{name}.{constant}"
        for name, module in network.named_modules()
        if isinstance(module, Backbone)
        for constant in ("mean", "std")
    }
    exact = {n for n in constants & kept if not tensors[n].half().to(tensors[n]).equal(tensors[n])}
    halves = {
        n: t.half() if t.is_floating_point() and n not in exact else t for n, t in tensors.items()
    }
    too_large = [n for n, t in halves.items() if not t.isfinite().equal(tensors[n].isfinite())]
    if too_large:
        raise InputError(
            f"{too_large[:3]} hold numbers above 65504, the largest of half precision. Save with "
            "dtype='float32'."
        )
    return halves


def stored_names(network: nn.Module) -> set[str]:
    """Names of the tensors that are stored: not of weights that zoomed crops share."""
    shared = {
        f"{name}.backbone.{weight}"
        for name, module in network.named_modules()
        if isinstance(module, ZoomedCrops)
        for weight, _ in module.backbone.named_parameters()
    }
    return set(network.state_dict()) - shared
