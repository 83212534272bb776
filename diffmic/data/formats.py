"""Formats by their first bytes, and what to do about those that are no image for Pillow."""

from PIL import Image


def advice_for(head: bytes, reason: Exception) -> str:
    """What to do about a file that cannot be decoded, from its first bytes; empty: unknown."""
    if isinstance(reason, Image.DecompressionBombError):
        return (
            " Reduce it, or, if you trust the file, raise PIL.Image.MAX_IMAGE_PIXELS "
            "(None: no limit)."
        )
    return ""
