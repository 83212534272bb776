"""Large images: reduced while they are decoded, and looked at in parts."""

import math
from collections.abc import Iterator

import torch
from PIL import Image
from torch import Tensor

from .reading import Reading

ENOUGH = 4  # times the side that is needed: no image is reduced below that
LEAST = 2  # times the side that is needed, if it would still have more than MOST pixels
MOST = 2**25
_AVERAGE, _BETWEEN = Image.Resampling.BOX, Image.Resampling.BILINEAR
_PLAIN = ("L", "RGB", "CMYK", "YCbCr")  # modes of 8 bits whose pixels can be averaged
_LARGEST_PART = 2**24  # values that are looked at together


def decode_reduced(image: Image.Image, reading: Reading) -> None:
    """Have a JPEG that is larger than needed decoded at 1/2, 1/4 or 1/8 of its size."""
    width, height = image.size
    least = _least(height, width, reading)
    if least is not None and image.format in ("JPEG", "MPO") and image.mode in _PLAIN:
        image.draft(None, (least, least))  # type: ignore[no-untyped-call, unused-ignore]
        reading.full_size = height, width


def reduced(image: Image.Image, reading: Reading) -> Image.Image:
    """An image of 8 bits that is larger than needed, averaged over blocks of pixels."""
    if reading.full_size is None:
        if image.mode not in _PLAIN or "transparency" in image.info:
            return image
        if _least(image.height, image.width, reading) is None:
            return image
        reading.full_size = image.height, image.width
    height, width = reading.full_size
    least = _least(height, width, reading) or 1
    scale = 2 ** round(math.log2(width / image.width))  # at which it was decoded
    # Rows and columns at the ends may be padded: sides are rounded up when they are halved.
    box = (0, 0, width / scale, height / scale)
    factor = max(1, int(min(box[2:]) // least))
    if factor == 1 and box[2:] == image.size:
        return image
    size = max(least, round(box[2] / factor)), max(least, round(box[3] / factor))
    return image.resize(size, _AVERAGE if factor > 1 else _BETWEEN, box)


def parts_of(images: Tensor) -> Iterator[Tensor]:
    """Images (n, C, H, W) some rows at a time, of a single image if it is large, (k, C, h, W)."""
    n_values = max(1, images[0].numel())
    together = max(1, _LARGEST_PART // n_values)
    rows = max(1, _LARGEST_PART * images.shape[2] // n_values)
    for some in torch.split(images, together):
        yield from torch.split(some, rows, dim=2) if len(some) == 1 else (some,)


def _least(height: int, width: int, reading: Reading) -> int | None:
    """Smallest side to which an image may be reduced; None: it is not much larger than that."""
    if reading.side is None:
        return None
    for enough in (ENOUGH, LEAST):
        least = enough * reading.side
        factor = max(1, min(height, width) // least)
        if height * width <= MOST * factor**2:
            break
    return least if factor > 1 else None
