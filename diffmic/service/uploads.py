"""Uploads of a request: read in memory within limits, and looked at before they are decoded."""

import io
import sys
import warnings
from collections.abc import AsyncGenerator
from importlib.util import find_spec

from PIL import Image, UnidentifiedImageError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from ..dicom import is_dicom
from .limits import Limits

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
_KNOWN = "PNG, JPEG, TIFF, BMP, WebP and DICOM are read"
_BEGINNINGS = (b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"BM", b"RIFF")
_HOW = "send files as multipart/form-data, as by: curl -F image=@eye.png"
_DEFLATED = b"1.2.840.10008.1.2.1.99"  # the size of what it holds is not known before


class Refused(Exception):
    """A request that is not answered.

    Attributes
    ----------
    status : int
        HTTP status.
    image : int or None
        Index of the image that is the reason.
    """

    def __init__(self, status: int, message: str, image: int | None = None) -> None:
        super().__init__(message)
        self.status, self.image = status, image


class _InMemory(MultiPartParser):
    """Parser that writes no file to disk."""

    spool_max_size = sys.maxsize


async def read_uploads(request: Request, limits: Limits) -> list[bytes]:
    """Content of each file of a request, in order.

    Raises
    ------
    Refused
        It is no form with files (400, 415), or larger than the limits (413).
    """
    kind, _ = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data":
        found = kind.decode("latin-1")[:80] or "missing"
        raise Refused(415, f"The content type of the request is {found}; {_HOW}")
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise Refused(415, f"The content encoding is {encoding[:80]!r}; send the form as it is.")
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limits.upload_bytes:
        raise _too_large(limits, f"{int(announced) / 1e6:.1f} MB")
    stream = _limited(request, limits)
    parser = _InMemory(request.headers, stream, max_files=limits.files, max_fields=8)
    try:
        form = await parser.parse()
    except MultiPartException as reason:
        if str(reason.message).startswith("Too many files"):
            raise Refused(
                413, f"The request has more than {limits.files} images; send several requests."
            ) from None
        raise Refused(400, f"The form cannot be read: {reason.message} {_HOW}") from None
    contents = []
    for name, value in form.multi_items():
        if not isinstance(value, UploadFile):
            raise Refused(
                400,
                f"The field {name[:80]!r} of the form is text, not a file; {_HOW} (with the @). "
                "Options stand in the address, as in /predict?stage=prior",
            )
        content = value.file.read()
        if value.filename or content:  # a form of a browser without a chosen file has neither
            contents.append(content)
    await form.close()
    if not contents:
        raise Refused(400, f"The form has no file; {_HOW}")
    return contents


async def drain(request: Request) -> None:
    """Read what is left of a refused request, so that its client comes to read the answer."""
    try:
        async for _ in request.stream():
            pass
    except Exception:  # it has gone, or the stream was read in part
        return


def check_image(content: bytes, index: int, limits: Limits) -> None:
    """Check format and size of an image by its header.

    Raises
    ------
    Refused
        It is no image of a known format (415), empty or damaged (422), or has too many pixels
        (413).
    """
    if not content:
        raise Refused(422, "The file is empty (0 bytes).", index)
    head = content[:4096]
    width, height = (
        _dicom_size(content, head, index) if is_dicom(head, "") else _size(content, index)
    )
    if width * height > limits.pixels:
        raise Refused(
            413,
            f"The image has {width} × {height} pixels, more than the {limits.pixels:,} that this "
            "service takes; make it smaller, or start the service with a larger --pixels.",
            index,
        )


def _size(content: bytes, index: int) -> tuple[int, int]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of many pixels, which are counted here
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                return image.size
    except UnidentifiedImageError:
        if content.startswith(_BEGINNINGS):
            raise Refused(422, "The image is damaged or cut short; send it again.", index) from None
        raise Refused(415, f"The file is no image of a known format; {_KNOWN}.", index) from None
    except Image.DecompressionBombError:
        raise Refused(413, "The image has far too many pixels; make it smaller.", index) from None
    except Exception as reason:  # Pillow raises nearly anything
        raise Refused(
            422, f"The image is damaged ({type(reason).__name__}); send it again.", index
        ) from None


def _dicom_size(content: bytes, head: bytes, index: int) -> tuple[int, int]:
    """Width and height, all frames together."""
    if find_spec("pydicom") is None:
        raise Refused(
            415,
            "The file is DICOM, which this service reads only if pydicom is installed beside it "
            '(pip install "diffmic[dicom]"). Convert the image to PNG, or install it.',
            index,
        )
    if _DEFLATED in head:
        raise Refused(
            415, "The file is deflated DICOM, which is not taken; save it uncompressed.", index
        )
    import pydicom

    tags = ["Rows", "Columns", "NumberOfFrames"]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's show contents of the file
            found = pydicom.dcmread(
                io.BytesIO(content), force=True, stop_before_pixels=True, specific_tags=tags
            )
            frames = int(found.get("NumberOfFrames") or 1)
            return int(found.get("Columns", 0)), int(found.get("Rows", 0)) * frames
    except Exception as reason:  # what it says may hold values of the file
        raise Refused(
            422, f"The DICOM file is damaged ({type(reason).__name__}); send it again.", index
        ) from None


async def _limited(request: Request, limits: Limits) -> AsyncGenerator[bytes, None]:
    """Body of a request, as far as it may be."""
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limits.upload_bytes:
            raise _too_large(limits, f"more than {limits.upload_mb:g} MB")
        yield chunk


def _too_large(limits: Limits, found: str) -> Refused:
    return Refused(
        413,
        f"The request has {found}; this service takes {limits.upload_mb:g} MB. Send fewer or "
        "smaller images, or start the service with a larger --upload-mb.",
    )
