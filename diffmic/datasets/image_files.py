"""Which files are images: by their suffix where it says so, else by how they begin."""

import mimetypes
import os
import warnings
from functools import cache
from pathlib import Path

from PIL import Image, ImageFile

from ..conventions import DICOM_SUFFIXES, IMAGE_SUFFIXES
from ..dicom import is_dicom

_NO_PIXELS = {"MPEG", "IPTC"}  # Pillow knows these files, but shows no image of them
_SYSTEM_FILES = {
    *(".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", ".directory"),
    "dicomdir",
    *(".gitkeep", ".keep", ".gitignore", ".gitattributes"),
}
_SYSTEM_FOLDERS = {
    *("__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found"),
    "__pycache__",
}


@cache
def image_suffixes() -> frozenset[str]:
    """Lower-case suffixes of image files: those that Pillow reads, and DICOM's."""
    pillows = [suffix for suffix, name in Image.registered_extensions().items() if _shown(name)]
    return frozenset({*pillows, *DICOM_SUFFIXES})


def without_suffix(name: str) -> str:
    """Name of a file without its suffix, if that is one of an image: not "1.2.840.5" of DICOM."""
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in image_suffixes() else name


def is_image_file(file: Path) -> bool:
    """Whether a file is an image; a file without a known suffix is opened to see."""
    return file.suffix.lower() in image_suffixes() or _begins_like_an_image(file)


def is_named_as_one(name: str) -> bool:
    """Whether a file is named as an image, a video or a volume, even of a format unknown here."""
    kind = mimetypes.guess_type(name)[0] or ""
    return kind.startswith(("image/", "video/")) or name.lower().endswith(IMAGE_SUFFIXES)


def is_system_file(name: str) -> bool:
    """Whether a file belongs to the operating system or to git: nobody misses it."""
    return name.lower() in _SYSTEM_FILES or name.startswith("._")


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden, or belongs to the operating system."""
    return name.startswith(".") or name.lower() in _SYSTEM_FOLDERS


def _shown(name: str) -> bool:
    opener = Image.OPEN.get(name, (None, None))[0]
    stub = isinstance(opener, type) and issubclass(opener, ImageFile.StubImageFile)
    return opener is not None and not stub and name not in _NO_PIXELS


def _begins_like_an_image(file: Path) -> bool:
    image_suffixes()  # loads Pillow's formats
    # A format without a check of the first bytes takes other files for its own.
    formats = [name for name, (_, check) in Image.OPEN.items() if check and _shown(name)]
    try:
        with file.open("rb") as stream, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # very large images, odd headers: told when read
            head = stream.read(132)
            if head.startswith(b"\x93NUMPY") or is_dicom(head, file.name):
                return True
            stream.seek(0)
            with Image.open(stream, formats=formats):
                return True
    except Image.DecompressionBombError:
        return True
    except Exception:  # whatever a format's reader makes of another file's bytes
        return False
