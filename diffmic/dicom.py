"""DICOM files as images, with pydicom: units, window, colour. Nothing about patients is read.

It imports no torch: the classifier of exported models reads DICOM by it, too.
"""

import warnings
from importlib import import_module
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from .conventions import DICOM_SUFFIXES
from .depth import UNKNOWN, Range
from .errors import InputError

_INSTALL = 'pip install "diffmic[dicom]"'
_TAGS = [  # the only ones that are read
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel",
    "PhotometricInterpretation", "PlanarConfiguration", "Rows", "Columns", "NumberOfFrames",
    "PixelData", "FloatPixelData", "DoubleFloatPixelData", "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths", "PixelPaddingValue", "PixelPaddingRangeLimit",
    "Modality", "RescaleSlope", "RescaleIntercept", "RescaleType", "ModalityLUTSequence",
    "WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence", "PresentationLUTShape",
    "RedPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData",
    "GreenPaletteColorLookupTableData", "BluePaletteColorLookupTableData",
    "SegmentedRedPaletteColorLookupTableData", "SegmentedGreenPaletteColorLookupTableData",
    "SegmentedBluePaletteColorLookupTableData",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
]  # fmt: skip
_OTHERS = (b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"GIF8", b"BM", b"\0\0\0\x0cjP")
_TARGA = (1, 2, 3, 9, 10, 11)
_MEASURED = ("CT", "PT", "RTDOSE")  # modalities whose values are measured, in units
_GROUPS = ("PixelValueTransformationSequence", "FrameVOILUTSequence")


def is_dicom(head: bytes, name: str) -> bool:
    """Whether a file is DICOM, by its first bytes, or by its name if it has no preamble."""
    text = name.rstrip("'\" .").lower()
    bare = head[:2] in (b"\x02\0", b"\x08\0") and head[3:4] == b"\0"
    bare = bare and head[2] not in _TARGA  # whose pictures may begin with the same bytes
    named = text.endswith(DICOM_SUFFIXES) and not head.startswith(_OTHERS)
    return head[128:132] == b"DICM" or bare or named


def pixels_module() -> Any:
    """pydicom's functions for pixels.

    Raises
    ------
    InputError
        pydicom is not installed; the message says how to install it.
    """
    try:
        return import_module("pydicom.pixels")
    except ImportError as reason:
        raise InputError(f"It is a DICOM file, which needs pydicom 3: {_INSTALL}") from reason


def dicom_pixels(file: BinaryIO, given: Range | None = None) -> tuple[NDArray[Any], Range | None]:
    """Pixels (C, H, W) of a DICOM file: uint8, float32 in 0–1, or values with their own range.

    The modality's units, and its window or VOI LUT unless a range of pixel values was ``given`` by
    the user; MONOCHROME1 is inverted; palettes and YBR become RGB of 8 bits; padding is black. The
    range is that of the stored bits, in these units; :data:`~diffmic.depth.UNKNOWN` for measured
    values, such as CT in Hounsfield units, of which nothing says black and white.

    Raises
    ------
    InputError
        It holds no image or several frames, or cannot be decoded; the message says what to do.
    """
    pixels_module()
    import pydicom

    with warnings.catch_warnings():  # pydicom's show contents of the file
        warnings.simplefilter("ignore")
        try:
            dataset = pydicom.dcmread(file, force=True, specific_tags=_TAGS)
            frames = int(dataset.get("NumberOfFrames") or 1)
            kinds = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
            has_pixels = any(kind in dataset for kind in kinds) and "Rows" in dataset
        except Exception as reason:
            raise InputError(
                f"It is a damaged DICOM file ({type(reason).__name__}). Copy or download it again"
            ) from None  # what pydicom says may hold values of the file
        if not has_pixels:
            raise InputError(
                "It is a DICOM file without an image (no pixel data), such as a report, a plan or "
                "a directory. Leave it out."
            )
        if frames > 1:
            raise InputError(
                f"It is a DICOM file of {frames} frames. Choose those that matter, and pass them "
                "as arrays, or as .npy files:\n"
                "    frame = pydicom.pixels.pixel_array(file, index=k)\n"
                "    numpy.save(f'{k}.npy', frame)\n"
                "For those of more than 8 bits, fit with "
                "DiffMICClassifier(value_range=(low, high))."
            )
        stored = _decoded(dataset)
        try:
            _take_from_groups(dataset)
            pixels = np.ascontiguousarray(_shown(stored, dataset, given))
            own = _own_range(dataset) if pixels.dtype == np.int32 else None
        except InputError:
            raise
        except Exception as reason:
            raise InputError(
                "It is a DICOM file with damaged tables of pixel values "
                f"({type(reason).__name__}). Read it with pydicom, and pass the array."
            ) from None
    return pixels, own


def _decoded(dataset: Any) -> NDArray[Any]:
    """Stored values (H, W), or RGB (H, W, 3)."""
    meta = getattr(dataset, "file_meta", None)
    syntax = getattr(meta, "TransferSyntaxUID", None)
    if syntax is None and meta is not None:  # a file without preamble is uncompressed
        syntax = meta.TransferSyntaxUID = _syntax_of(dataset)
    try:
        found: NDArray[Any] = pixels_module().pixel_array(dataset)
        return found
    except Exception as reason:
        name = getattr(syntax, "name", str(syntax))
        try:
            decoder = pixels_module().get_decoder(syntax)
        except Exception:
            raise InputError(
                f"It is a DICOM file compressed as {name}, which pydicom does not decode: it may "
                "be a video. Convert it with another program, or pass arrays."
            ) from None
        if not decoder.is_available:
            missing = "; ".join(decoder.missing_dependencies) or "another plugin of pydicom"
            raise InputError(
                f"It is a DICOM file compressed as {name}, for which a plugin is missing: "
                f"{_INSTALL}. Any of these would do: {missing}."
            ) from None
        raise InputError(
            f"It is a DICOM file whose pixel data ({name}) cannot be decoded: it may be damaged, "
            "or need another plugin, such as pylibjpeg with pylibjpeg-libjpeg or "
            f"pylibjpeg-openjpeg. {type(reason).__name__}: {str(reason)[:300]}"
        ) from None


def _syntax_of(dataset: Any) -> str:
    """Transfer syntax of a file that does not state it."""
    implicit, little = dataset.original_encoding
    if not little:
        return "1.2.840.10008.1.2.2"
    return "1.2.840.10008.1.2" if implicit else "1.2.840.10008.1.2.1"


def _take_from_groups(dataset: Any) -> None:
    """Units and window of an enhanced file, whose groups hold them, as those of the image."""
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in list(dataset.get(groups) or [])[:1]:
            for name in _GROUPS:
                for item in list(group.get(name) or [])[:1]:
                    for element in item:
                        dataset.add(element)
    if "RescaleSlope" in dataset or "RescaleIntercept" in dataset:  # pydicom heeds both or none
        dataset.setdefault("RescaleSlope", 1)
        dataset.setdefault("RescaleIntercept", 0)


def _shown(stored: Any, dataset: Any, given: Range | None) -> Any:
    """Pixels (C, H, W) as they are to be shown."""
    kind = str(dataset.get("PhotometricInterpretation", "MONOCHROME2"))
    bits = int(dataset.get("BitsStored", 16))
    if kind == "PALETTE COLOR":
        stored = pixels_module().apply_color_lut(stored, dataset)
        bits = 8 * stored.dtype.itemsize
    if stored.ndim == 3:
        colours = np.moveaxis(stored, -1, 0)
        if bits == 8 and colours.dtype == np.uint8:
            return colours
        return np.rint(colours * (255 / (2.0**bits - 1))).astype(np.uint8)
    values = pixels_module().apply_modality_lut(stored, dataset)
    inverted = kind == "MONOCHROME1" or dataset.get("PresentationLUTShape") == "INVERSE"
    values = _without_padding(values, stored, dataset, inverted)
    windowed = _windowed(values, dataset) if given is None else None
    if windowed is not None:
        return np.asarray(1 - windowed if inverted else windowed, np.float32)[None]
    if inverted:
        values = _sum_of_ends(dataset, given) - values
    if given is not None:
        return np.asarray(values, np.float32)[None]
    if stored.dtype == np.uint8 and bits <= 8 and values.min() >= 0 and values.max() < 2**bits:
        return np.rint(values * (255 / (2**bits - 1))).astype(np.uint8)[None]
    if np.abs(values - np.rint(values)).max() > 1e-6:
        raise InputError(
            "It is a DICOM file with fractional values and no window: which are black and white is "
            "not known. Fit with DiffMICClassifier(value_range=(low, high))."
        )
    return np.rint(values).astype(np.int32)[None]


def _without_padding(
    values: NDArray[Any], stored: NDArray[Any], dataset: Any, inverted: bool
) -> NDArray[Any]:
    """The values, with padding outside the picture as dark as its darkest pixel."""
    padding = dataset.get("PixelPaddingValue")
    if not isinstance(padding, int):
        return values
    limit = dataset.get("PixelPaddingRangeLimit")
    limit = limit if isinstance(limit, int) else padding
    outside = (stored >= min(padding, limit)) & (stored <= max(padding, limit))
    if not outside.any() or outside.all():
        return values
    inside = values[~outside]
    return np.where(outside, inside.max() if inverted else inside.min(), values)


def _windowed(values: Any, dataset: Any) -> Any:
    """Values in 0–1 by the first VOI LUT or window; None: there is none that can be used."""
    if dataset.get("VOILUTSequence"):
        bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        shown = pixels_module().apply_voi(np.rint(values).astype(np.int64), dataset, index=0)
        return np.clip(shown / (2.0**bits - 1), 0, 1)
    if dataset.get("WindowCenter") is None or dataset.get("WindowWidth") is None:
        return None
    try:
        ends = np.array([-1e9, 1e9])
        with np.errstate(over="ignore"):
            black, white = pixels_module().apply_windowing(ends, dataset, index=0).tolist()
            shown = pixels_module().apply_windowing(values.astype(np.float64), dataset, index=0)
    except (ValueError, TypeError):  # a width of 0 is met with
        return None
    return None if white == black else np.clip((shown - black) / (white - black), 0, 1)


def _sum_of_ends(dataset: Any, given: Range | None) -> float:
    """Sum of the values of black and white: subtracted from it, a value is inverted."""
    return sum(_ends(dataset) if given is None else given)


def _own_range(dataset: Any) -> Range:
    """Black and white by the bits that are stored; or unknown, where values are measured.

    Signed values of 16 bits are, too: their type says nothing of them.
    """
    low, high = sorted(_ends(dataset))
    bits = int(dataset.get("BitsStored", 32))  # of floats there are none
    measured = dataset.get("Modality") in _MEASURED or dataset.get("RescaleType", "US") != "US"
    return UNKNOWN if measured or bits > 16 or (bits == 16 and low < 0) else (low, high)


def _ends(dataset: Any) -> Range:
    """Smallest and largest value that the stored bits can hold, in the modality's units."""
    bits = int(dataset.get("BitsStored", 16))
    signed = int(dataset.get("PixelRepresentation", 0)) == 1
    ends = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if signed else [0, 2**bits - 1])
    low, high = pixels_module().apply_modality_lut(ends, dataset).tolist()
    return float(low), float(high)
