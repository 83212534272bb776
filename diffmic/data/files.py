"""Image files: opening and decoding them, and what to do about those that cannot be read."""

import inspect
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..depth import bits_of_png, cut_to_bytes
from ..dicom import dicom_pixels, is_dicom, pixels_module
from ..errors import InputError
from .arrays import array_image
from .formats import told, what_it_is
from .large import decode_reduced
from .pillow import deep_png, hidden_depth, pixels_of
from .reading import Note, Reading

PathOrStr = str | os.PathLike[Any]
_HEAD = 4096  # bytes by which a format is known
_NUMPY = b"\x93NUMPY"


def read_image(path: PathOrStr, *, reading: Reading | None = None) -> Tensor:
    """Decode an image file, as :func:`~diffmic.data.images.as_image`; errors name the file.

    Without a ``reading`` the pixels are uint8 or float in 0–1.
    """
    if reading is None:
        from .images import as_image

        return as_image(path)
    with _opened(path) as file:
        return _decoded(file, f"The file {str(os.fsdecode(path))!r}", reading)


def check_image_file(path: PathOrStr) -> None:
    """Check by its header that a file is an image, without decoding it."""
    name = f"The file {str(os.fsdecode(path))!r}"
    with _opened(path) as file:
        head = _head(file, name)
        if head.startswith(_NUMPY):
            return
        if is_dicom(head, name):
            with _explained(name, head):
                pixels_module()
            return
        with _image(file, name, head):
            return


def read_content(content: bytes, name: str, reading: Reading) -> Tensor:
    """Decode the content of an image file."""
    return _decoded(io.BytesIO(content), f"The {name}", reading)


def read_pil(image: Image.Image, name: str, reading: Reading) -> Tensor:
    """Pixels of a PIL image, which may not have been decoded yet."""
    with _explained(f"The {name}", b""):
        return pixels_of(image, reading)


def holds_content(value: Any) -> bool:
    """Whether a value is the content of a file, or an open or uploaded file."""
    is_file = callable(getattr(value, "read", None)) and not hasattr(value, "__getitem__")
    return isinstance(value, (bytes, bytearray, memoryview)) or is_file


def content_of(value: Any, name: str) -> bytes:
    """Content of an open or uploaded file, from its beginning; its position does not change.

    Raises
    ------
    InputError
        It cannot be read, is no binary file, or must be awaited.
    """
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if inspect.iscoroutinefunction(value.read) and hasattr(value, "file"):
        value = value.file  # an upload of an asynchronous web framework
    try:
        seekable = hasattr(value, "seek") and hasattr(value, "tell")
        position = value.tell() if seekable else 0
        if seekable:
            value.seek(0)
        content = value.read()
        if seekable:
            value.seek(position)
    except Exception as reason:
        raise InputError(
            f"The {name} is a {type(value).__name__} that cannot be read: {told(reason)}."
        ) from reason
    if inspect.isawaitable(content):
        getattr(content, "close", lambda: None)()
        raise InputError(f"The {name} must be awaited: pass the bytes of `await file.read()`.")
    if not isinstance(content, bytes):
        raise InputError(
            f"The {name} is a file of {type(content).__name__}; open it in binary mode: "
            "open(path, 'rb')."
        )
    return content


@contextmanager
def _opened(path: PathOrStr) -> Iterator[BinaryIO]:
    """An image file, opened, with ``~`` expanded; an InputError says why there is none."""
    text = str(os.fsdecode(path))  # numpy's strings show their type
    scheme, separator, _ = text.partition("://")
    if separator and scheme.isalnum():
        raise InputError(
            f"The image {text[:200]!r} is a URL. Download it first, and pass its path or its bytes."
        )
    if text.startswith("data:"):
        raise InputError(
            f"The image {text[:40]!r}… is a data URL. Decode what follows the comma with "
            "base64.b64decode, and pass the bytes."
        )
    if "\0" in text:
        raise InputError(
            f"The path {text[:80]!r} is not an image that can be read: it has a null byte. Pass "
            "the content of a file as bytes, not as text."
        )
    file = Path(text)
    try:
        file = file.expanduser()
        if file.is_dir():
            raise InputError(
                f"The path {text!r} is not an image that can be read: it is a folder. Pass a list "
                "of its files; diffmic.datasets.read_folders reads a folder for each class."
            )
        if not file.exists():
            raise InputError(f"The image file {text!r} does not exist.")
        if not file.is_file():  # a pipe, at which reading would wait for ever, a device or a socket
            raise InputError(
                f"The path {text!r} is not an image that can be read: it is no regular file."
            )
        stream = file.open("rb")
    except (OSError, RuntimeError, ValueError) as reason:
        if isinstance(reason, InputError):
            raise
        raise InputError(
            f"The file {text!r} is not an image that can be read: {told(reason)}."
        ) from reason
    with stream:
        yield stream


def _decoded(file: BinaryIO, name: str, reading: Reading) -> Tensor:
    head = _head(file, name)
    if head.startswith(_NUMPY):
        with _explained(name, b""):
            array = np.load(file, allow_pickle=False)
        return array_image(array, f"array in {name[:1].lower()}{name[1:]}", reading)
    if is_dicom(head, name):
        with _explained(name, head):
            values = reading.value_range
            given = (values.low, values.high) if values is not None and values.given else None
            stored, reading.own = dicom_pixels(file, given)
            return torch.from_numpy(stored)
    with _explained(name, head):
        bits = bits_of_png(file)
        file.seek(0)
    with _image(file, name, head) as image:
        if hidden_depth(image):
            file.seek(0)
            if (pixels := deep_png(file.read(), reading, bits)) is not None:
                return pixels
            file.seek(0)
        if cut_to_bytes(image, head):
            reading.note(Note.BITS)
        decode_reduced(image, reading)
        return pixels_of(image, reading, bits)


def _head(file: BinaryIO, name: str) -> bytes:
    """First bytes of a file, which is at its beginning then."""
    head = file.read(_HEAD)
    if not head:
        raise InputError(f"{name} is not an image that can be read: it is empty (0 bytes).")
    file.seek(0)
    return head


@contextmanager
def _image(file: BinaryIO, name: str, head: bytes) -> Iterator[Image.Image]:
    with _explained(name, head), Image.open(file) as image:
        yield image


@contextmanager
def _explained(name: str, head: bytes) -> Iterator[None]:
    """Errors of a decoder as an InputError that names the image and says what to do."""
    try:
        yield
    except InputError as reason:
        raise InputError(f"{name}: {reason}") from reason
    except MemoryError:
        raise
    except Exception as reason:  # decoders of damaged files raise nearly anything
        raise InputError(
            f"{name} is not an image that can be read: {what_it_is(head, name, reason)}"
        ) from reason
