"""Training options, and functions that both stages share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR

from ..data import LabelledImages, PreparedImages, unit_range
from ..data.augmentation import Augment
from ..inference import SamplingOptions
from .checkpoint import Checkpoints
from .distributed import ALONE, Processes
from .recipe import Recipe
from .watch import Watch


@dataclass(frozen=True)
class TrainingOptions:
    """Options of a fit; attributes not listed are those of the estimator.

    Attributes
    ----------
    pretrained : bool
        Whether the backbone starts from trained weights, so that its learning rate is multiplied by
        the recipe's ``pretrained_factor``.
    zoom_size : int or None
        Side of the squares that are augmented for a zoom, in pixels; None: there is none.
    sampling : SamplingOptions
        Sampling options of the predictions used for calibration and final metrics.
    watch : Watch
        What is told of the fit while it runs: progress, log lines, callbacks.
    checkpoints : Checkpoints or None
        Checkpoints of the fit; None: none are written.
    processes : Processes
        Processes that take part in the fit.
    """

    recipe: Recipe
    image_size: int
    max_epochs: int
    batch_size: int
    learning_rate: float
    pretrained: bool
    augment: Augment | None
    num_workers: int
    sampling: SamplingOptions
    precision: str
    device: torch.device
    seed: int
    crop: str = "none"
    zoom_size: int | None = None
    processes: Processes = ALONE
    watch: Watch = field(default_factory=Watch, compare=False)
    checkpoints: Checkpoints | None = None

    @property
    def own_batch_size(self) -> int:
        """Number of images that each process encodes at once."""
        return -(-self.batch_size // self.processes.count)

    def prepared(self, part: LabelledImages, *, augmented: bool = False) -> PreparedImages:
        """Images of one part of the data, resized for the network and augmented if requested."""
        augment = self.augment if augmented else None
        return part.prepared(
            self.image_size,
            crop=self.crop,
            zoom_size=self.zoom_size,
            augment=augment,
            seed=self.seed,
        )


def pixels(batch: Tensor, device: torch.device) -> Tensor:
    """Images of a batch on a device, as float in 0–1 with channels-last memory layout."""
    images = unit_range(batch.to(device, non_blocking=True))
    return images.contiguous(memory_format=torch.channels_last)


def originals(batch: Mapping[str, Any], options: TrainingOptions) -> list[list[Tensor]]:
    """What a zoom is given besides the small images: the list of originals, and else nothing."""
    if options.zoom_size is None:
        return []
    return [[image.to(options.device, non_blocking=True) for image in batch["original"]]]


def learning_rate_schedule(optimizer: Optimizer, recipe: Recipe, total_steps: int) -> LRScheduler:
    """One-cycle schedule (Smith and Topin, 2019), or cosine down to 1 %, over a whole stage."""
    rates = [group["lr"] for group in optimizer.param_groups]
    if recipe.schedule == "cosine":
        return CosineAnnealingLR(optimizer, total_steps, eta_min=0.01 * min(rates))
    # The scheduler is also called after the last step, hence one step more.
    return OneCycleLR(optimizer, rates, total_steps=total_steps + 1)
