"""Uploads of a request: read in memory within limits, and looked at before they are decoded."""

import io
import sys
from collections.abc import AsyncGenerator

from PIL import Image, UnidentifiedImageError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from ..dicom import is_dicom, pixels_module
from .limits import Limits

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
_HOW = "send files as multipart/form-data, as by: curl -F image=@eye.png"
_DEFLATED = b"1.2.840.10008.1.2.1.99"  # the size of what it holds is not known before


class Refused(HTTPException):
    """A request that is not answered, and the index of the image that is the reason."""

    def __init__(self, status: int, message: str, image: int | None = None) -> None:
        super().__init__(status, message, {"Retry-After": "1"} if status == 503 else None)
        self.image = image


class _Form(MultiPartParser):
    """Parser that writes no file to disk, and knows whether the form was complete."""

    spool_max_size = sys.maxsize
    complete = False

    def on_end(self) -> None:
        self.complete = True


async def read_uploads(request: Request, limits: Limits) -> list[bytes]:
    """Content of each file of a request, in order.

    Raises
    ------
    Refused
        It is no form with files (400, 415), or larger than the limits (413).
    """
    kind = request.headers.get("content-type", "missing").partition(";")[0].strip()
    if kind.lower() != "multipart/form-data":
        raise Refused(415, f"The content type of the request is {kind[:80]}; {_HOW}")
    parser = _Form(request.headers, _limited(request, limits), max_files=limits.files)
    try:
        form = await parser.parse()
    except MultiPartException as reason:
        if reason.message.startswith("Too many files"):
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
        value.file.close()
        if value.filename or content:  # a form of a browser without a chosen file has neither
            contents.append(content)
    if not contents:
        raise Refused(400, f"The form has no file that is complete; {_HOW}")
    if not parser.complete:
        raise Refused(400, "The form is cut short: its last boundary is missing. Send it again.")
    return contents


def check_image(content: bytes, index: int, limits: Limits) -> None:
    """Check format and size of an image by its header.

    Raises
    ------
    Refused
        It is no image of a known format (415), is empty or damaged (422), or has too many pixels
        (413).
    """
    if not content:
        raise Refused(422, "The file is empty (0 bytes).", index)
    try:
        width, height = _size(content, index)
    except UnidentifiedImageError:
        raise Refused(
            415,
            "The file is no image of a known format, or its beginning is damaged; PNG, JPEG, TIFF, "
            "BMP, WebP and DICOM are read.",
            index,
        ) from None
    if width * height > limits.pixels:
        raise Refused(
            413,
            f"The image has {width} × {height} pixels, more than the {limits.pixels:,} that this "
            "service takes; make it smaller, or start the service with a larger --pixels.",
            index,
        )


def _size(content: bytes, index: int) -> tuple[int, int]:
    """Width and height of an image, without decoding it."""
    dicom = is_dicom(content[:4096], "")
    if dicom and _DEFLATED in content[:4096]:
        raise Refused(
            415, "The file is deflated DICOM, which is not taken; save it uncompressed.", index
        )
    if dicom:
        pixels_module()
    try:
        if not dicom:
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                return image.size
        import pydicom

        found = pydicom.dcmread(
            io.BytesIO(content),
            force=True,
            stop_before_pixels=True,
            specific_tags=["Rows", "Columns"],
        )
        return int(found.get("Columns", 0)), int(found.get("Rows", 0))
    except UnidentifiedImageError:
        raise
    except Image.DecompressionBombError:
        raise Refused(413, "The image has far too many pixels; make it smaller.", index) from None
    except Exception as reason:  # of any kind; what pydicom's say may hold values of the file
        raise Refused(
            422, f"The image is damaged ({type(reason).__name__}); send it again.", index
        ) from None


async def _limited(request: Request, limits: Limits) -> AsyncGenerator[bytes, None]:
    """Body of a request, as far as it may be."""
    size = int(request.headers.get("content-length", 0))  # the server has checked that it is one
    read = 0
    if size <= limits.upload_bytes:
        async for chunk in request.stream():
            read += len(chunk)
            if read > limits.upload_bytes:
                break
            yield chunk
        else:
            return
    raise Refused(
        413,
        f"The request has more than {limits.upload_mb:g} MB; send fewer or smaller images, or "
        "start the service with a larger --upload-mb.",
    )
