"""Pixels of a PIL image of any mode; what of it is left out is noted."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageCms
from torch import Tensor

from ..depth import bits_of_tiff, own_range
from ..errors import InputError
from ..random import imported
from .large import reduced
from .reading import Note, Reading

_GRAY = ("1", "L", "LA", "La")
_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
_PHOTOMETRIC, _BITS, _SAMPLE_FORMAT, _PLANAR, _MAX_SAMPLE = 262, 258, 339, 284, 281
_S_MIN, _S_MAX = 340, 341
_ORIENTATION = 274
_UPRIGHT = {  # how an image of each orientation is turned, as an image viewer shows it
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LYING = (5, 6, 7, 8)
_ADVICE = "Read it with another reader, for example tifffile.imread(file), and pass the array."


def pixels_of(image: Image.Image, reading: Reading, bits: int = 0) -> Tensor:
    """Pixels (C, H, W) of a PIL image: uint8, float32, or integers of more than 8 bits.

    Of several frames the one at which the image stands is taken; transparent pixels are shown on
    black; palettes, CMYK, YCbCr, HSV and LAB become RGB; where white is zero, pixels are inverted.
    Images that are much larger than needed are reduced; see :func:`~diffmic.data.large.reduced`.
    ``bits``: those that a PNG says it uses; 0: it says nothing, or is none.

    Raises
    ------
    InputError
        Pillow would read other values than the file holds.
    """
    if getattr(image, "is_animated", False) and image.format != "PSD" and image.tell() == 0:
        reading.note(Note.FRAMES)
    tags = getattr(image, "tag_v2", None) or {}
    _check_samples(image, tags, reading)
    white = _white(image, tags, reading)
    orientation = image.getexif().get(_ORIENTATION, 1)
    upright = reduced(image, reading)
    if orientation in _UPRIGHT:
        upright = upright.transpose(_UPRIGHT[orientation])
    if orientation in _LYING and reading.full_size is not None:
        reading.full_size = reading.full_size[::-1]
    if upright.mode.startswith("I") or upright.mode == "F":
        dtype = {"F": np.float32, "I": np.int32}.get(upright.mode, np.uint16)
        pixels = np.array(upright, dtype=dtype)
        pixels = pixels if white is None else _inverted(pixels, white)
        reading.own = own_range(pixels, bits or bits_of_tiff(tags), shifted=bits > 0)
        return torch.from_numpy(pixels)[None]
    gray = upright.mode in _GRAY
    shown = _without_alpha(upright, gray, reading)
    return torch.from_numpy(shown).view(upright.height, upright.width, -1).permute(2, 0, 1)


def hidden_depth(image: Image.Image) -> bool:
    """Whether a colour or transparent PNG has 16 bits, which Pillow reduces to 8."""
    return image.format == "PNG" and any(
        ";16" in str(tile[3])
        for tile in getattr(image, "tile", ())
        if image.mode in ("RGB", "RGBA", "LA")
    )


def deep_png(content: bytes, reading: Reading, bits: int = 0) -> Tensor | None:
    """All 16 bits of a colour PNG, (C, H, W); None: torchvision cannot read PNG here.

    ``bits``: those that the file says it uses; 0: it says nothing.
    """
    io = imported("torchvision.io")

    data = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    try:
        pixels = io.decode_image(data, io.ImageReadMode.UNCHANGED, apply_exif_orientation=True)
    except (AttributeError, RuntimeError):
        return None
    if pixels.dtype != torch.uint16:
        return None
    values = pixels.numpy()
    if len(values) in (2, 4):
        values = _on_black(values[:-1], values[-1], 65535, reading)
    reading.own = own_range(values, bits, shifted=True)
    return torch.from_numpy(np.ascontiguousarray(values))


def _check_samples(image: Image.Image, tags: Mapping[int, Any], reading: Reading) -> None:
    """Note or refuse samples that Pillow reads as bytes, though they are something else."""
    if image.mode.startswith("I") or image.mode == "F":
        return
    bits = max(tags.get(_BITS) or (8,))
    if bits > 8 and tags.get(_PLANAR) == 2:
        raise InputError(
            f"It is a TIFF of {bits} bits with separate planes, which Pillow misreads. {_ADVICE}"
        )
    if bits == 8 and 2 in (tags.get(_SAMPLE_FORMAT) or ()):
        raise InputError(f"It is a TIFF of signed bytes, which Pillow reads as unsigned. {_ADVICE}")
    if bits > 8 or hidden_depth(image):
        reading.note(Note.BITS)


def _inverted(pixels: NDArray[Any], sum_of_ends: float) -> NDArray[Any]:
    """Pixels subtracted from the sum of black and white, in their type."""
    inverse = sum_of_ends - pixels.astype(np.float64)
    if pixels.dtype.kind != "f":
        limits = np.iinfo(pixels.dtype)
        inverse = np.rint(inverse).clip(limits.min, limits.max)
    return inverse.astype(pixels.dtype)


def _white(image: Image.Image, tags: Mapping[int, Any], reading: Reading) -> float | None:
    """Sum of the values of black and white in a TIFF whose white is zero, which Pillow leaves so.

    It is that of the range that the user gave, else of all bits. None: not such a TIFF.
    """
    if tags.get(_PHOTOMETRIC) != 0 or not (image.mode.startswith("I") or image.mode == "F"):
        return None
    if reading.value_range is not None and reading.value_range.given:
        return reading.value_range.low + reading.value_range.high
    if image.mode == "F":
        return 1
    bits, largest = max(tags.get(_BITS) or (16,)), tags.get(_MAX_SAMPLE) or tags.get(_S_MAX)
    if largest:
        return int(max(largest) if isinstance(largest, tuple) else largest)
    if bits > 16:
        raise InputError(f"It is a TIFF of {bits} bits in which zero is white. {_ADVICE}")
    return int(2**bits - 1)


def _without_alpha(image: Image.Image, gray: bool, reading: Reading) -> NDArray[np.uint8]:
    """Pixels (H, W) or (H, W, 3) of an image of bytes, with transparent pixels on black."""
    if image.mode in _ALPHA or "transparency" in image.info:
        image = image.convert("LA" if gray else "RGBA")
        values = np.array(image)
        shown = _on_black(np.moveaxis(values[..., :-1], 2, 0), values[..., -1], 255, reading)
        return np.ascontiguousarray(np.moveaxis(shown, 0, 2))
    if image.mode == "LAB":
        lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(lab, rgb, "LAB", "RGB")
        image = ImageCms.applyTransform(image, transform) or image
    mode = "L" if gray else "RGB"
    return np.array(image if image.mode == mode else image.convert(mode))


def _on_black(
    values: NDArray[Any], alpha: NDArray[Any], opaque: int, reading: Reading
) -> NDArray[Any]:
    """Colours (C, H, W) on black, by their alpha (H, W)."""
    if alpha.size == 0 or alpha.min() == opaque:
        return values
    reading.note(Note.ALPHA)
    shares = alpha.astype(np.uint32)
    shown: NDArray[Any] = ((values * shares + opaque // 2) // opaque).astype(values.dtype)
    return shown
