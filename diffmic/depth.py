"""Bits of pixels: what files say of them, and what Pillow reduces to 8.

It imports no torch: the classifier of exported models reads pixels by it, too.
"""

import re
from collections.abc import Mapping
from math import inf
from numbers import Real
from typing import Any, BinaryIO

from numpy.typing import NDArray
from PIL import Image

Range = tuple[float, float]
UNKNOWN: Range = (-inf, inf)  # own range of measured values, of which nothing says black and white
_BITS, _MAX, _S_MIN, _S_MAX = 258, 281, 340, 341  # tags of TIFF
_JPEG_2000 = b"\xff\x4f\xff\x51"  # start of a codestream, and of its table of sizes
_PPM = re.compile(rb"P[2356](?:\s+|#[^\n]*\n)+(?:\d+(?:\s+|#[^\n]*\n)+){2}(\d+)")


def applied_range(fitted: Range | None, own: Range | None) -> Range | None:
    """Range for integers of more than 8 bits: that which was found in a fit, or the file's own.

    The file's own is taken if a fit found none, or one that begins at the same black and ends at a
    white that the file cannot hold, as that of 16 bits for a file of 12.
    """
    if own is None or own == UNKNOWN:
        return fitted
    return own if fitted is None or (fitted[0] == own[0] and fitted[1] > own[1]) else fitted


def own_range(pixels: NDArray[Any], bits: int, *, shifted: bool = False) -> Range | None:
    """Range of unsigned pixels whose file says that they use ``bits`` of 16; None: it does not.

    ``shifted``: they are the upper bits, as the standard of PNG wants them, though not every
    program heeds it; the pixels show which.
    """
    if not 0 < bits < 16 or pixels.dtype.kind not in "iu" or not pixels.size:
        return None
    if pixels.min() < 0 or pixels.max() >= 2**bits:
        return None
    if shifted and not (pixels % 2 ** (16 - bits)).any():
        return None
    return 0.0, 2.0**bits - 1


def bits_of_png(file: BinaryIO) -> int:
    """Significant bits of an open PNG (sBIT), the most of its channels; 0: it does not say."""
    if file.read(8) != b"\x89PNG\r\n\x1a\n":
        return 0
    while len(start := file.read(8)) == 8 and start[4:] not in (b"PLTE", b"IDAT"):
        length = int.from_bytes(start[:4], "big")
        if start[4:] == b"sBIT":
            return max(file.read(min(length, 4)), default=0)
        file.seek(length + 4, 1)
    return 0


def bits_of_tiff(tags: Mapping[int, Any]) -> int:
    """Bits that a TIFF says its samples use, by their number or by the largest; 0: it is none."""
    bits = int(max(tags.get(_BITS) or (0,)))
    named, lowest = _largest(tags, _S_MAX) or _largest(tags, _MAX), _largest(tags, _S_MIN)
    whole = 0 < named < 2**16 and not lowest and named == int(named)
    return int(named).bit_length() if whole and not int(named) & (int(named) + 1) else bits


def _largest(tags: Mapping[int, Any], tag: int) -> float:
    """Largest number of a tag; 0: there is none."""
    values = tags.get(tag)
    values = values if isinstance(values, tuple) else (values,)
    return max((float(value) for value in values if isinstance(value, Real)), default=0.0)


def cut_to_bytes(image: Image.Image, head: bytes) -> bool:
    """Whether a file has more than 8 bits per colour, of which Pillow gives the upper 8.

    Parameters
    ----------
    image : PIL image
        The opened file.
    head : bytes
        First bytes of the file.
    """
    if image.mode not in ("L", "LA", "RGB", "RGBA"):
        return False
    if image.format == "JPEG2000":
        return _bits_of_jpeg_2000(head) > 8
    if image.format == "PPM":
        sizes = _PPM.match(head)
        return sizes is not None and int(sizes[1]) > 255
    if image.format == "SGI":
        return head[3:4] == b"\x02"  # bytes per channel
    if image.format == "AVIF":
        start = head.find(b"av1C")  # its third byte tells 10 or 12 bits
        return start >= 0 and len(head) > start + 6 and bool(head[start + 6] & 0x40)
    return False


def _bits_of_jpeg_2000(head: bytes) -> int:
    """Largest number of bits of a channel; 0: unknown."""
    start = head.find(_JPEG_2000)
    if start < 0:
        return 0
    sizes = start + len(_JPEG_2000)
    end = sizes + int.from_bytes(head[sizes : sizes + 2], "big")
    return max(((depth & 0x7F) + 1 for depth in head[sizes + 38 : end : 3]), default=0)
