"""Inference engine: a network with the numerical precision of predictions."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..model import Conditions, DiffMICNetwork

_FLAGS = threading.RLock()  # cuDNN's flags are global to the process, not local to a thread


@dataclass(frozen=True, eq=False)
class Engine:
    """Network in evaluation mode, with the data type of its computations.

    Attributes
    ----------
    network : DiffMICNetwork
        Trained network, or a copy of it rewritten for predictions (:mod:`diffmic.engine`).
    kind : {"plain", "auto"}
        Type of engine; see :func:`diffmic.engine.prediction_engine`.
    dtype : torch.dtype
        float32, or a half-precision type for mixed precision (``torch.autocast``).
    """

    network: DiffMICNetwork
    kind: str = "plain"
    dtype: torch.dtype = torch.float32

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return self.network.denoiser.out.weight.device

    @torch.inference_mode()
    def encode(self, images: Tensor) -> Conditions:
        """Conditions of images (B, 3, H, W) in 0–1, in float32."""
        with self._arithmetic():
            return self.network.encode(images).map(Tensor.float)

    @torch.inference_mode()
    def sample(self, conditions: Conditions, noise: Tensor, *, num_steps: int) -> Tensor:
        """Scores of each draw, (B, S, C), in float32; see :meth:`DiffMICNetwork.sample`."""
        with self._arithmetic():
            return self.network.sample(conditions, noise, num_steps=num_steps).float()

    @contextmanager
    def _arithmetic(self) -> Iterator[None]:
        if self.dtype == torch.float32:
            with (
                torch.autocast(self.device.type, enabled=False),
                exact_convolutions(self.device),
            ):
                yield
        else:
            with torch.autocast(self.device.type, self.dtype):
                yield


def inference_dtype(precision: str) -> torch.dtype:
    """Data type of predictions for the estimator's ``precision``; ``"auto"`` is float32."""
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)


@contextmanager
def exact_convolutions(device: torch.device) -> Iterator[None]:
    """Context manager that disables TF32, torch's default, in float32 convolutions on a GPU.

    The choice of the prior between two almost equal regions depends on the last bits.
    """
    if device.type != "cuda":
        yield
        return
    # Not cudnn.flags, which fails if one of the newer flags has been set.
    owner: Any = getattr(torch.backends.cudnn, "conv", torch.backends.cudnn)
    newer = owner is not torch.backends.cudnn  # since torch 2.9
    name, exact = ("fp32_precision", "ieee") if newer else ("allow_tf32", False)
    with _FLAGS:
        before = getattr(owner, name)
        setattr(owner, name, exact)
        try:
            yield
        finally:
            setattr(owner, name, before)
