"""Reading one image as a tensor (C, H, W): uint8 or float in 0–1, with 1 or 3 channels."""

import os
import warnings
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import InputError
from .files import content_of, holds_content, read_content, read_image, read_pil
from .ranges import SIXTEEN_BITS, ValueRange, advice
from .reading import Note, Reading

CHANNELS = (1, 3)

_TOLERANCE = 1e-3  # overshoot of resampled float images that is not worth a word
_OVERSHOOT = 0.5  # above the overshoot of cubic interpolation, below that of normalised images
_MEAN_OVERSHOOT = 0.05  # per pixel; that of images that were normalised is larger
_FEW = 0.01  # share of pixels outside a range that was found
_LARGEST_CHUNK = 2**24  # pixels that are looked at together

__all__ = ["CHANNELS", "as_image", "as_tensor", "channels_first", "in_range", "read_image"]


def as_image(value: Any, *, name: str = "image", reading: Reading | None = None) -> Tensor:
    """Image from a PIL image, array, tensor, path or file, as a Tensor of shape (C, H, W).

    Parameters
    ----------
    value : PIL image, array, tensor, str, PathLike, bytes or file object
    name : str
        Name of the image in error messages.
    reading : Reading or None
        Range of pixel values; what is noticed is written into it. None: 8 bits, 16 bits, or floats
        in 0–1.

    Raises
    ------
    InputError
        Unknown type or shape, pixels out of range, or a file that cannot be read.
    """
    reading = Reading() if reading is None else reading
    if isinstance(value, (str, os.PathLike)):
        pixels, name = read_image(value, reading=reading), f"image file {os.fsdecode(value)!r}"
    elif isinstance(value, Image.Image):
        pixels = read_pil(value, name, reading)
    elif holds_content(value):
        pixels = read_content(content_of(value, name), name, reading)
    else:
        pixels = _from_array(value, name, reading)
    return in_range(pixels[None], reading, name=name)[0]


def _from_array(value: Any, name: str, reading: Reading) -> Tensor:
    if not isinstance(value, (np.ndarray, Tensor)):
        if not hasattr(value, "__array__") or np.isscalar(value):
            raise InputError(
                f"The {name} is a {type(value).__name__}; give an array, a tensor, a PIL image or "
                "a path."
            )
        value = np.asarray(value)
    image = as_tensor(value, any_type=reading.value_range is not None, name=name)
    if image.ndim == 2:
        image = image[None]
    if image.ndim != 3:
        raise InputError(
            f"The {name} has shape {tuple(image.shape)}; (C, H, W), (H, W, C) or (H, W) is needed."
        )
    return channels_first(image[None], name=name)[0]


def as_tensor(
    values: "np.ndarray | Tensor", *, any_type: bool = False, name: str | None = None
) -> Tensor:
    """Pixels as a plain tensor on the CPU: uint8, float32, or integers of more than 8 bits.

    Parameters
    ----------
    values : ndarray or Tensor
        Pixels; of a tensor's subclass the plain values are taken.
    any_type : bool
        Whether integers of any type are taken, because their range is known; else uint8 and uint16.
    name : str or None
        Name of a single image in error messages.

    Raises
    ------
    InputError
        Another type, whose range is not known; or masked, missing or complex values.
    """
    tensor: Tensor | None
    if isinstance(values, Tensor):
        tensor = _plain(values)
        known = tensor.dtype in (torch.uint8, torch.uint16)
        whole = not (tensor.is_floating_point() or tensor.is_complex())
        whole = whole and tensor.dtype != torch.bool
    else:
        if np.ma.is_masked(values):
            raise InputError(
                f"{_named(name)} masked pixels; give them a value: X.filled(0) for black."
            )
        known = values.dtype in (np.uint8, np.uint16)
        whole = values.dtype.kind in "iu"
        tensor = None if not (whole or values.dtype.kind == "f") else _from_numpy(values)
    if tensor is not None and tensor.is_floating_point():
        return tensor.float()
    if tensor is None or not whole or not (known or any_type):
        raise InputError(_unknown_type(values.dtype, name))
    return tensor


def _named(name: str | None) -> str:
    return "Images have" if name is None else f"The {name} has"


def _unknown_type(dtype: Any, name: str | None) -> str:
    found = f"{_named(name)} the type {dtype}, whose range is not known. "
    kind = str(dtype).removeprefix("torch.")
    if kind == "bool":
        return found + "Scale it to uint8 (0–255): X.astype('uint8') * 255, or to float (0–1)."
    if kind.startswith(("int", "uint")):
        return found + (
            "Scale them to uint8 (0–255) or to float (0–1), or pass "
            "DiffMICClassifier(value_range=(low, high)) with the values of black and white, such "
            "as (-1000, 400) for CT in Hounsfield units. For unsigned images of 16 bits: "
            "X.astype('uint16')."
        )
    return found + (
        "Give numbers, as uint8 (0–255) or float (0–1); a list for images of several sizes."
    )


def _plain(tensor: Tensor) -> Tensor:
    """Values of a tensor of any layout, device and subclass, without its gradient."""
    if tensor.device.type == "meta":
        raise InputError("Images are tensors on the device 'meta', which have no values.")
    if getattr(tensor, "is_nested", False):
        raise InputError("Images are a nested tensor; give a list of tensors: X.unbind().")
    with torch.no_grad():
        tensor = tensor.detach()
        if tensor.is_quantized:
            tensor = tensor.dequantize()
        if tensor.layout != torch.strided:
            tensor = tensor.to_dense()
        return tensor.as_subclass(Tensor).cpu().resolve_conj().resolve_neg()


def _from_numpy(values: "np.ndarray") -> Tensor:
    kind = values.dtype.kind
    dtype = np.dtype(np.float32) if kind == "f" else values.dtype.newbyteorder("=")
    if dtype in (np.uint32, np.uint64):
        dtype = np.dtype(np.int64)
    values = np.ascontiguousarray(np.asarray(values), dtype=dtype)
    if min(values.strides, default=0) < 0:  # along an axis of length 1, which NumPy passes over
        values = values.copy()
    with warnings.catch_warnings():
        # Images are only read, so a read-only array (such as a memory map) needs no copy.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(values)


def channels_first(images: Tensor, *, name: str | None = None) -> Tensor:
    """(n, C, H, W) or (n, H, W, C) → (n, C, H, W), with 1 or 3 channels."""
    if images.shape[1] in CHANNELS:
        return images
    if images.shape[3] in CHANNELS:
        return images.permute(0, 3, 1, 2)
    raise InputError(
        f"{_named(name)} shape {tuple(images.shape[1:])}; 1 (gray) or 3 (RGB) channels are needed, "
        "first or last. Choose or combine channels before passing them."
    )


def in_range(
    images: Tensor, reading: Reading, *, name: str | None = None, first: int = 0
) -> Tensor:
    """The images (n, C, H, W) as uint8 or float in 0–1.

    Parameters
    ----------
    images : Tensor of shape (n, C, H, W)
        uint8 is returned as it is.
    reading : Reading
        Range of pixel values; what is noticed is written into it.
    name : str or None
        Name of a single image in error messages; None: images are numbered from ``first``.

    Raises
    ------
    InputError
        Images without pixels, with NaN or infinity, or outside 0–1 without a range.
    """
    if images.shape[2] == 0 or images.shape[3] == 0:
        raise InputError(
            f"{'Images' if name is None else f'The {name}'} of shape {tuple(images.shape[1:])} "
            "without pixels: height and width must be at least 1."
        )
    if images.dtype == torch.uint8 or images.numel() == 0:
        return images
    value_range, floats = reading.value_range, images.is_floating_point()
    low, high = extremes(images)
    if floats and not (low.isfinite() & high.isfinite()).all():
        bad = ~(low.isfinite() & high.isfinite())
        where = name or f"image {first + int(bad.nonzero()[0])}"
        raise InputError(
            f"Pixels are NaN or infinite, first in {where}. Remove the image or replace these "
            "pixels."
        )
    if value_range is not None and (value_range.given or not floats):
        return _scaled(images, value_range, reading)
    if floats:
        return _unit_floats(images, low, high, reading, name, first)
    lowest, highest = float(low.min()), float(high.max())
    if reading.raw:
        reading.extremes = lowest, highest
        return images
    return _sixteen_bits(images, lowest, highest, name)


def extremes(images: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest and largest value of each image (n, C, H, W), float64 of shape (n,)."""
    found = []
    step = max(1, _LARGEST_CHUNK // max(1, images[0].numel()))
    for start in range(0, len(images), step):
        part = images[start : start + step]
        part = part.int() if part.dtype == torch.uint16 else part  # it has no aminmax
        found.append(torch.stack(part.flatten(1).aminmax(dim=1)).double())
    low, high = torch.cat(found, dim=1)
    return low, high


def _scaled(images: Tensor, value_range: ValueRange, reading: Reading) -> Tensor:
    scaled = value_range.scaled(images)
    flat, before = scaled.flatten(1), images.flatten(1)
    if value_range.given:  # clipping is meant, unless nothing of an image is left
        outside = (flat.amax(dim=1) == flat.amin(dim=1)) & (before != before[:, :1]).any(dim=1)
    else:
        values = before.float()
        beyond = (values < value_range.low) | (values > value_range.high)
        outside = beyond.float().mean(dim=1) > _FEW
    if outside.any():
        reading.note(Note.OUTSIDE, int(outside.sum()))
    return scaled


def _unit_floats(
    images: Tensor, low: Tensor, high: Tensor, reading: Reading, name: str | None, first: int
) -> Tensor:
    """Floats in 0–1: those that lie a little outside are clipped, others are refused."""
    outside = (low < -_TOLERANCE) | (high > 1 + _TOLERANCE)
    for index in outside.nonzero().flatten().tolist():
        image = images[index]
        beyond = float((image - image.clamp(0, 1)).abs().mean())
        little = low[index] >= -_OVERSHOOT and high[index] <= 1 + _OVERSHOOT
        if not little or beyond > _MEAN_OVERSHOOT:
            lowest, highest = float(low.min()), float(high.max())
            where = name or f"image {first + index}"
            raise InputError(
                f"Float images must lie in 0–1; found {lowest:.3g} to {highest:.3g}. "
                f"{advice(lowest, highest)} The first such image: {where}."
            )
        reading.note(Note.CLIPPED)
    return images.clamp(0, 1) if low.min() < 0 or high.max() > 1 else images


def _sixteen_bits(images: Tensor, low: float, high: float, name: str | None) -> Tensor:
    """Integers of 16 bits, for a model that was fitted without any: they are divided by 65535."""
    known = images.dtype == torch.uint16 or high == 0 or 255 < high <= SIXTEEN_BITS
    if low < 0 or not known:
        raise InputError(
            f"{_named(name)} integer pixels from {low:g} to {high:g}; their range is not known: "
            "convert them to 8 bits (mode L, uint8), 16 bits (mode I;16, uint16) or floats in 0–1, "
            "or fit with DiffMICClassifier(value_range=(low, high))."
        )
    return images.float().div_(SIXTEEN_BITS)
