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
        Evidence for each class at each place, in logits: the saliency map, to which
        ``region_importance="fused"`` adds the logits of the local branch at each place, on the
        map on which regions are chosen, if these are windows of features.
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

    @classmethod
    def of(
        cls,
        global_logits: Tensor,
        image_features: Tensor,
        *,
        local_logits: Tensor | None = None,
        region_features: Tensor | None = None,
        saliency: Tensor | None = None,
        boxes: Tensor | None = None,
        attention: Tensor | None = None,
        region_weights: Tensor | None = None,
    ) -> "Conditions":
        """Conditions from what a prior of one's own has; the rest says nothing.

        Without regions the whole image is the only one. Without local logits, those of the regions
        are the global ones; without a saliency map it is 0 in a single cell; without attention all
        regions have as much.

        Parameters
        ----------
        global_logits : Tensor of shape (B, C)
        image_features : Tensor of shape (B, D)
        local_logits, region_features, saliency, boxes, attention, region_weights : Tensor or None
            As in the attributes.
        """
        n, n_classes = global_logits.shape
        features = image_features[:, None] if region_features is None else region_features
        n_regions = features.shape[1]
        whole = features.new_tensor([0.0, 0.0, 1.0, 1.0]).expand(n, n_regions, 4)
        even = features.new_full((n, n_regions), 1 / n_regions)
        return cls(
            global_logits=global_logits,
            local_logits=global_logits if local_logits is None else local_logits,
            image_features=image_features,
            region_features=features,
            saliency=features.new_zeros(n, n_classes, 1, 1) if saliency is None else saliency,
            boxes=whole if boxes is None else boxes,
            attention=even if attention is None else attention,
            region_weights=torch.ones_like(even) if region_weights is None else region_weights,
        )

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
