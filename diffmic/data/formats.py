"""What a file is that Pillow does not read, by its first bytes, and what to do about it."""

import re
import zlib
from pathlib import Path

from PIL import Image, UnidentifiedImageError

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SLICES = (
    "Load it and choose the slices that matter:\n"
    "    volume = {call}\n"
    "    X = [volume[..., k] for k in slices]\n"
    "and fit with DiffMICClassifier(value_range=(low, high)), the values of black and white"
)
_VOLUMES = (".nii", ".hdr", ".img", ".mgz", ".mgh", ".mnc", ".head", ".brik", ".par", ".rec")
_NIBABEL = "nibabel.load(file).get_fdata()"
_SIMPLE_ITK = _SLICES.format(
    call="SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(file)).transpose(1, 2, 0)"
)

# First bytes, and what the file is: the text goes on after "is not an image that can be read: ".
_VIDEO = "it is a video. Extract the frames that matter, and pass them as images"
_ARCHIVE = "it is an archive. Unpack it, and pass the images in it"
_UNKNOWN = "damaged or unknown to this Pillow. Convert it to PNG"
_JPEG_XL = "it is JPEG XL. Convert it to PNG, or install a plugin of Pillow, pillow-jxl-plugin"
_STARTS: tuple[tuple[bytes, str], ...] = (  # as regular expressions
    (b"NRRD", f"it is an NRRD volume. Load it with SimpleITK: {_SIMPLE_ITK}"),
    (b"ObjectType", f"it is a MetaImage. Load it with SimpleITK: {_SIMPLE_ITK}"),
    (b"\x89HDF", "it is an HDF5 file. Pass an array of it: h5py.File(file)[name][:]"),
    (b"CDF", "it is a NetCDF or MINC volume. " + _SLICES.format(call=_NIBABEL)),
    (b"MATLAB", "it is a MATLAB file. Pass an array of it: scipy.io.loadmat(file)[name]"),
    (b"%PDF", "it is a PDF document. Export its pages as PNG"),
    (b"\x80", "it may be a pickle. Load it with the library that wrote it, and pass the array"),
    (b"version https://git-lfs", "it is a pointer of Git LFS, not the file. Run `git lfs pull`"),
    (b"\x1aE\xdf\xa3|\0\0\x01\xba", _VIDEO),
    (b"ZISRAWFILE", "it is a Zeiss CZI file. Pass the array of czifile.imread(file)"),
    (b"\xff\x0a|\0\0\0\x0cJXL", _JPEG_XL),
    (b"\xff\xd8\xff\xf7", "it is JPEG-LS. Decode it with imagecodecs, and pass the array"),
    (b"v/1\x01", "it is an OpenEXR file. Load it with another reader, and pass the array"),
    (b"7z\xbc\xaf|Rar!", _ARCHIVE),
    (b"\x1f\x8b", "it is compressed with gzip. Unpack it first"),
    (b"PK\x03\x04", f"{_ARCHIVE}; of an .npz file pass an array: numpy.load(file)[name]"),
    (
        b"....ftyp(heic|heix|heif|hevc|mif1|msf1)",
        "it is HEIC. Install pillow-heif and call pillow_heif.register_heif_opener(), or convert "
        "it to JPEG or PNG",
    ),
    (b"....ftyp(avif|avis)", f"it is AVIF, {_UNKNOWN}"),
    (b"....ftyp", _VIDEO),
    (b"RIFF....WEBP", f"it is WebP, {_UNKNOWN}"),
    (b"RIFF", _VIDEO),
)
_DAMAGED = ("truncated", "could not create decoder", "broken data", "not enough image data")


def what_it_is(head: bytes, name: str, reason: Exception) -> str:
    """What a file is that cannot be decoded, and what to do, as the end of a sentence.

    Parameters
    ----------
    head : bytes
        First bytes of the file; empty: unknown.
    name : str
        Name of the image, which may end with the suffix of a file.
    reason : Exception
        Error of the decoder.
    """
    if isinstance(reason, Image.DecompressionBombError):
        return (
            f"{told(reason)}. Reduce it, or, if you trust it, raise PIL.Image.MAX_IMAGE_PIXELS "
            "(None: no limit)."
        )
    if isinstance(reason, Image.DecompressionBombWarning):
        return f"{told(reason)}. Warnings are errors here: raise PIL.Image.MAX_IMAGE_PIXELS."
    unknown = isinstance(reason, UnidentifiedImageError) or "cannot find loader" in str(reason)
    if not unknown:
        text = told(reason)
        damaged = any(sign in text.lower() for sign in _DAMAGED)
        if damaged or isinstance(reason, (EOFError, zlib.error)):
            text += ". The file is damaged or incomplete: copy or download it again"
        elif isinstance(reason, AssertionError) or "closed" in text or "'NoneType'" in text:
            text += (
                ". If it is a PIL image, its file was closed: keep it open, or call load() first"
            )
        return f"{text}."
    return f"{_known(head, name) or 'its format is not known'}."


def _known(head: bytes, name: str) -> str:
    """What a file is that Pillow cannot identify; empty: unknown."""
    suffixes = name.rstrip("'\" .").lower()
    if head.startswith(_TIFF):
        return (
            "it is a TIFF that Pillow does not know, because of its depth, compression or number "
            "of channels. Load it with tifffile.imread(file), and pass the array"
        )
    if _is_volume(head, suffixes):
        several = " (of several volumes in a file: volume[:, :, k, t])"
        return (
            "it is a NIfTI or other volume for nibabel. " + _SLICES.format(call=_NIBABEL) + several
        )
    for start, what in _STARTS:
        if re.match(start, head, re.DOTALL):
            return what
    return _text(head)


def _is_volume(head: bytes, name: str) -> bool:
    """Whether a file is a volume that nibabel reads."""
    nifti = head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] == b"n+2\0"
    return nifti or name.removesuffix(".gz").endswith(_VOLUMES)


def _text(head: bytes) -> str:
    """What a text is that stands where an image should; empty: it is no text."""
    try:
        text = head.decode("utf-8-sig") if not head.endswith(b"\xff") else ""
    except UnicodeDecodeError as reason:
        if reason.start < len(head) - 4:  # else a character is cut off
            return ""
        text = head[: reason.start].decode()
    start = text.lstrip().lower()
    if "<svg" in start:
        return "it is an SVG drawing. Convert it to PNG"
    if start.startswith(("<!doctype html", "<html")):
        return "it is a web page, perhaps an error of the server it came from. Download it again"
    if start and all(character.isprintable() or character.isspace() for character in text):
        one_line = len(text) < 1024 and len(text.splitlines()) == 1
        path = one_line and ("/" in text or "\\" in text or Path(text).suffix != "")
        return "it is a text" + (
            ". If it is a path in bytes, decode it: os.fsdecode(path)" if path else ""
        )
    return ""


def told(reason: Exception) -> str:
    """What an exception says, or at least what it is."""
    text = str(reason).strip().rstrip(".")
    return text or type(reason).__name__
