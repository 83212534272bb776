"""Which part of an image the network sees: the whole image, or its central square."""

import torch
from torch import Tensor


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
