"""Conditions: per-image inputs of the diffusion, and the prior's outputs for explanations."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torch.export import register_dataclass


@dataclass(frozen=True)
class Conditions:
    """Per-image conditioning, computed once and reused at every step.

    Attributes
    ----------
    global_logits, local_logits : Tensor of shape (B, C)
        Logits of the prior for the whole image and for its regions.
    image_features : Tensor of shape (B, D)
        Pooled features of the whole image.
    region_features : Tensor of shape (B, K, D')
        Feature vectors of the K regions.
    saliency : Tensor of shape (B, C, h, w)
        Saliency map of each class, in logits.
    boxes : Tensor of shape (B, K, 4)
        Regions as x0, y0, x1, y1, as fractions of the image size.
    attention : Tensor of shape (B, K)
        Attention weight of each region in the local prior; rows sum to 1.
    region_weights : Tensor of shape (B, K)
        Weight of each region in the attention, from its importance; 1 for the first one.
    """

    global_logits: Tensor
    local_logits: Tensor
    image_features: Tensor
    region_features: Tensor
    saliency: Tensor
    boxes: Tensor
    attention: Tensor
    region_weights: Tensor

    @property
    def fused_logits(self) -> Tensor:
        """Fused logits of the prior, y_f = ½ (y_g + y_l), (B, C)."""
        return (self.global_logits + self.local_logits) / 2

    def map(self, function: Callable[[Tensor], Tensor]) -> "Conditions":
        """Conditions with ``function`` applied to every tensor."""
        return Conditions(*(function(getattr(self, field.name)) for field in fields(self)))

    def without_pictures(self) -> "Conditions":
        """Conditions with an empty saliency map, which only explanations need."""
        return replace(self, saliency=self.saliency[..., :0, :0])

    def __len__(self) -> int:
        return len(self.global_logits)

    def __getitem__(self, index: Tensor | slice) -> "Conditions":
        return self.map(lambda tensor: tensor[index])

    @staticmethod
    def cat(parts: Sequence["Conditions"]) -> "Conditions":
        """Concatenate batches."""
        return Conditions(
            *(
                torch.cat([getattr(part, field.name) for part in parts])
                for field in fields(Conditions)
            )
        )


register_dataclass(Conditions)  # so that torch.export can take what the prior gives
