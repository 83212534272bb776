"""Labelled images: one split of the data, with its targets and weights."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .preprocessing import PreparedImages
from .ranges import ValueRange
from .sources import ImageSource, SomeImages


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images of one split of the data, with targets and weights.

    Attributes
    ----------
    images : ImageSource
    targets : Tensor of shape (n, C), float32, on the CPU
        One-hot or indicator rows; NaN: a label that is not known.
    weights : Tensor of shape (n,), float32, on the CPU
        Sample weights. Those of the training part, which only the losses use, have mean 1; where
        labels are unknown, the mean of weight times share of known labels is 1.
    loss_weights : Tensor of shape (n,) or None
        Weights in the validation loss used for early stopping, if they differ from ``weights``:
        they include class weights, which the calibration does not use.
    value_range : ValueRange or None
        Range of pixel values, as in :class:`PreparedImages`.
    """

    images: ImageSource
    targets: Tensor
    weights: Tensor
    loss_weights: Tensor | None = None
    value_range: ValueRange | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def prepared(self, image_size: int, **options: Any) -> PreparedImages:
        """The images as the network takes them; options as for :class:`PreparedImages`."""
        return PreparedImages(self.images, image_size, value_range=self.value_range, **options)

    def labels(self, index: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """Targets and weights of the images at ``index`` (on the CPU), moved to a device."""
        return (
            self.targets[index].to(device, non_blocking=True),
            self.weights[index].to(device, non_blocking=True),
        )

    def subset(self, index: Sequence[int]) -> "LabelledImages":
        """Some of the images, with their targets and weights."""
        rows = torch.as_tensor(index, dtype=torch.long)
        loss_weights = None if self.loss_weights is None else self.loss_weights[rows]
        return replace(
            self,
            images=SomeImages(self.images, index),
            targets=self.targets[rows],
            weights=self.weights[rows],
            loss_weights=loss_weights,
        )
