"""Inference engine: a network with the numerical precision of predictions."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor

from ..diffusion import Denoised
from ..model import Conditions, DiffMICNetwork
from ..random import LocalRNG

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
        return self.network.forward_noise.device

    @cached_property
    def _may_draw(self) -> bool:
        """Whether a module may draw random numbers: one of a user, or one that stays in training.

        It is found out at the first encoding, once for each engine.
        """
        return any(
            module.training or _is_foreign(type(module).__module__)
            for module in self.network.modules()
        )

    @torch.inference_mode()
    def encode(
        self, images: Tensor, originals: Sequence[Tensor] | None = None, *, seed: int = 0
    ) -> Conditions:
        """Conditions of images (B, 3, H, W) in 0–1, in float32.

        Parameters
        ----------
        images : Tensor of shape (B, 3, H, W)
        originals : sequence of Tensor or None
            Zoom: the original images; see :meth:`DiffMICNetwork.encode`.
        seed : int
            Seed of what the network draws at random, if it does in evaluation mode, as Monte Carlo
            dropout. It is then run on each image alone, with the same random numbers, so that they
            do not depend on the batch.
        """
        with self._arithmetic():
            if not (self._may_draw or self.network.training):
                return self.network.encode(images, originals).map(Tensor.float)
            with LocalRNG(seed) as rng:
                conditions = self.network.encode(images, originals)
            if rng.has_drawn and len(images) > 1:
                each = [
                    self.encode(
                        images[i : i + 1],
                        None if originals is None else originals[i : i + 1],
                        seed=seed,
                    )
                    for i in range(len(images))
                ]
                return Conditions.cat(each)
            return conditions.map(Tensor.float)

    @torch.inference_mode()
    def sample(self, conditions: Conditions, noise: Tensor, *, num_steps: int) -> Tensor:
        """Scores of each draw, (B, S, C), in float32; see :meth:`DiffMICNetwork.sample`."""
        with self._arithmetic():
            return self.network.sample(conditions, noise, num_steps=num_steps).float()

    @torch.inference_mode()
    def path(
        self, conditions: Conditions, noise: Tensor, *, num_steps: int
    ) -> tuple[Tensor, Tensor]:
        """How label maps are denoised, step by step.

        Returns
        -------
        Tensor of shape (B, N, K, C)
            Noisy label map of the first draw at the beginning of each of N steps, by distance.
        Tensor of shape (B, N, K, C)
            Clean map as it is estimated at each step, in the mean over the draws.
        """
        noisy, estimates = [], []

        def watch(before: Tensor, denoised: Denoised) -> None:
            noisy.append(before[:, 0].float())
            estimates.append(denoised.label.float().mean(dim=1))

        with self._arithmetic():
            self.network.sample(conditions, noise, num_steps=num_steps, watch=watch)
        found = torch.stack(noisy, dim=1), torch.stack(estimates, dim=1)
        if found[0].ndim == 3:  # a vector, in place of a map
            return found[0][:, :, None], found[1][:, :, None]
        return found

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


@lru_cache(maxsize=1000)
def _is_foreign(name: str) -> bool:
    """Whether modules whose class stands in a Python module may draw in evaluation mode."""
    known = name.partition(".")[0] in ("diffmic", "timm", "torch", "torchvision")
    return not known or name.startswith(("torch.fx", "torch.jit"))  # written by users


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
