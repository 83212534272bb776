"""Reading one image as a tensor (C, H, W): uint8 or float in 0–1, with 1 or 3 channels."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..errors import InputError

CHANNELS = (1, 3)
_RANGE_TOLERANCE = 1e-3  # allowed overshoot of resampled float images


def as_image(value: Any, *, name: str = "image") -> Tensor:
    """Image from a PIL image, array, tensor or path, as a Tensor of shape (C, H, W).

    Raises
    ------
    InputError
        Unknown type or shape, or pixels out of range; the message calls the image ``name``.
    """
    if isinstance(value, (str, Path)):
        return read_image(value)
    if isinstance(value, Image.Image):
        return _from_pil(value)
    if not isinstance(value, (np.ndarray, Tensor)):
        raise InputError(
            f"The {name} is a {type(value).__name__}; give an array, a tensor, a PIL image or a "
            "path."
        )
    image = as_tensor(value)
    if image.ndim == 2:
        image = image[None]
    if image.ndim != 3:
        raise InputError(
            f"The {name} has shape {tuple(image.shape)}; (C, H, W), (H, W, C) or (H, W) is needed."
        )
    image = channels_first(image[None])[0]
    return checked_range(image[None], name=name)[0]


def as_tensor(values: "np.ndarray | Tensor") -> Tensor:
    """Pixels as uint8 or float32; other integer types are refused, as their range is unknown."""
    if isinstance(values, Tensor):
        known, floating = values.dtype == torch.uint8, values.is_floating_point()
    else:
        known, floating = values.dtype == np.uint8, values.dtype.kind == "f"
    if not (known or floating):
        raise InputError(
            f"Images have the type {values.dtype}, whose range is not known. Scale them to uint8 "
            "(0–255) or to float (0–1); for 16-bit images: X.astype('float32') / 65535 "
            "(or / 4095 if they use only 12 bits)."
        )
    if isinstance(values, Tensor):
        tensor = values.detach().cpu()
        return tensor.float() if floating else tensor
    values = np.ascontiguousarray(values, dtype=np.float32 if floating else np.uint8)
    with warnings.catch_warnings():
        # Images are only read, so a read-only array (such as a memory map) needs no copy.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(values)


def channels_first(images: Tensor) -> Tensor:
    """(n, C, H, W) or (n, H, W, C) → (n, C, H, W), with 1 or 3 channels."""
    if images.shape[1] in CHANNELS:
        return images
    if images.shape[3] in CHANNELS:
        return images.permute(0, 3, 1, 2)
    raise InputError(
        f"Images have shape {tuple(images.shape[1:])}; 1 (gray) or 3 (RGB) channels are needed, "
        "first or last. Choose or combine channels before passing them."
    )


def checked_range(images: Tensor, *, name: str | None = None) -> Tensor:
    """The images (n, C, H, W), after a check that float pixels lie in 0–1.

    Parameters
    ----------
    images : Tensor of shape (n, C, H, W)
    name : str or None
        Name of a single image in error messages.

    Raises
    ------
    InputError
        Images without pixels, with NaN or infinity, or outside 0–1.
    """
    if images.shape[2] == 0 or images.shape[3] == 0:
        raise InputError(
            f"{(name or 'images').capitalize()} of shape {tuple(images.shape[1:])} without pixels: "
            "height and width must be at least 1."
        )
    if not images.is_floating_point() or images.numel() == 0:
        return images
    flat = images.flatten(1)
    finite = torch.isfinite(flat).all(dim=1)
    if not finite.all():
        first = name or f"image {int((~finite).nonzero()[0])}"
        raise InputError(
            f"Pixels are NaN or infinite, first in {first}. Remove the image or replace these "
            "pixels."
        )
    low, high = float(flat.min()), float(flat.max())
    if low < -_RANGE_TOLERANCE:
        raise InputError(
            f"Float images must lie in 0–1; found {low:.3g} to {high:.3g}. They look normalised "
            "already: pass them without Normalize; the model normalises them itself."
        )
    if high > 1 + _RANGE_TOLERANCE:
        raise InputError(
            f"Float images must lie in 0–1; found {low:.3g} to {high:.3g}. Divide them by their "
            "largest possible value (255 for 8-bit images) or pass them as uint8."
        )
    return images.clamp(0, 1)


def read_image(path: str | Path) -> Tensor:
    """Decode an image file; error messages name the file."""
    with _opened(path) as image:
        return _from_pil(image)


def check_image_file(path: str | Path) -> None:
    """Check by its header that a file is an image, without decoding it."""
    with _opened(path):
        return


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as image:
            yield image
    except InputError as reason:
        raise InputError(f"The image file {str(path)!r}: {reason}") from reason
    except FileNotFoundError as reason:
        raise InputError(f"The image file {str(path)!r} does not exist.") from reason
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as reason:
        raise InputError(
            f"The file {str(path)!r} is not an image that can be read: {reason}"
        ) from reason


def _from_pil(image: Image.Image) -> Tensor:
    image = ImageOps.exif_transpose(image)  # upright, as an image viewer shows it
    if image.mode.startswith("I") or image.mode == "F":
        pixels = np.array(image, dtype=np.float32)
        if image.mode != "F":  # 16-bit gray, whichever mode Pillow gives it
            if image.mode == "I" and pixels.any() and not 255 < pixels.max() <= 65535:
                raise InputError(
                    f"32-bit pixels of at most {pixels.max():g}: their range is not known. Convert "
                    "them to 8 bits (mode L), 16 bits (mode I;16) or to floats in 0–1."
                )
            pixels /= 65535
        return checked_range(torch.from_numpy(pixels)[None, None])[0]
    gray = image.mode in ("1", "L", "LA")
    pixels = np.array(image.convert("L" if gray else "RGB"))
    return torch.from_numpy(pixels).view(image.height, image.width, -1).permute(2, 0, 1)
