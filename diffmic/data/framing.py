"""What the network sees of an image: the whole or its central square, resized with antialiasing."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..random import imported

_TOGETHER = 4  # channels: what torch's kernel for uint8 is fast for


def frames(sizes: Tensor, crop: str) -> Tensor:
    """The part of each image that the network sees, in pixels of the original image.

    Parameters
    ----------
    sizes : Tensor of shape (n, 2)
        Height and width of each image.
    crop : {"none", "square"}
        ``"none"``: the whole image. ``"square"``: the largest square in the centre (where the
        margins cannot be equal, the upper or left one is a pixel smaller).

    Returns
    -------
    Tensor of shape (n, 4)
        x0, y0, x1, y1 of each image.
    """
    seen = sizes if crop == "none" else sizes.amin(dim=1, keepdim=True).expand(-1, 2)
    start = (sizes - seen) // 2
    return torch.cat([start, start + seen], dim=1)[:, [1, 0, 3, 2]]


def cropped(image: Tensor, crop: str) -> Tensor:
    """The part of an image (C, H, W) that the network sees; see :func:`frames`."""
    if crop == "none":
        return image
    ((x0, y0, x1, y1),) = frames(torch.tensor([image.shape[1:]]), crop).tolist()
    return image[:, y0:y1, x0:x1]


def resized(image: Tensor, size: int) -> Tensor:
    """Image (C, H, W) resized to (C, size, size)."""
    if image.shape[1:] == (size, size):
        return image
    transforms = imported("torchvision.transforms.v2.functional")
    resized_image: Tensor = transforms.resize(image, [size, size], antialias=True)
    return resized_image


def made_small(image: Tensor, size: int) -> Tensor:
    """Image (C, H, W) made much smaller, as :func:`resized`, up to the rounding of uint8.

    torch resizes uint8 rows first, and ten times as slowly where channels are planes as where they
    are interleaved. The columns of a plane are resized first here, four beside each other as if
    they were channels; what is left to do is little.
    """
    rows, columns = image.shape[1], image.shape[2] // _TOGETHER * _TOGETHER
    planes = image.dtype == torch.uint8 and image.stride(2) == 1 and image.device.type == "cpu"
    if not planes or rows < 4 * size or columns == 0:
        return resized(image, size)
    parts = [_lower(image[:, :, :columns], _TOGETHER, size)]
    if left := image.shape[2] - columns:
        parts.append(_lower(image[:, :, columns:], left, size))
    return resized(torch.cat(parts, dim=2), size)


def _lower(image: Tensor, together: int, height: int) -> Tensor:
    """Image (C, H, W) resized to (C, height, W), ``together`` columns as if they were channels."""
    columns = image.view(*image.shape[:2], -1, together)  # (C, H, w, n)
    as_channels = columns.permute(0, 3, 1, 2)  # (C, n, H, w)
    found = F.interpolate(as_channels, (height, columns.shape[2]), mode="bilinear", antialias=True)
    return found.permute(0, 2, 3, 1).flatten(2)
