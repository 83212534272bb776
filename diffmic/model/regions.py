"""Regions of interest: their selection by their importance, and their features."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from ..random import imported
from ..tasks import Task
from .backbone import Backbone, FeatureMaps

Size = tuple[int, int]  # height and width
_SAMPLES = 4  # points along each side of a box of a feature map, whose mean is its feature


def importance_map(saliency: Tensor, task: Task, form: str = "fused") -> Tensor:
    """Importance map (B, h, w), at least 0: how much each place is worth a region.

    Parameters
    ----------
    saliency : Tensor of shape (B, C, h, w)
        Saliency map S of each class, in logits; ``"fused"``: the sum of it and of the logits of the
        local branch.
    task : Task
        Type of task.
    form : {"fused", "contrast", "paper"}
        ``"fused"`` and ``"contrast"``: how clearly a place speaks for some classes against others,
        the variance of S over the classes; for multi-label, whose labels do not exclude each
        other, the largest over the labels of S_c above its mean over the image. ``"paper"``: Σ_c of
        the maps, each min-max scaled to 0–1 (Shen et al., 2021). It was made for findings that are
        independent: with exclusive classes a place that speaks for one of them and against the
        others comes last, so that it looks away from what decides.
    """
    flat = saliency.flatten(2)  # (B, C, h·w)
    if form == "paper":
        low = flat.amin(dim=2, keepdim=True)
        span = flat.amax(dim=2, keepdim=True) - low
        tiny = torch.finfo(flat.dtype).tiny
        importance = torch.where(span > 0, (flat - low) / span.clamp_min(tiny), 0).sum(dim=1)
    elif task.exclusive:
        importance = flat.var(dim=1, correction=0)
    else:
        above = flat - flat.mean(dim=2, keepdim=True)
        importance = above.amax(dim=1).clamp_min(0)
    return importance.view(saliency.shape[0], *saliency.shape[2:])


class RegionChoice(nn.Module):
    """Greedy choice of the windows with the largest mean importance, for all images at once.

    Parameters
    ----------
    map_size : tuple of int
        Height and width of the importance map, in cells.
    n_regions : int
        K, the number of windows; the importance in each is set to 0 before the next is chosen.
    window : tuple of int
        Height and width of a window, in cells.

    Raises
    ------
    InputError
        The map is too small for K windows of this size.
    """

    in_rows: Tensor  # whether a window that begins in a row holds each row
    in_columns: Tensor

    def __init__(self, map_size: Size, n_regions: int, window: Size) -> None:
        super().__init__()
        self.n_regions, self.window = n_regions, window
        room = max_regions(map_size, window)
        if not 1 <= n_regions <= room:
            raise InputError(
                f"n_regions is {n_regions}, but the map of {map_size[0]} × {map_size[1]} cells on "
                f"which they are chosen has room for {room} windows of {window[0]} × {window[1]}. "
                "Use n_regions='auto', a larger image_size or a smaller region_size."
            )
        # Not saved, since they follow from the sizes.
        tables = map(_in_window, map_size, window)
        for name, table in zip(("in_rows", "in_columns"), tables, strict=True):
            self.register_buffer(name, table, persistent=False)

    def forward(self, importance: Tensor) -> tuple[Tensor, Tensor]:
        """Choose the windows of importance maps (B, h, w), at least 0.

        Returns
        -------
        Tensor of shape (B, K, 2)
            Row and column of the upper-left cell of each window; ties go to the first window in
            row-major order.
        Tensor of shape (B, K)
            Mean importance of each window when it was chosen.
        """
        n_columns = len(self.in_columns)
        cells, worth = [], []
        for _ in range(self.n_regions):
            means = F.avg_pool2d(importance[:, None], self.window, stride=1)
            largest, best = means.flatten(1).max(dim=1)
            row, column = best // n_columns, best % n_columns
            chosen = self.in_rows[row][:, :, None] & self.in_columns[column][:, None, :]
            importance = importance.masked_fill(chosen, 0)
            cells.append(torch.stack([row, column], dim=-1))
            worth.append(largest)
        return torch.stack(cells, dim=1), torch.stack(worth, dim=1)


def _in_window(n_cells: int, length: int) -> Tensor:
    """Whether each cell lies in each window of a row of cells: (windows, cells)."""
    first, cells = torch.arange(n_cells - length + 1)[:, None], torch.arange(n_cells)
    return (cells >= first) & (cells < first + length)


def window_cells(region_size: Size, image_size: Size, map_size: Size) -> Size:
    """Window size in cells for regions of p pixels: round(p·h/H) × round(p·w/W), at least 1 × 1."""
    height, width = (
        max(1, round(p * cells / pixels))
        for p, cells, pixels in zip(region_size, map_size, image_size, strict=True)
    )
    if height > map_size[0] or width > map_size[1]:
        raise InputError(
            f"region_size of {region_size[0]} pixels is larger than the image of {image_size[0]}."
        )
    return height, width


def max_regions(map_size: Size, window: Size) -> int:
    """Number of different windows in a map."""
    return (map_size[0] - window[0] + 1) * (map_size[1] - window[1] + 1)


class Corners(nn.Module):
    """Table of the place, in cells or pixels, that belongs to each row and column of a map.

    Parameters
    ----------
    rows, columns : sequence of int
        Place of each row and of each column.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, rows: Sequence[int], columns: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("rows", torch.tensor(rows), persistent=False)
        self.register_buffer("columns", torch.tensor(columns), persistent=False)

    @classmethod
    def scaled(cls, map_size: Size, size: Size) -> "Corners":
        """Upper-left places on a grid of another size: round(cell · H / h)."""
        return cls(*map(_scaled, map_size, size))

    def forward(self, cells: Tensor) -> Tensor:
        """Places (..., 2) of cells (..., 2), both as row and column."""
        return torch.stack([self.rows[cells[..., 0]], self.columns[cells[..., 1]]], dim=-1)


def _scaled(n: int, side: int) -> list[int]:
    return [round(cell * (side / n)) for cell in range(n)]


def crop(images: Tensor, corners: Tensor, size: Size) -> Tensor:
    """Crop images; pixels beyond the border are filled with the minimum of image and channel.

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
    crops = pixels_at(images, rows.clamp(max=height - 1), columns.clamp(max=width - 1))
    inside = (rows < height)[..., None] & (columns < width)[:, :, None]
    minimum = images.amin(dim=(2, 3))[:, None, :, None, None]
    return torch.where(inside[:, :, None], crops, minimum)


def pixels_at(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Pixels at rows (B, K, p) and columns (B, K, q) of each image: (B, K, C, p, q)."""
    batch = torch.arange(images.shape[0], device=images.device).view(-1, 1, 1, 1)
    pixels: Tensor = images[batch, :, rows[..., None], columns[:, :, None]]  # (B, K, p, q, C)
    return pixels.permute(0, 1, 4, 2, 3)


def resampled(source: Tensor, boxes: Tensor, size: Size, samples: int = -1) -> Tensor:
    """Contents of boxes (B, K, 4) of maps (B, D, h, w), as (B·K, D, *size)."""
    height, width = source.shape[2:]
    scaled = boxes.to(source) * boxes.new_tensor([width, height, width, height]).to(source)
    batch = torch.arange(boxes.shape[0], device=boxes.device)[:, None].expand(boxes.shape[:2])
    rows = torch.cat([batch.reshape(-1, 1).to(source), scaled.flatten(0, 1)], dim=1)
    ops = imported("torchvision.ops")
    found: Tensor = ops.roi_align(source, rows, size, sampling_ratio=samples, aligned=True)
    return found


class FeatureWindows(nn.Module):
    """Regions as windows of the finer feature map of the backbone, at almost no cost.

    Parameters
    ----------
    backbone : Backbone
        Backbone that computes the feature maps; only the sizes of its maps are used.
    region_size : tuple of int
        Height and width of a region, in pixels of the network's input.
    image_size : tuple of int
        Height and width of that input.
    map_size : tuple of int
        Height and width of the map on which regions are chosen, in cells.
    fine_size : tuple of int
        Height and width to which the finer map is interpolated, if it has others.
    """

    def __init__(
        self,
        backbone: Backbone,
        region_size: Size,
        image_size: Size,
        map_size: Size,
        fine_size: Size,
    ) -> None:
        super().__init__()
        self.channels = backbone.fine_channels
        self.map_size, self.fine_size = map_size, fine_size
        self.window = window_cells(region_size, image_size, self.fine_size)
        self.corners = Corners(
            *(
                [min(corner, side - length) for corner in _scaled(n, side)]
                for n, side, length in zip(map_size, self.fine_size, self.window, strict=True)
            )
        )

    def forward(self, images: Tensor, maps: FeatureMaps, cells: Tensor) -> Tensor:
        """Features of each region, (B, K, D'): means of the finer map over its window."""
        fine = maps.fine
        if fine.shape[2:] != self.fine_size:
            fine = F.interpolate(fine, self.fine_size, mode="bilinear", align_corners=False)
        means = F.avg_pool2d(fine, self.window, stride=1)
        rows, columns = self.corners(cells).unbind(-1)
        batch = torch.arange(images.shape[0], device=images.device)[:, None]
        return means[batch, :, rows, columns]

    def in_boxes(self, images: Tensor, maps: FeatureMaps, boxes: Tensor) -> Tensor:
        """Features (B, K, D') of boxes (B, K, 4): means of the finer map over each."""
        means = resampled(maps.fine, boxes, (1, 1), _SAMPLES)
        return means.flatten(1).view(*boxes.shape[:2], -1)

    def boxes(self, cells: Tensor, images: Tensor) -> Tensor:
        """Regions (B, K, 4) as x0, y0, x1, y1, as fractions of the image size."""
        return fractions(self.corners(cells), self.window, self.fine_size)


class PixelCrops(nn.Module):
    """Regions as pixel crops, encoded by a separate backbone, as in the paper.

    This backbone processes only crops: sharing it with whole images would mix their batch norm
    statistics.

    Parameters
    ----------
    backbone : Backbone
        Backbone for the crops, built for images of ``region_size``.
    region_size, image_size : tuple of int
        Height and width of a crop, and of the network's input, in pixels.
    map_size : tuple of int
        Height and width of the saliency map, in cells.
    """

    def __init__(
        self, backbone: Backbone, region_size: Size, image_size: Size, map_size: Size
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.channels = backbone.channels
        self.region_size, self.image_size, self.map_size = region_size, image_size, map_size
        self.corners = Corners.scaled(map_size, image_size)

    def forward(self, images: Tensor, maps: FeatureMaps | None, cells: Tensor) -> Tensor:
        """Pooled features of each crop, (B, K, D)."""
        crops = crop(images, self.corners(cells), self.region_size)
        features = self.backbone.pooled(crops.flatten(0, 1))
        return features.view(*crops.shape[:2], -1)

    def in_boxes(self, images: Tensor, maps: FeatureMaps | None, boxes: Tensor) -> Tensor:
        """Features (B, K, D) of boxes (B, K, 4), resized to the size of a crop."""
        crops = resampled(images, boxes, self.region_size)
        return self.backbone.pooled(crops).view(*boxes.shape[:2], -1)

    def boxes(self, cells: Tensor, images: Tensor) -> Tensor:
        """Regions (B, K, 4) as x0, y0, x1, y1, as fractions of the image size."""
        return fractions(self.corners(cells), self.region_size, self.image_size).clamp(max=1)


def fractions(corners: Tensor, side: Size, whole: Size) -> Tensor:
    """Rectangles x0, y0, x1, y1 as fractions of the whole, from their upper-left corners."""
    rows, columns = corners.unbind(-1)
    (height, width), (whole_height, whole_width) = side, whole
    edges = [
        columns / whole_width,
        rows / whole_height,
        (columns + width) / whole_width,
        (rows + height) / whole_height,
    ]
    return torch.stack(edges, dim=-1)
