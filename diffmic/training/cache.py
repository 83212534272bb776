"""Cache of conditions, encoded once, from which stage two samples its batches."""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..model import Conditions
from ..random import LocalRNG
from ..rows import Rows
from ..tasks import Task
from .batches import Part
from .distributed import ALONE, Processes
from .synchronised_norm import pooled_moments

LARGEST_IN_MEMORY = 2**25  # bytes; larger caches are stored on disk and memory-mapped
LARGEST_SHARE = 0.5  # of a GPU's free memory; larger caches are kept on the CPU


@dataclass(frozen=True)
class ConditionCache:
    """Cached conditions of all V cached views of the n training images.

    Attributes
    ----------
    conditions : Conditions
        Conditions of n·V rows: all images in their first view, then in their second, and so on.
        They are stored where :func:`room_for` puts them; batches move to the device of the targets.
        One of several processes has those of its share of the images.
    targets : Tensor of shape (n, C)
        Targets, on the device of training.
    weights : Tensor of shape (n,)
        Sample weights of the loss, on the device of training.
    processes : Processes
        Processes that have the cache together.
    """

    conditions: Conditions
    targets: Tensor
    weights: Tensor
    processes: Processes = ALONE

    @property
    def n_own(self) -> int:
        """Number of images whose conditions are in this process."""
        return len(self.processes.share(len(self.targets)))

    @property
    def n_rows(self) -> int:
        """Number of rows, n·V, of all processes together."""
        return len(self.targets) * (len(self.conditions) // self.n_own)

    def batches(
        self, n_batches: int, batch_size: int, chances: Tensor, rng: LocalRNG
    ) -> Iterator[Part]:
        """Random batches: images in proportion to ``chances`` (n,), in random cached views.

        All processes draw the same; of each batch they have those images that are in their share.
        """
        n_own, device = self.n_own, self.targets.device
        n_views = len(self.conditions) // n_own
        home = self.conditions.image_features.device
        # Several processes draw alike, wherever each of them has room for its part.
        chances = chances.to(home if self.processes.count == 1 else device)
        generator = rng.generator(chances.device)
        for _ in range(n_batches):
            images = torch.multinomial(chances, batch_size, replacement=True, generator=generator)
            views = torch.randint(n_views, images.shape, device=images.device, generator=generator)
            rows: Rows | None = None
            if self.processes.count > 1:
                images, views, rows = self._mine(images, views)
            places = views * n_own + images // self.processes.count
            conditions = self.conditions[places.to(home)]
            images = _moved(images, device)
            batch = (
                conditions.map(lambda tensor: _moved(tensor, device)),
                self.targets[images],
                self.weights[images],
            )
            yield Part.of(batch, rows)

    def _mine(self, images: Tensor, views: Tensor) -> tuple[Tensor, Tensor, Rows]:
        """Those of the images drawn that are in this process, or one that does not count."""
        rank, count = self.processes.rank, self.processes.count
        mine = (images % count == rank).nonzero().flatten()
        if len(mine) == 0:
            return images.new_tensor([rank]), views[:1], Rows(len(images), (0,), counts=False)
        return images[mine], views[mine], Rows(len(images), tuple(mine.tolist()))

    def feature_scales(self) -> tuple[Tensor, Tensor]:
        """Standard deviations of the features of images (D,) and of regions (D',)."""
        regions = self.conditions.region_features.flatten(0, 1)
        scales = self._scale(self.conditions.image_features), self._scale(regions)
        return scales[0].to(self.targets.device), scales[1].to(self.targets.device)

    def _scale(self, features: Tensor) -> Tensor:
        """Standard deviation over all rows, those of other processes included."""
        if self.processes.count == 1:
            return features.std(dim=0)
        var, mean = torch.var_mean(features, dim=0, correction=0)
        total, _, var = pooled_moments(self.processes.reduce, len(features), mean, var)
        return (var * (total / (total - 1))).sqrt().to(features)


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Tensor moved to a device, asynchronously for a GPU."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def room_for(n_rows: int, like: Conditions) -> Conditions:
    """Allocate conditions of ``n_rows`` rows, uninitialised; large ones in a temporary file.

    Shapes, data types and device are those of ``like``. On a GPU they stay there if they leave
    enough memory free. If there is no disk space for the file, an InputError says so.
    """
    row = like[slice(1)]
    n_bytes = n_rows * sum(t.numel() * t.element_size() for t in vars(row).values())
    device = _home(n_bytes, like.image_features.device)
    if device.type != "cpu" or n_bytes <= LARGEST_IN_MEMORY:
        return row.map(lambda t: torch.empty((n_rows, *t.shape[1:]), dtype=t.dtype, device=device))
    return row.map(lambda t: _on_disk((n_rows, *t.shape[1:]), t.dtype))


def _home(n_bytes: int, device: torch.device) -> torch.device:
    """Device on which ``n_bytes`` computed and used on ``device`` are stored."""
    if device.type == "cuda" and n_bytes > LARGEST_SHARE * torch.cuda.mem_get_info(device)[0]:
        return torch.device("cpu")
    return device


def _on_disk(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Uninitialised tensor in a temporary file, which is deleted with the tensor."""
    numpy_type = torch.empty(0, dtype=dtype).numpy().dtype
    n_bytes = int(np.prod(shape)) * numpy_type.itemsize
    if n_bytes == 0:
        return torch.empty(shape, dtype=dtype)
    with tempfile.TemporaryFile() as file:
        try:
            # Allocate now: running out of space while writing a page would kill the process.
            os.posix_fallocate(file.fileno(), 0, n_bytes)
        except AttributeError:
            pass  # not available on every system
        except OSError as reason:
            raise InputError(
                f"Stage two needs {n_bytes / 1e6:.0f} MB in {tempfile.gettempdir()!r} for its "
                f"cached features: {reason}. Free space, or set TMPDIR to a folder that has it."
            ) from reason
        return torch.from_numpy(np.memmap(file, numpy_type, mode="w+", shape=shape))


def drawing_chances(targets: Tensor, balance: float, task: Task) -> Tensor:
    """Sampling weight of each image, (n,): the :func:`drawing_ratio` of its class."""
    ratio = drawing_ratio(targets, balance, task)
    if ratio is None:
        return torch.ones(len(targets), device=targets.device)
    return (targets.double() @ ratio).float()


def drawing_ratio(targets: Tensor, balance: float, task: Task) -> Tensor | None:
    """Ratio of sampling frequency to class frequency: count^−balance, (C,), float64.

    It is known up to a common factor. None: images are sampled uniformly, as multi-label images
    always are.
    """
    if not task.exclusive or not balance:
        return None
    return targets.double().sum(dim=0).clamp_min(1) ** -balance
