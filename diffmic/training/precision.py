"""What the processor does well: mixed precision, memory layout, and an Accelerator to match."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from ..errors import InputError
from ..inference.onednn import has_amx
from ..model.backbone import Backbone
from .depthwise import DepthwiseGradients

if TYPE_CHECKING:
    from accelerate import Accelerator

Precision = Literal["no", "bf16", "fp16"]
PRECISIONS = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


def resolve_device(device: str | torch.device) -> torch.device:
    """``"auto"``: a GPU where there is one.

    Raises
    ------
    InputError
        A device that is not there.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.empty(0, device=resolved)
    except (RuntimeError, AssertionError, TypeError) as reason:
        raise InputError(
            f"device is {device!r}, which cannot be used here: {reason} Give 'cpu' or 'auto'."
        ) from reason
    return resolved


def training_precision(precision: str, device: torch.device, network: nn.Module) -> Precision:
    """Mixed precision for training; ``"auto"`` takes what the processor is faster with.

    On a GPU bf16, or fp16 where it has no bf16. On a CPU with AMX tiles bf16, except for images so
    small that a strided convolution meets a single cell, whose gradient oneDNN gets wrong in bf16.

    Raises
    ------
    InputError
        An unknown name.
    """
    if precision == "auto":
        if device.type == "cuda":
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        suits = device.type == "cpu" and has_amx() and not _strides_single_cell(network)
        return "bf16" if suits else "no"
    if precision not in PRECISIONS:
        raise InputError(f"precision is {precision!r}; give 'auto' or one of {list(PRECISIONS)}.")
    return PRECISIONS[precision]  # type: ignore[return-value]


@torch.no_grad()
def round_to_half(module: nn.Module) -> None:
    """Round weights and statistics to what half precision can hold; what is too large stays."""
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            half = tensor.half().to(tensor.dtype)
            tensor.copy_(torch.where(half.isfinite(), half, tensor))


def to_device(network: nn.Module, device: torch.device) -> nn.Module:
    """Move a network; convolutions are faster with channels last, on CPUs and GPUs alike."""
    if any(isinstance(module, nn.Conv2d) for module in network.modules()):
        network = network.to(memory_format=torch.channels_last)
    return network.to(device)


@contextmanager
def accelerator_for(device: torch.device, precision: Precision) -> Iterator["Accelerator"]:
    """An Accelerator for one fit.

    Accelerate keeps one precision and device per process; a fit that needs another, and whatever
    else the process uses Accelerate for, must not get in each other's way, so that the state is
    put aside and back.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState, PartialState

    shared = [state._shared_state for state in (AcceleratorState, PartialState, GradientState)]
    before = [dict(state) for state in shared]
    for state in shared:
        state.clear()
    inside: AbstractContextManager[Any] = nullcontext()
    if device.type == "cuda":
        inside = torch.cuda.device(device)
    elif device.type == "cpu" and precision == "bf16":
        inside = DepthwiseGradients()
    try:
        with inside:
            # Batches are moved by those who use them: images without waiting, indices not at all.
            yield Accelerator(
                mixed_precision=precision, cpu=device.type == "cpu", device_placement=False
            )
    finally:
        for state, old in zip(shared, before, strict=True):
            state.clear()
            state.update(old)


def _strides_single_cell(network: nn.Module) -> bool:
    return any(
        module.strides_single_cell for module in network.modules() if isinstance(module, Backbone)
    )
