"""What both stages are given: the data's parts, the options of a fit, and schedules."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR

from ..data import ImageSource, PreparedImages, unit_range
from ..data.preprocessing import Augment
from .recipe import Recipe


@dataclass(frozen=True)
class TrainingOptions:
    """What a fit needs to know beside data and network; names are the estimator's.

    Attributes
    ----------
    pretrained : bool
        Whether the backbone starts from learnt weights, and so learns more slowly than the heads.
    n_views : int
        Views of each held-out image that the calibration and the last measures are of.
    patience : int or None
        Epochs without a better validation score after which a stage stops; None: never.
    """

    recipe: Recipe
    image_size: int
    max_epochs: int
    batch_size: int
    learning_rate: float
    pretrained: bool
    patience: int | None
    augment: Augment | None
    num_workers: int
    num_steps: int
    n_samples: int
    n_views: int
    precision: str
    device: torch.device
    seed: int
    verbose: int


@dataclass(frozen=True)
class Part:
    """Images of one part of the data.

    Attributes
    ----------
    images : ImageSource
    targets : Tensor of shape (n, C)
        One-hot or indicator.
    weights : Tensor of shape (n,)
        Of the loss; their mean is 1.
    """

    images: ImageSource
    targets: Tensor
    weights: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def prepared(self, options: TrainingOptions, *, augmented: bool = False) -> PreparedImages:
        """Images of the network's size."""
        augment = options.augment if augmented else None
        return PreparedImages(self.images, options.image_size, augment=augment, seed=options.seed)

    def labels(self, index: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """Targets and weights of some of the images; the index is on the CPU, as they are."""
        return (
            self.targets[index].to(device, non_blocking=True),
            self.weights[index].to(device, non_blocking=True),
        )


def pixels(batch: Tensor, device: torch.device) -> Tensor:
    """Images of a batch as the network wants them: float in 0–1, channels last in memory."""
    images = unit_range(batch.to(device, non_blocking=True))
    return images.contiguous(memory_format=torch.channels_last)


def learning_rate_schedule(optimizer: Optimizer, recipe: Recipe, total_steps: int) -> LRScheduler:
    """One cycle (Smith and Topin, 2019), or a cosine down to 1 %, over all steps of a stage."""
    rates = [group["lr"] for group in optimizer.param_groups]
    if recipe.schedule == "cosine":
        return CosineAnnealingLR(optimizer, total_steps, eta_min=0.01 * min(rates))
    # The scheduler's last call comes after the last step: one more than there are steps.
    return OneCycleLR(optimizer, rates, total_steps=total_steps + 1)
