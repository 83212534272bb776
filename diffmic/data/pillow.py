"""Pixels of a PIL image of any mode."""

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from .reading import Reading


def pixels_of(image: Image.Image, reading: Reading) -> Tensor:
    """Pixels (C, H, W) of a PIL image: uint8, float32, or integers of more than 8 bits."""
    image = ImageOps.exif_transpose(image)  # upright, as an image viewer shows it
    if image.mode.startswith("I") or image.mode == "F":
        dtype = {"F": np.float32, "I": np.int32}.get(image.mode, np.uint16)
        return torch.from_numpy(np.array(image, dtype=dtype))[None]
    gray = image.mode in ("1", "L", "LA")
    pixels = np.array(image.convert("L" if gray else "RGB"))
    return torch.from_numpy(pixels).view(image.height, image.width, -1).permute(2, 0, 1)
