"""Reading one image as a tensor (C, H, W): uint8 or float in 0–1, with 1 or 3 channels."""

import os
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..depth import UNKNOWN, applied_range
from ..errors import InputError
from .arrays import CHANNELS, array_image, as_tensor, channels_first, subject
from .files import content_of, holds_content, read_content, read_image, read_pil
from .large import parts_of
from .ranges import OVERSHOOT, SIXTEEN_BITS, ValueRange, advice
from .reading import Note, Reading

_TOLERANCE = 1e-3  # overshoot of resampled float images that is not worth a word
_MEAN_OVERSHOOT = 0.05  # per pixel; that of images that were normalised is larger
_FEW = 0.01  # share of pixels outside a range that was found

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
    pixels, name = unscaled(value, name, reading)
    return in_range(pixels[None], reading, name=name)[0]


def unscaled(value: Any, name: str, reading: Reading) -> tuple[Tensor, str]:
    """Pixels (C, H, W) of an image as :func:`as_image` takes it, before their range; its name."""
    if isinstance(value, InputError):  # in the place of an image that could not be read
        raise value
    if isinstance(value, (str, os.PathLike)):
        if not os.fsdecode(value).strip():
            raise InputError(f"The path of {name} is empty. Leave it out, with its label.")
        return read_image(value, reading=reading), f"image file {os.fsdecode(value)!r}"
    if isinstance(value, Image.Image):
        return read_pil(value, name, reading), name
    if holds_content(value):
        return read_content(content_of(value, name), name, reading), name
    return array_image(value, name, reading), name


def in_range(
    images: Tensor, reading: Reading, *, name: str | None = None, first: int = 0
) -> Tensor:
    """The images (n, C, H, W) as uint8 or float in 0–1.

    uint8 is returned as it is. What is noticed is written into ``reading``. ``name`` is that of a
    single image in error messages; None: images are numbered from ``first``. An InputError says
    that there are no pixels, NaN or infinity, or, without a range, values outside 0–1.
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
    if floats and (value_range is None or not value_range.given):
        return _unit_floats(images, low, high, reading, name, first)
    if value_range is None and reading.raw:
        reading.extremes = low, high
        return images
    if (value_range := _applied(value_range, reading)) is not None:
        return _scaled(images, value_range, reading)
    return _sixteen_bits(images, float(low.min()), float(high.max()), name, reading)


def _applied(value_range: ValueRange | None, reading: Reading) -> ValueRange | None:
    """Range for the pixels of an image: that which is given or was found, or the file's own."""
    if value_range is not None and value_range.given:
        return value_range
    found = None if value_range is None else (value_range.low, value_range.high)
    applied = applied_range(found, reading.own)
    return value_range if applied == found or applied is None else ValueRange(*applied)


def extremes(images: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest and largest value of each image (n, C, H, W), float64 of shape (n,)."""
    found: list[Tensor] = []
    for part in parts_of(images):
        unsigned = part.dtype in (torch.uint16, torch.uint32, torch.uint64)
        part = part.double() if unsigned else part  # these have no aminmax
        found.append(torch.stack(part.flatten(1).aminmax(dim=1)).double())
    low, high = torch.cat(found, dim=1)
    if len(low) > len(images):  # some rows of each image
        low, high = low.view(len(images), -1).amin(dim=1), high.view(len(images), -1).amax(dim=1)
    return low, high


def _scaled(images: Tensor, value_range: ValueRange, reading: Reading) -> Tensor:
    scaled = value_range.scaled(images)
    flat, before = scaled.flatten(1), images.flatten(1)
    if value_range.given:  # clipping is meant, unless nothing of an image is left
        outside = (flat.amax(dim=1) == flat.amin(dim=1)) & (before != before[:, :1]).any(dim=1)
    else:
        counts = [_n_outside(part, value_range) for part in parts_of(images)]
        n_outside = torch.cat(counts).view(len(images), -1).sum(dim=1)
        outside = n_outside > _FEW * images[0].numel()
    for place in outside.nonzero().flatten().tolist():
        reading.note(Note.OUTSIDE, place)
    return scaled


def _n_outside(images: Tensor, value_range: ValueRange) -> Tensor:
    """Number of pixels of each image outside a range."""
    values = images.flatten(1).float()
    return ((values < value_range.low) | (values > value_range.high)).sum(dim=1)


def _unit_floats(
    images: Tensor, low: Tensor, high: Tensor, reading: Reading, name: str | None, first: int
) -> Tensor:
    """Floats in 0–1: those that lie a little outside are clipped, others are refused."""
    outside = (low < -_TOLERANCE) | (high > 1 + _TOLERANCE)
    for index in outside.nonzero().flatten().tolist():
        image = images[index]
        beyond = float((image - image.clamp(0, 1)).abs().mean())
        little = low[index] >= -OVERSHOOT and high[index] <= 1 + OVERSHOOT
        if not little or beyond > _MEAN_OVERSHOOT:
            lowest, highest = float(low.min()), float(high.max())
            where = name or f"image {first + index}"
            raise InputError(
                f"Float images must lie in 0–1; found {lowest:.4g} to {highest:.4g}. "
                f"{advice(lowest, highest)} The first such image: {where}."
            )
        reading.note(Note.CLIPPED, index)
    return images.clamp(0, 1) if low.min() < 0 or high.max() > 1 else images


def _sixteen_bits(
    images: Tensor, low: float, high: float, name: str | None, reading: Reading
) -> Tensor:
    """Integers of 16 bits, for a model that was fitted without any: they are divided by 65535."""
    known = images.dtype == torch.uint16 or high == 0 or 255 < high <= SIXTEEN_BITS
    if low < 0 or not known or reading.own == UNKNOWN:
        measured = " (measured values, such as Hounsfield units)" if reading.own == UNKNOWN else ""
        raise InputError(
            f"{subject(name)} integer pixels from {low:g} to {high:g}{measured}; their range is "
            "not known, and the model was fitted on 8 bits or floats: "
            "convert them to 8 bits (mode L, uint8), 16 bits (mode I;16, uint16) or floats in 0–1, "
            "or fit with DiffMICClassifier(value_range=(low, high))."
        )
    return images.float().div_(SIXTEEN_BITS)
