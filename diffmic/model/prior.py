"""The dual-granularity prior: classification of the whole image and of its regions."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from .backbone import Backbone
from .conditions import Conditions
from .regions import FeatureWindows, PixelCrops, max_regions, select_regions, window_cells


class GatedAttention(nn.Module):
    """Gated attention pooling of region features (Ilse et al., ICML 2018, equation 9).

    a = softmax_k( w · [tanh(V h_k) ⊙ σ(U h_k)] ), z = Σ_k a_k h_k; no biases.
    """

    def __init__(self, channels: int, hidden: int = 128) -> None:
        super().__init__()
        self.V = nn.Linear(channels, hidden, bias=False)
        self.U = nn.Linear(channels, hidden, bias=False)
        self.w = nn.Linear(hidden, 1, bias=False)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, K, D) → pooled features (B, D) and attention (B, K)."""
        gate = torch.tanh(self.V(features)) * torch.sigmoid(self.U(features))
        attention = self.w(gate).squeeze(-1).softmax(dim=1)
        return torch.einsum("bk,bkd->bd", attention, features), attention


def top_mean(saliency: Tensor, fraction: float = 1.0) -> Tensor:
    """Mean of the largest ``fraction`` of the values of each class map: (B, C, h, w) → (B, C)."""
    flat = saliency.flatten(2)
    count = max(1, round(fraction * flat.shape[2]))
    return (
        flat.mean(dim=2) if count == flat.shape[2] else flat.topk(count, dim=2).values.mean(dim=2)
    )


class DualGranularityPrior(nn.Module):
    """Prior with global logits from a saliency map and local logits from its salient regions.

    Parameters
    ----------
    backbone : Backbone
        Backbone for the feature map of the whole image.
    regions : FeatureWindows or PixelCrops
        Module for the features of the regions.
    num_classes : int
        C, the number of classes.
    n_regions : int
        K, the number of regions.
    region_size, image_size : tuple of int
        Height and width of a region and of the network's input, in pixels.

    Raises
    ------
    InputError
        The saliency map is too small for K regions of this size.
    """

    def __init__(
        self,
        backbone: Backbone,
        regions: FeatureWindows | PixelCrops,
        num_classes: int,
        *,
        n_regions: int,
        region_size: tuple[int, int],
        image_size: tuple[int, int],
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.regions = regions
        self.n_regions = n_regions
        self.region_size = region_size
        self.window = window_cells(region_size, image_size, backbone.map_size)
        room = max_regions(backbone.map_size, self.window)
        if not 1 <= n_regions <= room:
            raise InputError(
                f"n_regions is {n_regions}, but the saliency map of {backbone.map_size[0]} × "
                f"{backbone.map_size[1]} cells (images of {image_size[0]} × {image_size[1]} "
                f"pixels) has room for {room} windows of {self.window[0]} × {self.window[1]}. Use "
                "n_regions='auto', a larger image_size or a smaller region_size."
            )
        self.saliency = nn.Conv2d(backbone.channels, num_classes, 1, bias=False)
        self.attention = GatedAttention(regions.channels)
        self.classifier = nn.Linear(regions.channels, num_classes, bias=False)

    def forward(self, images: Tensor) -> tuple[Conditions, Tensor]:
        """Apply the prior to images (B, 3, H, W) in 0–1.

        Returns
        -------
        Conditions
            Conditions with the features of the prior for the image and its regions.
        Tensor of shape (B, K, 2)
            Upper-left cell of each region on the saliency map.
        """
        maps = self.backbone(images)
        saliency = self.saliency(maps.coarse)
        cells = select_regions(saliency.detach().float(), self.n_regions, self.window)
        features = self.regions(images, maps, cells)
        pooled, attention = self.attention(features)
        conditions = Conditions(
            global_logits=top_mean(saliency),
            local_logits=self.classifier(pooled),
            image_features=maps.coarse.mean(dim=(2, 3)),
            region_features=features,
            saliency=saliency,
            boxes=self.regions.boxes(cells),
            attention=attention,
        )
        return conditions, cells

    def reread(self, image_features: Tensor, region_features: Tensor) -> tuple[Tensor, Tensor]:
        """Global and local logits, each (B, C), recomputed from changed features of the prior.

        The global prior is linear in the features, so its mean over the positions can be computed
        from the mean features.
        """
        pooled, _ = self.attention(region_features)
        weight = self.saliency.weight.flatten(1)
        return F.linear(image_features, weight), self.classifier(pooled)
