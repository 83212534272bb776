"""Zoom: regions as crops of the original image, read at its own resolution."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..random import imported
from .backbone import Backbone, FeatureMaps
from .regions import Corners, Size, fractions, pixels_at, resampled

Box = tuple[int, int, int, int]  # y0, y1, x0, x1


class ZoomedCrops(nn.Module):
    """Regions as crops at the image's own resolution, encoded by the whole image's backbone.

    Whole images and crops pass through the same weights; running means and variances of batch norms
    are separate, because those of small crops differ.

    A crop is a fixed share of the height and of the width of an image, ``region_size`` of
    ``zoom_size``. It is cut from the original image, in whole pixels, and resized to
    ``region_size`` if it has another size: images of several sizes show a region at the same scale,
    each as sharp as it is, and only the crops are resized, however large the images are.

    Parameters
    ----------
    backbone : Backbone
        Backbone for the crops, made by :meth:`Backbone.tied` for crops of ``region_size``.
    region_size, zoom_size : tuple of int
        Height and width of a crop, and of an image from which it is cut as it is, in pixels.
    map_size : tuple of int
        Height and width of the map on which regions are chosen, in cells.
    window : tuple of int
        Height and width of a window of the choice, in cells; the crop covers it.
    """

    def __init__(
        self,
        backbone: Backbone,
        region_size: Size,
        zoom_size: Size,
        map_size: Size,
        window: Size,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.channels = backbone.channels
        self.region_size, self.zoom_size = region_size, zoom_size
        self.map_size = map_size
        # Centred on its window, within the image.
        self.corners = Corners(
            *(
                [
                    min(max(round((cell + length / 2) * side / n - crop / 2), 0), side - crop)
                    for cell in range(n)
                ]
                for n, length, side, crop in zip(
                    map_size, window, zoom_size, region_size, strict=True
                )
            )
        )

    def forward(
        self, images: Tensor | Sequence[Tensor], maps: FeatureMaps | None, cells: Tensor
    ) -> Tensor:
        """Pooled features of each crop, (B, K, D).

        Parameters
        ----------
        images : Tensor of shape (B, 3, H, W), or sequence of B tensors of shape (C, H, W)
            Original images with 1 or 3 channels, each of its own size: uint8, or float in 0–1.
        maps : FeatureMaps or None
            Not used.
        cells : Tensor of shape (B, K, 2)
            Upper-left cell of each region.
        """
        if self._as_they_are(images):
            corners = self.corners(cells)
            steps = [torch.arange(side, device=cells.device) for side in self.region_size]
            rows, columns = corners[..., 0, None] + steps[0], corners[..., 1, None] + steps[1]
            crops = pixels_at(images, rows, columns).flatten(0, 1)  # type: ignore[arg-type]
        else:
            crops = self._cut(images, self._places(images, cells))
        return self._encoded(crops).view(*cells.shape[:2], -1)

    def in_boxes(
        self, images: Tensor | Sequence[Tensor], maps: FeatureMaps | None, boxes: Tensor
    ) -> Tensor:
        """Features (B, K, D) of boxes (B, K, 4), x0, y0, x1, y1 as fractions of each image."""
        if isinstance(images, Tensor):
            crops = resampled(images, boxes, self.region_size)
            return self.backbone.pooled(crops).view(*boxes.shape[:2], -1)
        places = []
        for image, found in zip(images, boxes.tolist(), strict=True):
            height, width = image.shape[1:]
            places.append(
                [(*_pixels(y0, y1, height), *_pixels(x0, x1, width)) for x0, y0, x1, y1 in found]
            )
        return self._encoded(self._cut(images, places)).view(*boxes.shape[:2], -1)

    def boxes(self, cells: Tensor, images: Tensor | Sequence[Tensor]) -> Tensor:
        """The crops (B, K, 4) as x0, y0, x1, y1, as fractions of the size of each image."""
        if self._as_they_are(images):
            return fractions(self.corners(cells), self.region_size, self.zoom_size)
        found = []
        for image, places in zip(images, self._places(images, cells), strict=True):
            height, width = image.shape[1:]
            found.append(
                [(x0 / width, y0 / height, x1 / width, y1 / height) for y0, y1, x0, x1 in places]
            )
        return torch.tensor(found, device=cells.device)

    def _as_they_are(self, images: Tensor | Sequence[Tensor]) -> bool:
        return isinstance(images, Tensor) and images.shape[2:] == self.zoom_size

    def _places(self, images: Tensor | Sequence[Tensor], cells: Tensor) -> list[list[Box]]:
        """Place of each crop in the pixels of its image."""
        return [
            [self._place(corner, (image.shape[1], image.shape[2])) for corner in corners]
            for image, corners in zip(images, self.corners(cells).tolist(), strict=True)
        ]

    def _place(self, corner: tuple[int, int], size: Size) -> Box:
        edges = []
        for first, side, crop, whole in zip(
            corner, size, self.region_size, self.zoom_size, strict=True
        ):
            length = max(1, round(crop * side / whole))
            start = min(round(first * side / whole), side - length)
            edges += [start, start + length]
        y0, y1, x0, x1 = edges
        return y0, y1, x0, x1

    def _cut(self, images: Tensor | Sequence[Tensor], places: list[list[Box]]) -> Tensor:
        """Crops (B·K, 3, height, width) of images (C, H, W)."""
        transforms = imported("torchvision.transforms.v2.functional")
        size, found = list(self.region_size), []
        for image, boxes in zip(images, places, strict=True):
            for y0, y1, x0, x1 in boxes:
                crop = image[:, y0:y1, x0:x1]
                if crop.shape[1:] != self.region_size:
                    crop = transforms.resize(crop, size, antialias=True)
                found.append(crop.expand(3, -1, -1))
        if len({crop.dtype for crop in found}) > 1:
            found = [_unit_range(crop) for crop in found]
        return torch.stack(found)

    def _encoded(self, crops: Tensor) -> Tensor:
        crops = _unit_range(crops).contiguous(memory_format=torch.channels_last)
        return self.backbone.pooled(crops)


def of_one_size(images: Tensor | Sequence[Tensor], size: Size) -> Tensor:
    """Images (C, H, W) resized to (B, 3, *size), float in 0–1."""
    transforms = imported("torchvision.transforms.v2.functional")
    found = [transforms.resize(image, list(size), antialias=True) for image in images]
    return torch.stack([_unit_range(image).expand(3, -1, -1) for image in found])


def _pixels(start: float, end: float, side: int) -> tuple[int, int]:
    """The pixels of a side that lie between two fractions of it, at least one."""
    first = min(max(round(start * side), 0), side - 1)
    return first, min(max(round(end * side), first + 1), side)


def zoomed_window(region_size: Size, zoom_size: Size, map_size: Size) -> Size:
    """Largest window of the choice, in cells, that a zoomed region covers.

    An InputError is raised if a region is smaller than a cell: what is chosen would not be read.
    """
    sizes = list(zip(region_size, zoom_size, map_size, strict=True))
    height, width = (crop * cells // side for crop, side, cells in sizes)
    if height and width:
        return height, width
    cell = max(-(-side // cells) for _, side, cells in sizes)
    largest = min(crop * cells for crop, _, cells in sizes)
    rows, columns = map_size
    raise InputError(
        f"region_size is {region_size[0]}, but regions are chosen to within one of {rows} × "
        f"{columns} cells, each of {cell} pixels of the zoom_size of {zoom_size[0]}. Set "
        f"region_size to at least {cell}, zoom_size to at most {largest}, or region_size='auto'."
    )


def _unit_range(pixels: Tensor) -> Tensor:
    return pixels if pixels.is_floating_point() else pixels.float().div_(255)
