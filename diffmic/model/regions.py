"""Regions of interest: where to look, and what a region is described by."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from .backbone import Backbone, FeatureMaps


def importance_map(saliency: Tensor) -> Tensor:
    """Sum over classes of the saliency, each class map min-max scaled to 0–1; (B, h, w).

    A constant class map counts as 0 everywhere.
    """
    flat = saliency.flatten(2)  # (B, C, h·w)
    low = flat.amin(dim=2, keepdim=True)
    span = flat.amax(dim=2, keepdim=True) - low
    scaled = torch.where(span > 0, (flat - low) / span.clamp_min(torch.finfo(flat.dtype).tiny), 0)
    summed: Tensor = scaled.sum(dim=1)
    return summed.view(len(saliency), *saliency.shape[2:])


def select_regions(saliency: Tensor, n_regions: int, window: tuple[int, int]) -> Tensor:
    """Greedy choice of the windows with the largest mean importance, all images at once.

    Parameters
    ----------
    saliency : Tensor of shape (B, C, h, w)
        One map of logits per class.
    n_regions : int
        K, the number of windows; each is zeroed before the next is chosen.
    window : tuple of int
        Height and width of a window, in cells.

    Returns
    -------
    Tensor of shape (B, K, 2)
        Row and column of the upper-left cell of each window; of several equal windows the first
        in row-major order.
    """
    importance = importance_map(saliency)
    height, width = importance.shape[1:]
    rows = torch.arange(height, device=saliency.device)
    columns = torch.arange(width, device=saliency.device)
    cells = []
    for _ in range(n_regions):
        means = F.avg_pool2d(importance[:, None], window, stride=1)[:, 0]
        best = means.flatten(1).argmax(dim=1)
        row, column = best // means.shape[2], best % means.shape[2]
        cells.append(torch.stack([row, column], dim=1))
        in_rows = (rows >= row[:, None]) & (rows < row[:, None] + window[0])  # (B, h)
        in_columns = (columns >= column[:, None]) & (columns < column[:, None] + window[1])
        importance = importance.masked_fill(in_rows[:, :, None] & in_columns[:, None, :], 0)
    return torch.stack(cells, dim=1)


def window_cells(
    region_size: tuple[int, int], image_size: tuple[int, int], map_size: tuple[int, int]
) -> tuple[int, int]:
    """Window of round(p·h/H) by round(p·w/W) cells, at least one, for regions of p pixels."""
    height, width = (
        max(1, round(p * cells / pixels))
        for p, cells, pixels in zip(region_size, map_size, image_size, strict=True)
    )
    if height > map_size[0] or width > map_size[1]:
        raise InputError(
            f"region_size of {region_size[0]} pixels is larger than the image of {image_size[0]}."
        )
    return height, width


def max_regions(map_size: tuple[int, int], window: tuple[int, int]) -> int:
    """How many different windows a map holds."""
    return (map_size[0] - window[0] + 1) * (map_size[1] - window[1] + 1)


def upper_left(cells: Tensor, map_size: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Cells of a map of ``map_size`` as rows and columns of a grid of ``size``: round(cell/h·H)."""
    scale = torch.tensor(
        [size[0] / map_size[0], size[1] / map_size[1]], dtype=torch.float64, device=cells.device
    )
    return (cells * scale).round().long()


def crop(images: Tensor, corners: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut crops of all channels; what passes the border is the image's and channel's minimum.

    Parameters
    ----------
    images : Tensor of shape (B, C, H, W)
    corners : Tensor of shape (B, K, 2)
        Upper-left row and column of each crop.
    size : tuple of int
        Height and width of the crops.

    Returns
    -------
    Tensor of shape (B, K, C, height, width)
    """
    height, width = images.shape[2:]
    rows = corners[..., 0, None] + torch.arange(size[0], device=images.device)  # (B, K, p)
    columns = corners[..., 1, None] + torch.arange(size[1], device=images.device)
    batch = torch.arange(len(images), device=images.device).view(-1, 1, 1, 1)
    crops = images[
        batch, :, rows.clamp(max=height - 1)[..., None], columns.clamp(max=width - 1)[:, :, None]
    ]  # (B, K, p, p, C)
    inside = (rows < height)[..., None] & (columns < width)[:, :, None]
    minimum = images.amin(dim=(2, 3))[:, None, None, None]
    return torch.where(inside[..., None], crops, minimum).permute(0, 1, 4, 2, 3)


class FeatureWindows(nn.Module):
    """Regions as windows of the backbone's finer feature map: almost free.

    Parameters
    ----------
    backbone : Backbone
        The one whose maps are cut; only its sizes are read.
    region_size : tuple of int
        Height and width of a region, in pixels of the network's input.
    image_size : tuple of int
        Height and width of that input.
    """

    def __init__(
        self, backbone: Backbone, region_size: tuple[int, int], image_size: tuple[int, int]
    ) -> None:
        super().__init__()
        self.channels = backbone.fine_channels
        self.map_size, self.fine_size = backbone.map_size, backbone.fine_size
        self.window = window_cells(region_size, image_size, self.fine_size)

    def forward(self, images: Tensor, maps: FeatureMaps, cells: Tensor) -> Tensor:
        """Mean of the finer map over each region, (B, K, D')."""
        means = F.avg_pool2d(maps.fine, self.window, stride=1)
        rows, columns = self._corners(cells).unbind(-1)
        batch = torch.arange(len(images), device=images.device)[:, None]
        return means[batch, :, rows, columns]

    def boxes(self, cells: Tensor) -> Tensor:
        """What is read of the image, in fractions of it: x0, y0, x1, y1; (B, K, 4)."""
        return _fractions(self._corners(cells), self.window, self.fine_size)

    def _corners(self, cells: Tensor) -> Tensor:
        """Upper-left cells of the windows on the finer map, (B, K, 2)."""
        corners = upper_left(cells, self.map_size, self.fine_size)
        last = [size - side for size, side in zip(self.fine_size, self.window, strict=True)]
        return torch.minimum(corners, corners.new_tensor(last))


class PixelCrops(nn.Module):
    """Regions as crops of pixels through a network of their own, as in the paper.

    The network sees crops alone: sharing one with the whole images would mix their batch norm
    statistics.

    Parameters
    ----------
    backbone : Backbone
        Network for the crops, built for images of ``region_size``.
    region_size, image_size : tuple of int
        Height and width of a crop, and of the network's input, in pixels.
    map_size : tuple of int
        Height and width of the saliency map, in cells.
    """

    def __init__(
        self,
        backbone: Backbone,
        region_size: tuple[int, int],
        image_size: tuple[int, int],
        map_size: tuple[int, int],
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.channels = backbone.channels
        self.region_size, self.image_size, self.map_size = region_size, image_size, map_size

    def forward(self, images: Tensor, maps: FeatureMaps | None, cells: Tensor) -> Tensor:
        """Pooled features of each crop, (B, K, D)."""
        corners = upper_left(cells, self.map_size, self.image_size)
        crops = crop(images, corners, self.region_size)
        features = self.backbone.pooled(crops.flatten(0, 1))
        return features.view(*crops.shape[:2], -1)

    def boxes(self, cells: Tensor) -> Tensor:
        """What is read of the image, in fractions of it: x0, y0, x1, y1; (B, K, 4)."""
        corners = upper_left(cells, self.map_size, self.image_size)
        return _fractions(corners, self.region_size, self.image_size).clamp(max=1)


def _fractions(corners: Tensor, side: tuple[int, int], whole: tuple[int, int]) -> Tensor:
    """Rectangles as fractions of a whole: x0, y0, x1, y1."""
    scale = torch.tensor(whole, device=corners.device)
    ends = corners + corners.new_tensor(side)
    return torch.cat([(corners / scale).flip(-1), (ends / scale).flip(-1)], dim=-1)
