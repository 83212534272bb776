"""Regions of interest: their selection from the saliency map, and their features."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from ..tasks import Task
from .backbone import Backbone, FeatureMaps


def importance_map(saliency: Tensor, task: Task, form: str = "contrast") -> Tensor:
    """Importance map (B, h, w), at least 0: how much each place is worth a region.

    Parameters
    ----------
    saliency : Tensor of shape (B, C, h, w)
        Saliency map S of each class, in logits.
    task : Task
        Type of task.
    form : {"contrast", "paper"}
        ``"contrast"``: how clearly a place speaks for some classes against others, the variance
        of S over the classes; for multi-label, whose labels do not exclude each other,
        the largest over the labels of S_c above its mean over the image. ``"paper"``: Σ_c of the
        maps, each min-max scaled to 0–1 (Shen et al., 2021). It was made for findings that are
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


def select_regions(
    importance: Tensor, n_regions: int, window: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Select the windows with the largest mean importance greedily, for all images at once.

    Parameters
    ----------
    importance : Tensor of shape (B, h, w)
        Importance map, at least 0.
    n_regions : int
        K, the number of windows; the importance in each is set to 0 before the next is chosen.
    window : tuple of int
        Height and width of a window, in cells.

    Returns
    -------
    Tensor of shape (B, K, 2)
        Row and column of the upper-left cell of each window; ties go to the first window in
        row-major order.
    Tensor of shape (B, K)
        Mean importance of each window when it was chosen.
    """
    height, width = importance.shape[1:]
    n_columns = width - window[1] + 1
    places = torch.arange((height - window[0] + 1) * n_columns, device=importance.device)
    in_rows = _in_window(places // n_columns, window[0], height)  # (windows, h)
    in_columns = _in_window(places % n_columns, window[1], width)
    found = []
    for _ in range(n_regions):
        means = F.avg_pool2d(importance[:, None], window, stride=1)
        largest, best = means.flatten(1).max(dim=1)
        chosen_cells = in_rows[best][:, :, None] & in_columns[best][:, None, :]
        importance = importance.masked_fill(chosen_cells, 0)
        found.append((best, largest))
    chosen, worth = (torch.stack(column, dim=1) for column in zip(*found, strict=True))
    return torch.stack([chosen // n_columns, chosen % n_columns], dim=-1), worth


def _in_window(first: Tensor, length: int, n_cells: int) -> Tensor:
    """Whether each of ``n_cells`` cells lies in each window: (windows,) → (windows, cells)."""
    cells = torch.arange(n_cells, device=first.device)
    return (cells >= first[:, None]) & (cells < first[:, None] + length)


def window_cells(
    region_size: tuple[int, int], image_size: tuple[int, int], map_size: tuple[int, int]
) -> tuple[int, int]:
    """Window size in cells for regions of p pixels: round(p·h/H) × round(p·w/W), at least 1 × 1.

    Raises
    ------
    InputError
        The region is larger than the image.
    """
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
    """Number of different windows in a map."""
    return (map_size[0] - window[0] + 1) * (map_size[1] - window[1] + 1)


def upper_left(cells: Tensor, map_size: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Map cells (..., 2) of a grid ``map_size`` to a grid ``size``: round(cell · H / h)."""
    # Integer tables with Python's rounding, since not every device supports float64.
    tables = [
        torch.tensor([round(cell * (side / n)) for cell in range(n)], device=cells.device)
        for n, side in zip(map_size, size, strict=True)
    ]
    return torch.stack([tables[0][cells[..., 0]], tables[1][cells[..., 1]]], dim=-1)


def crop(images: Tensor, corners: Tensor, size: tuple[int, int]) -> Tensor:
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
    crops = _pixels_at(images, rows.clamp(max=height - 1), columns.clamp(max=width - 1))
    inside = (rows < height)[..., None] & (columns < width)[:, :, None]
    minimum = images.amin(dim=(2, 3))[:, None, :, None, None]
    return torch.where(inside[:, :, None], crops, minimum)


def _pixels_at(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Pixels at rows (B, K, p) and columns (B, K, q) of each image: (B, K, C, p, q)."""
    batch = torch.arange(images.shape[0], device=images.device).view(-1, 1, 1, 1)
    pixels: Tensor = images[batch, :, rows[..., None], columns[:, :, None]]  # (B, K, p, q, C)
    return pixels.permute(0, 1, 4, 2, 3)


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
        self.channels = backbone.fine_channels
        self.map_size, self.fine_size = map_size, backbone.fine_size
        self.window = window_cells(region_size, image_size, self.fine_size)

    def forward(self, images: Tensor, maps: FeatureMaps, cells: Tensor) -> Tensor:
        """Features of each region, (B, K, D'): means of the finer map over its window."""
        means = F.avg_pool2d(maps.fine, self.window, stride=1)
        rows, columns = self._corners(cells).unbind(-1)
        batch = torch.arange(images.shape[0], device=images.device)[:, None]
        return means[batch, :, rows, columns]

    def boxes(self, cells: Tensor) -> Tensor:
        """Regions (B, K, 4) as x0, y0, x1, y1, as fractions of the image size."""
        return _fractions(self._corners(cells), self.window, self.fine_size)

    def _corners(self, cells: Tensor) -> Tensor:
        """Upper-left cells of the windows on the finer map, (B, K, 2)."""
        corners = upper_left(cells, self.map_size, self.fine_size)
        last = [size - side for size, side in zip(self.fine_size, self.window, strict=True)]
        return torch.minimum(corners, corners.new_tensor(last))


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
        """Regions (B, K, 4) as x0, y0, x1, y1, as fractions of the image size."""
        corners = upper_left(cells, self.map_size, self.image_size)
        return _fractions(corners, self.region_size, self.image_size).clamp(max=1)


class ZoomedCrops(nn.Module):
    """Regions as crops at the image's own resolution, encoded by the whole image's backbone.

    Whole images and crops pass through the same weights; running means and variances of batch norms
    are separate, because those of small crops differ.

    Parameters
    ----------
    backbone : Backbone
        Backbone for the crops, made by :meth:`Backbone.tied` for crops of ``region_size``.
    region_size, zoom_size : tuple of int
        Height and width of a crop, and of the images from which it is taken, in pixels.
    map_size : tuple of int
        Height and width of the saliency map, in cells.
    window : tuple of int
        Height and width of a window of the selection, in cells.
    """

    def __init__(
        self,
        backbone: Backbone,
        region_size: tuple[int, int],
        zoom_size: tuple[int, int],
        map_size: tuple[int, int],
        window: tuple[int, int],
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.channels = backbone.channels
        self.region_size, self.zoom_size = region_size, zoom_size
        self.map_size, self.window = map_size, window

    def forward(self, images: Tensor, maps: FeatureMaps | None, cells: Tensor) -> Tensor:
        """Pooled features of each crop, (B, K, D); images are those of ``zoom_size``."""
        corners = self._corners(cells)
        steps = [torch.arange(side, device=images.device) for side in self.region_size]
        rows, columns = corners[..., 0, None] + steps[0], corners[..., 1, None] + steps[1]
        crops = _pixels_at(images, rows, columns)
        features = self.backbone.pooled(crops.flatten(0, 1))
        return features.view(*crops.shape[:2], -1)

    def boxes(self, cells: Tensor) -> Tensor:
        """Regions (B, K, 4) as x0, y0, x1, y1, as fractions of the image size."""
        return _fractions(self._corners(cells), self.region_size, self.zoom_size)

    def _corners(self, cells: Tensor) -> Tensor:
        """Upper-left pixel of each crop, (B, K, 2): centred on its window, within the image."""
        axes = [
            torch.tensor(
                [
                    min(max(round((cell + length / 2) * side / n - crop / 2), 0), side - crop)
                    for cell in range(n)
                ],
                device=cells.device,
            )
            for n, length, side, crop in zip(
                self.map_size, self.window, self.zoom_size, self.region_size, strict=True
            )
        ]
        return torch.stack([axes[0][cells[..., 0]], axes[1][cells[..., 1]]], dim=-1)


def _fractions(corners: Tensor, side: tuple[int, int], whole: tuple[int, int]) -> Tensor:
    """Rectangles x0, y0, x1, y1 as fractions of the whole."""
    scale = torch.tensor(whole, device=corners.device)
    ends = corners + corners.new_tensor(side)
    return torch.cat([(corners / scale).flip(-1), (ends / scale).flip(-1)], dim=-1)
