"""Conditions encoded once, from which stage two draws its batches."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..model import Conditions


@dataclass(frozen=True)
class ConditionCache:
    """Conditions of all views of the training images, on the device where they are used.

    Attributes
    ----------
    conditions : Conditions
        Of n·V rows: all images in their first view, then in their second, and so on.
    targets : Tensor of shape (n, C)
    weights : Tensor of shape (n,)
        Of the loss.
    """

    conditions: Conditions
    targets: Tensor
    weights: Tensor

    def batches(
        self, n_batches: int, batch_size: int, chances: Tensor
    ) -> Iterator[tuple[Conditions, Tensor, Tensor]]:
        """Random batches: images in proportion to ``chances`` (n,), each in any of its views."""
        n_images = len(self.targets)
        n_views = len(self.conditions) // n_images
        for _ in range(n_batches):
            images = torch.multinomial(chances, batch_size, replacement=True)
            views = torch.randint(n_views, images.shape, device=images.device)
            rows = views * n_images + images
            yield self.conditions[rows], self.targets[images], self.weights[images]

    def feature_scales(self) -> tuple[Tensor, Tensor]:
        """Standard deviations of the features of images (D,) and of regions (D',)."""
        regions = self.conditions.region_features.flatten(0, 1)
        return self.conditions.image_features.std(dim=0), regions.std(dim=0)


def drawing_chances(targets: Tensor, balance: float, *, multilabel: bool) -> Tensor:
    """Chance of each image to be drawn, (n,): its class's count to the power −balance."""
    if multilabel or not balance:
        return torch.ones(len(targets), device=targets.device)
    counts = targets.sum(dim=0).clamp_min(1)
    return (targets @ counts**-balance).float()
