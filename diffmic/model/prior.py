"""The dual-granularity prior: classification of the whole image and of its regions."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..tasks import MULTICLASS, Task
from .backbone import Backbone, FeatureMaps
from .conditions import Conditions
from .own import OwnRegions
from .regions import (
    FeatureWindows,
    PixelCrops,
    RegionChoice,
    importance_map,
)
from .zoom import ZoomedCrops

_LEAST_WEIGHT = 1e-3  # of a region in the attention


class GatedAttention(nn.Module):
    """Gated attention pooling of region features (Ilse et al., ICML 2018, equation 9).

    a = softmax_k( w · [tanh(V h_k) ⊙ σ(U h_k)] ), z = Σ_k a_k h_k; no biases. Given weights v_k of
    the regions, a_k ∝ v_k exp(…).
    """

    def __init__(self, channels: int, hidden: int = 128) -> None:
        super().__init__()
        self.V = nn.Linear(channels, hidden, bias=False)
        self.U = nn.Linear(channels, hidden, bias=False)
        self.w = nn.Linear(hidden, 1, bias=False)

    def forward(self, features: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Features (B, K, D), weights (B, K) → pooled features (B, D) and attention (B, K)."""
        gate = torch.tanh(self.V(features)) * torch.sigmoid(self.U(features))
        logits = self.w(gate).squeeze(-1)
        attention = (logits if weights is None else logits + weights.log()).softmax(dim=1)
        return torch.einsum("bk,bkd->bd", attention, features), attention


def top_mean(saliency: Tensor, fraction: float = 1.0) -> Tensor:
    """Mean of the largest ``fraction`` of the values of each class map: (B, C, h, w) → (B, C)."""
    flat = saliency.flatten(2)
    count = max(1, round(fraction * flat.shape[2]))
    return (flat if count == flat.shape[2] else flat.topk(count, dim=2).values).mean(dim=2)


class DualGranularityPrior(nn.Module):
    """Prior with global logits from a saliency map and local logits from its salient regions.

    Parameters
    ----------
    backbone : Backbone
        Backbone for the feature map of the whole image.
    regions : FeatureWindows, PixelCrops or ZoomedCrops
        Module for the features of the regions.
    num_classes : int
        C, the number of classes.
    n_regions : int
        K, the number of regions.
    window : tuple of int
        Height and width of a region on the map on which regions are chosen, in cells.
    task : Task
        Type of task.
    importance : str
        Form of the importance of a place; see :func:`~.regions.importance_map`.
    finder : callable or None
        Choice of the regions of one's own; see :class:`~diffmic.parts.RegionFinder`.

    Raises
    ------
    InputError
        The map is too small for K regions of this size.
    """

    def __init__(
        self,
        backbone: Backbone,
        regions: FeatureWindows | PixelCrops | ZoomedCrops,
        num_classes: int,
        *,
        n_regions: int,
        window: tuple[int, int],
        task: Task = MULTICLASS,
        importance: str = "fused",
        finder: Any = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.regions = regions
        self.n_regions = n_regions
        self.choice = RegionChoice(regions.map_size, n_regions, window) if finder is None else None
        self.task, self.importance = task, importance
        self.finder = None if finder is None else OwnRegions(finder, n_regions)
        self.saliency = nn.Conv2d(backbone.channels, num_classes, 1, bias=False)
        self.attention = GatedAttention(regions.channels)
        self.classifier = nn.Linear(regions.channels, num_classes, bias=False)

    def whole(self, images: Tensor) -> Tensor:
        """Whole images as the backbone takes them: those of a zoom are made small."""
        side = self.backbone.image_size
        if not isinstance(self.regions, ZoomedCrops) or images.shape[2:] == (side, side):
            return images
        return F.interpolate(
            images, (side, side), mode="bilinear", antialias=True, align_corners=False
        )

    def forward(
        self, images: Tensor, originals: Tensor | Sequence[Tensor] | None = None
    ) -> tuple[Conditions, Tensor]:
        """Apply the prior to images (B, 3, H, W) in 0–1.

        Parameters
        ----------
        images : Tensor of shape (B, 3, H, W)
        originals : sequence of B tensors of shape (C, H', W'), or None
            Zoom: the original images, uint8 or float in 0–1, of which ``images`` are the small
            ones. None: ``images`` are the originals.

        Returns
        -------
        Conditions
            Conditions with the features of the prior for the image and its regions.
        Tensor of shape (B, K, 2) or (B, K, 4)
            Upper-left cell of each region on the map on which regions are chosen; the boxes of a
            region finder of one's own.
        """
        small = self.whole(images)
        maps = self.backbone(small)
        saliency = self.saliency(maps.coarse)
        evidence = self._evidence(saliency, maps)
        shown: Any = images if originals is None else originals
        if self.finder is None:
            cells, weights = self._chosen(evidence.detach())
            features, boxes = self.regions(shown, maps, cells), self.regions.boxes(cells, shown)
        else:
            cells, weights = self.finder(small, evidence.detach().float())
            features, boxes = self.regions.in_boxes(shown, maps, cells), cells
        pooled, attention = self.attention(features, weights)
        conditions = Conditions(
            global_logits=top_mean(saliency),
            local_logits=self.classifier(pooled),
            image_features=maps.coarse.mean(dim=(2, 3)),
            region_features=features,
            saliency=evidence,
            boxes=boxes,
            attention=attention,
            region_weights=weights,
        )
        return conditions, cells

    rereads = True

    def reread(
        self, image_features: Tensor, region_features: Tensor, region_weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Global and local logits, each (B, C), recomputed from changed features of the prior.

        The global prior is linear in the features, so its mean over the positions can be computed
        from the mean features.
        """
        pooled, _ = self.attention(region_features, region_weights)
        weight = self.saliency.weight.flatten(1)
        return F.linear(image_features, weight), self.classifier(pooled)

    def _evidence(self, saliency: Tensor, maps: FeatureMaps) -> Tensor:
        """Evidence for each class by which regions are chosen, (B, C, h, w), in logits.

        The saliency map; if fused, with the logits of the local branch at each place, on the map on
        which regions are chosen. That branch is linear in the features of a window, so that its
        logits at each place, whose mean over a window is the window's, are known before.
        """
        if self.importance != "fused" or not isinstance(self.regions, FeatureWindows):
            return saliency
        local: Tensor = self.classifier(maps.fine.movedim(1, 3)).movedim(3, 1)
        return self._resized(saliency) + self._resized(local)

    def _resized(self, evidence: Tensor) -> Tensor:
        """Evidence on the cells on which regions are chosen, in float32."""
        evidence, size = evidence.float(), self.regions.map_size
        if evidence.shape[2:] == size:
            return evidence
        return F.interpolate(evidence, size, mode="bilinear", align_corners=False)

    def _chosen(self, evidence: Tensor) -> tuple[Tensor, Tensor]:
        """Upper-left cells of the regions, (B, K, 2), and the weight of each, (B, K), 0 to 1.

        The weight is the square of its importance when it was chosen, as a share of that of the
        first one: regions beside the place that decides see it, too, and would take its attention.
        """
        importance = importance_map(self._resized(evidence), self.task, self.importance)
        if self.importance != "paper":
            # In half precision places that are alike but for rounding tie, and the first is chosen:
            # an interpolated map is flat along its border.
            largest = importance.amax(dim=(1, 2), keepdim=True)
            importance = importance / largest.clamp_min(torch.finfo(importance.dtype).tiny)
            importance = importance.half().float()
        assert self.choice is not None  # there is no finder
        cells, worth = self.choice(importance)
        if self.importance == "paper":
            return cells, torch.ones_like(worth)
        share = worth / worth[:, :1].clamp_min(torch.finfo(worth.dtype).tiny)
        return cells, share.square().clamp_min(_LEAST_WEIGHT)
