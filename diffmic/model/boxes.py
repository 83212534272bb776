"""Features of regions that are boxes of any size and place."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..random import imported
from .backbone import FeatureMaps
from .regions import FeatureWindows, PixelCrops
from .zoom import ZoomedCrops

_SAMPLES = 4  # points along each side of a box, whose mean is its feature


def features_in_boxes(
    regions: FeatureWindows | PixelCrops | ZoomedCrops,
    images: Tensor | Sequence[Tensor],
    maps: FeatureMaps | None,
    boxes: Tensor,
) -> Tensor:
    """Features (B, K, D') of boxes (B, K, 4), which are fractions of the image.

    Windows are means of the finer feature map over the box; crops are resized to the size that
    their backbone takes. Those of a zoom are cut from the originals, each of its own size.
    """
    if isinstance(regions, FeatureWindows):
        assert maps is not None  # the prior passes those of the whole image
        means = _resampled(maps.fine, boxes, (1, 1), _SAMPLES)
        return means.flatten(1).view(*boxes.shape[:2], -1)
    if not isinstance(images, Tensor):
        assert isinstance(regions, ZoomedCrops)
        return regions.in_boxes(images, boxes)
    crops = _resampled(images, boxes, regions.region_size, -1)
    return regions.backbone.pooled(crops).view(*boxes.shape[:2], -1)


def _resampled(source: Tensor, boxes: Tensor, size: tuple[int, int], samples: int) -> Tensor:
    """Contents of boxes (B, K, 4) of maps (B, D, h, w), as (B·K, D, *size)."""
    height, width = source.shape[2:]
    scaled = boxes.to(source) * boxes.new_tensor([width, height, width, height]).to(source)
    batch = torch.arange(boxes.shape[0], device=boxes.device)[:, None].expand(boxes.shape[:2])
    rows = torch.cat([batch.reshape(-1, 1).to(source), scaled.flatten(0, 1)], dim=1)
    ops = imported("torchvision.ops")
    found: Tensor = ops.roi_align(source, rows, size, sampling_ratio=samples, aligned=True)
    return found
