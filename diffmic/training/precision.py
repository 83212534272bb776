"""Device, mixed precision and memory layout."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler

from ..errors import InputError
from ..model.backbone import Backbone
from .depthwise import DepthwiseGradients

Precision = Literal["fp32", "bf16", "fp16"]
PRECISIONS: dict[str, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


def resolve_device(device: str | torch.device) -> torch.device:
    """Device that can be used here; ``"auto"``: a CUDA GPU if available, else the CPU."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.empty(0, device=resolved)
    except (RuntimeError, AssertionError, TypeError) as reason:
        raise InputError(
            f"device is {device!r}, which cannot be used here: {reason} Give 'cpu' or 'auto'."
        ) from reason
    return resolved


@dataclass(frozen=True)
class MixedPrecision:
    """Numerical precision of a training loop.

    Attributes
    ----------
    device : torch.device
        Device of training.
    name : {"fp32", "bf16", "fp16"}
        Data type of the forward passes under autocast; ``"fp32"``: no autocast.
    """

    device: torch.device
    name: Precision = "fp32"

    def autocast(self) -> AbstractContextManager[Any]:
        """Autocast context for forward passes."""
        return torch.autocast(self.device.type, PRECISIONS[self.name], enabled=self.name != "fp32")

    def scaler(self) -> GradScaler:
        """Loss scaling, without which small gradients vanish in fp16."""
        return GradScaler(self.device.type, enabled=self.name == "fp16")

    @contextmanager
    def loop(self) -> Iterator[None]:
        """Context for a whole training loop."""
        inside: AbstractContextManager[Any] = nullcontext()
        if self.device.type == "cuda":
            inside = torch.cuda.device(self.device)
        elif self.device.type == "cpu" and self.name == "bf16":
            inside = DepthwiseGradients()
        with inside:
            yield


def training_precision(precision: str, device: torch.device, network: nn.Module) -> MixedPrecision:
    """Mixed precision for training; ``"auto"`` selects the fastest precision of the device.

    On a GPU this is bf16, or fp16 if bf16 is not supported. On a CPU with bf16 instructions it is
    bf16, unless images are so small that a strided convolution gets a single cell, for which oneDNN
    computes a wrong gradient in bf16. On other devices it is fp32.
    """
    if precision == "auto":
        if device.type == "cuda":
            bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
            return MixedPrecision(device, "bf16" if bf16 else "fp16")
        backbones = (m for m in network.modules() if isinstance(m, Backbone))
        single_cell = any(backbone.strides_single_cell for backbone in backbones)
        suits = device.type == "cpu" and has_bf16() and not single_cell
        return MixedPrecision(device, "bf16" if suits else "fp32")
    if precision not in PRECISIONS:
        raise InputError(f"precision is {precision!r}; give 'auto' or one of {list(PRECISIONS)}.")
    return MixedPrecision(device, precision)  # type: ignore[arg-type]


@cache
def has_bf16() -> bool:
    """Whether the CPU computes in bf16, by AVX-512 or AMX instructions, according to Linux."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return False
    return "avx512_bf16" in flags or {"amx_tile", "amx_bf16"} <= flags


@torch.no_grad()
def round_to_half(module: nn.Module) -> None:
    """Round weights and buffers in place to half precision, except values too large for it.

    Frozen weights, and buffers beside them, stay as they are.
    """
    frozen = {
        id(tensor)
        for part in module.modules()
        if (own := list(part.parameters(recurse=False)))
        and not any(weight.requires_grad for weight in own)
        for tensor in (*own, *part.buffers(recurse=False))
    }
    for tensor in module.state_dict(keep_vars=True).values():
        if tensor.is_floating_point() and id(tensor) not in frozen:
            half = tensor.half().to(tensor.dtype)
            tensor.copy_(torch.where(half.isfinite(), half, tensor))


def to_device(network: nn.Module, device: torch.device) -> nn.Module:
    """Move a network to a device; convolutional ones in the faster channels-last layout."""
    if any(isinstance(module, nn.Conv2d) for module in network.modules()):
        network = network.to(memory_format=torch.channels_last)
    return network.to(device)
