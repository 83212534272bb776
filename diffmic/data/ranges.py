"""Ranges of pixel values: which value is black and which is white."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError

SIXTEEN_BITS = 65535
OVERSHOOT = 0.5  # above that of cubic interpolation, below that of normalised images
_NARROW = 4  # a range that is used to less than a quarter is taken as it was found


@dataclass(frozen=True)
class ValueRange:
    """Range of pixel values: ``low`` becomes 0 (black) and ``high`` 1 (white).

    Attributes
    ----------
    low, high : float
        Values of black and white, in the units of the images; values beyond them are clipped.
    given : bool
        Whether the user gave the range. It then applies to all images but those of 8 bits; a range
        that was found applies to integers of more than 8 bits alone.
    """

    low: float
    high: float
    given: bool = False

    def scaled(self, pixels: Tensor) -> Tensor:
        """Pixels as float32 in 0–1, clipped."""
        own = pixels.clone() if pixels.dtype == torch.float32 else pixels.float()
        return own.sub_(self.low).div_(self.high - self.low).clamp_(0, 1)

    @classmethod
    def of(cls, value: Any) -> "ValueRange | None":
        """Range of the estimator's ``value_range``; None: it is to be found.

        Raises
        ------
        InputError
            ``value`` is not a pair of numbers (low, high), low below high.
        """
        if value is None:
            return None
        pair = isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, (str, bytes))
        if (
            not pair
            or len(value) != 2
            or not all(isinstance(v, Real) and not isinstance(v, bool) for v in value)
            or not -math.inf < float(value[0]) < float(value[1]) < math.inf
        ):
            raise InputError(
                f"value_range is {value!r}; give the values of black and white as (low, high), "
                "with low below high, or None."
            )
        return cls(float(value[0]), float(value[1]), given=True)


def found_range(low: float, high: float) -> ValueRange:
    """Range for integers of more than 8 bits whose values lie between ``low`` and ``high``.

    It begins at 0, or for negative values at −2^k, and ends at 2^k − 1, so that it does not depend
    on a few pixels: 4095 for images of 12 bits. Values that use less than a quarter of that keep
    their own range.
    """
    bottom = 0.0 if low >= 0 else -float(2 ** math.ceil(math.log2(-low)))
    top = float(2 ** int(max(high, 1)).bit_length() - 1)
    if high > low and (high - low) * _NARROW < top - bottom:
        bottom, top = float(low), float(high)
    return ValueRange(bottom, top)


def advice(low: float, high: float) -> str:
    """What float pixels from ``low`` to ``high`` may be, and what to do about it."""
    if low < -10:
        return (
            "They look like CT in Hounsfield units, or other measured values: fit with "
            "DiffMICClassifier(value_range=(low, high)), the values of black and white, for "
            "example value_range=(-1000, 400) for lungs."
        )
    if low < 0 and high <= 1.001 and low >= -1.001:
        return (
            "They look scaled to −1…1 or normalised already: pass them without Normalize, or "
            "fit with DiffMICClassifier(value_range=(-1, 1)); if they should lie in 0–1, clip "
            "them: X.clip(0, 1)."
        )
    if low < 0:
        return (
            "They look normalised already: pass them without Normalize; the model normalises them "
            "itself. For measured values, fit with DiffMICClassifier(value_range=(low, high)); "
            "noise that was added can be clipped: X.clip(0, 1)."
        )
    return (
        "Divide them by their largest possible value (255 for 8-bit images), pass them as uint8, "
        "or fit with DiffMICClassifier(value_range=(low, high)), the values of black and white."
    )


def nearly_black(largest: float, given: ValueRange) -> str:
    """What to say of images whose largest pixel, in 0–1, is small in the range that was given."""
    top = given.low + largest * (given.high - given.low)
    return (
        f"The largest pixel of all images is {top:.5g}, so that with value_range=({given.low:g}, "
        f"{given.high:g}) they are nearly black: lower the value of white."
    )
