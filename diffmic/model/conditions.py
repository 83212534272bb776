"""Conditions: everything about an image that the diffusion needs, and what people want to see."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Conditions:
    """The waist of the house: made once per image, used at every step.

    Attributes
    ----------
    global_logits, local_logits : Tensor of shape (B, C)
        Prior of the whole image and of its regions.
    image_features : Tensor of shape (B, D)
        Pooled features of the whole image.
    region_features : Tensor of shape (B, K, D')
        Features of each region.
    saliency : Tensor of shape (B, C, h, w)
        One map of logits per class.
    boxes : Tensor of shape (B, K, 4)
        Regions as x0, y0, x1, y1, in fractions of the image.
    attention : Tensor of shape (B, K)
        Share of each region in the local prior; rows sum to 1.
    """

    global_logits: Tensor
    local_logits: Tensor
    image_features: Tensor
    region_features: Tensor
    saliency: Tensor
    boxes: Tensor
    attention: Tensor

    @property
    def fused_logits(self) -> Tensor:
        """y_f = ½ (y_g + y_l), (B, C)."""
        return (self.global_logits + self.local_logits) / 2

    def map(self, function: Callable[[Tensor], Tensor]) -> "Conditions":
        """The same with ``function`` applied to every tensor."""
        return Conditions(*(function(getattr(self, field.name)) for field in fields(self)))

    def without_pictures(self) -> "Conditions":
        """The same with an empty saliency, which is for people and not for the diffusion."""
        return replace(self, saliency=self.saliency[..., :0, :0])

    def __len__(self) -> int:
        return len(self.global_logits)

    def __getitem__(self, index: Tensor | slice) -> "Conditions":
        return self.map(lambda tensor: tensor[index])

    @staticmethod
    def cat(parts: Sequence["Conditions"]) -> "Conditions":
        """Several batches as one."""
        return Conditions(
            *(
                torch.cat([getattr(part, field.name) for part in parts])
                for field in fields(Conditions)
            )
        )
