"""Conditions encoded once, from which stage two draws its batches."""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..model import Conditions

LARGEST_IN_MEMORY = 2**25  # bytes; what is larger lies on disk and is mapped into memory
LARGEST_SHARE = 0.5  # of a GPU's free memory; what is larger is kept as on a CPU


@dataclass(frozen=True)
class ConditionCache:
    """Conditions of all views of the training images.

    Attributes
    ----------
    conditions : Conditions
        Of n·V rows: all images in their first view, then in their second, and so on. Where
        :func:`room_for` has put them: batches of them go where the targets are.
    targets : Tensor of shape (n, C)
        On the device where they are used.
    weights : Tensor of shape (n,)
        Of the loss; there, too.
    """

    conditions: Conditions
    targets: Tensor
    weights: Tensor

    def batches(
        self, n_batches: int, batch_size: int, chances: Tensor
    ) -> Iterator[tuple[Conditions, Tensor, Tensor]]:
        """Random batches: images in proportion to ``chances`` (n,), each in any of its views."""
        n_images, device = len(self.targets), self.targets.device
        n_views = len(self.conditions) // n_images
        chances = chances.to(self.conditions.image_features.device)
        for _ in range(n_batches):
            images = torch.multinomial(chances, batch_size, replacement=True)
            views = torch.randint(n_views, images.shape, device=images.device)
            conditions = self.conditions[views * n_images + images]
            images = _moved(images, device)
            yield (
                conditions.map(lambda tensor: _moved(tensor, device)),
                self.targets[images],
                self.weights[images],
            )

    def feature_scales(self) -> tuple[Tensor, Tensor]:
        """Standard deviations of the features of images (D,) and of regions (D',)."""
        regions = self.conditions.region_features.flatten(0, 1)
        scales = self.conditions.image_features.std(dim=0), regions.std(dim=0)
        return scales[0].to(self.targets.device), scales[1].to(self.targets.device)


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device, without waiting for a GPU."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def room_for(n_rows: int, like: Conditions) -> Conditions:
    """Uninitialised conditions of so many rows; large ones in a temporary file, not in memory.

    Parameters
    ----------
    like : Conditions
        A few of those that are to be kept. On a GPU they stay there as far as they leave room.

    Raises
    ------
    InputError
        There is no space for the file.
    """
    row = like[slice(1)]
    n_bytes = n_rows * sum(t.numel() * t.element_size() for t in vars(row).values())
    device = _home(n_bytes, like.image_features.device)
    if device.type != "cpu" or n_bytes <= LARGEST_IN_MEMORY:
        return row.map(lambda t: torch.empty((n_rows, *t.shape[1:]), dtype=t.dtype, device=device))
    return row.map(lambda t: _on_disk((n_rows, *t.shape[1:]), t.dtype))


def _home(n_bytes: int, device: torch.device) -> torch.device:
    """Where so many bytes are kept that are made and used on a device."""
    if device.type == "cuda" and n_bytes > LARGEST_SHARE * torch.cuda.mem_get_info(device)[0]:
        return torch.device("cpu")
    return device


def _on_disk(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor in a temporary file that goes when the tensor does."""
    numpy_type = torch.empty(0, dtype=dtype).numpy().dtype
    n_bytes = int(np.prod(shape)) * numpy_type.itemsize
    if n_bytes == 0:
        return torch.empty(shape, dtype=dtype)
    with tempfile.TemporaryFile() as file:
        try:
            # Now, and not when a page is written for which there is no space: that would kill.
            os.posix_fallocate(file.fileno(), 0, n_bytes)
        except AttributeError:
            pass  # not on every system
        except OSError as reason:
            raise InputError(
                f"Stage two needs {n_bytes / 1e6:.0f} MB in {tempfile.gettempdir()!r} for what it "
                f"has encoded: {reason}. Make space, or set TMPDIR to a folder that has it."
            ) from reason
        return torch.from_numpy(np.memmap(file, numpy_type, mode="w+", shape=shape))


def drawing_chances(targets: Tensor, balance: float, *, multilabel: bool) -> Tensor:
    """Chance of each image to be drawn, (n,): its class's count to the power −balance."""
    if multilabel or not balance:
        return torch.ones(len(targets), device=targets.device)
    counts = targets.sum(dim=0).clamp_min(1)
    return (targets @ counts**-balance).float()
