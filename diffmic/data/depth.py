"""Files of more than 8 bits per colour, which Pillow reduces to 8."""

import re

from PIL import Image

_JPEG_2000 = b"\xff\x4f\xff\x51"  # start of a codestream, and of its table of sizes
_PPM = re.compile(rb"P[2356](?:\s+|#[^\n]*\n)+(?:\d+(?:\s+|#[^\n]*\n)+){2}(\d+)")


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
