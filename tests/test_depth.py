"""Files that say how many bits their pixels use: black and white of those files, whatever else."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
import tifffile
from tiny import small, stripes

from diffmic import DiffMICClassifier
from diffmic.data.images import as_image
from diffmic.data.ranges import ValueRange
from diffmic.data.reading import Reading
from diffmic.errors import DiffMICWarning, InputError

PIXELS = (np.arange(60, dtype=np.uint16).reshape(6, 10) * 17) % 1024  # of 10 bits


def chunk(name, content):
    check = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + check


def png(pixels, bits=None, *, extra=b""):
    """A PNG of 16 bits, gray or in colour, which may say how many of them it uses."""
    colours = pixels.ndim == 3
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", *pixels.shape[1::-1], 16, 2 if colours else 0, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra
    content += b"" if bits is None else chunk(b"sBIT", bytes([bits] * (3 if colours else 1)))
    return content + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(pixels, *tags, photometric="minisblack", bits=None):
    file = io.BytesIO()
    tifffile.imwrite(
        file, pixels, photometric=photometric, extratags=tags, metadata=None, bitspersample=bits
    )
    return file.getvalue()


def dicom(pixels, **elements):
    pydicom = pytest.importorskip("pydicom")
    dataset = pydicom.Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", "1.2.3.4"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored = pixels.dtype.itemsize * 8, 10
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    for name, value in elements.items():
        setattr(dataset, name, value)
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelData = pixels.tobytes()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def smallest(value, kind="H"):
    return (340, kind, 1, value, False)


def largest(value, kind="H", tag=341):
    return (tag, kind, 1, value, False)


# Files of 10 bits, and the value of white (black is 0).
SAYS = {
    "PNG": lambda: png(PIXELS, 10),
    "PNG, long text before": lambda: png(PIXELS, 10, extra=chunk(b"tEXt", b"a\0" + b"a" * 9000)),
    "TIFF, its largest sample": lambda: tiff(PIXELS, largest(1023)),
    "TIFF, both ends": lambda: tiff(PIXELS, smallest(0), largest(1023)),
    "TIFF, as a float": lambda: tiff(PIXELS, largest(1023.0, "f")),
    "TIFF, its older tag": lambda: tiff(PIXELS, largest(1023, tag=281)),
    "DICOM": lambda: dicom(PIXELS),
    "DICOM, signed": lambda: dicom(PIXELS.astype(np.int16) - 512, RescaleIntercept="512"),
    "DICOM, signed without units": lambda: dicom(PIXELS.astype(np.int16) - 512),
    "DICOM, slope": lambda: dicom(PIXELS, RescaleSlope="4", RescaleIntercept="-100"),
    "DICOM, falling": lambda: dicom(1023 - PIXELS, RescaleSlope="-1", RescaleIntercept="1023"),
    "DICOM, inverted": lambda: dicom(1023 - PIXELS, PhotometricInterpretation="MONOCHROME1"),
    "DICOM, unspecified units": lambda: dicom(PIXELS, RescaleType="US", Modality="DX"),
    "DICOM, 32 allocated": lambda: dicom(PIXELS.astype(np.uint32)),
}  # fmt: skip


@pytest.mark.parametrize("kind", SAYS)
@pytest.mark.parametrize("fitted", [None, ValueRange(0, 65535)])
def test_pixels_are_scaled_by_the_bits_that_the_file_names(kind, fitted):
    units = kind in ("DICOM, signed without units", "DICOM, slope")
    if fitted is not None and units:
        pytest.skip("values that begin elsewhere than those of the fit")
    reading = Reading(fitted)
    found = as_image(SAYS[kind](), reading=reading)
    np.testing.assert_allclose(found[0], PIXELS / 1023, atol=1e-6)
    assert not reading.notes


@pytest.mark.parametrize("kind", SAYS)
def test_a_narrower_range_that_was_found_or_given_is_kept(kind):
    if kind not in ("DICOM, signed without units", "DICOM, slope"):
        found = as_image(SAYS[kind](), reading=Reading(ValueRange(0, 511)))
        np.testing.assert_allclose(found[0], (PIXELS / 511).clip(0, 1), atol=1e-6)
        found = as_image(SAYS[kind](), reading=Reading(ValueRange(0, 4095, given=True)))
        if "inverted" not in kind:
            np.testing.assert_allclose(found[0], PIXELS / 4095, atol=1e-6)


def test_white_is_zero_in_a_tiff_that_names_its_largest_sample():
    found = as_image(tiff(1023 - PIXELS, largest(1023), photometric="miniswhite"))
    np.testing.assert_allclose(found[0], PIXELS / 1023, atol=1e-6)


def test_colours_of_a_deep_png():
    colours = np.stack([PIXELS, 1023 - PIXELS, PIXELS // 2], axis=2)
    np.testing.assert_allclose(
        as_image(png(colours, 10)), colours.transpose(2, 0, 1) / 1023, atol=1e-6
    )


SAYS_NOTHING = {
    "PNG": lambda: png(PIXELS),
    "PNG, upper bits as the standard says": lambda: png(PIXELS * 64, 10),
    "PNG, upper bits of a dark image": lambda: png(PIXELS // 64 * 64, 10),
    "PNG, 16 bits": lambda: png(PIXELS, 16),
    "PNG, a lie": lambda: png(PIXELS, 6),
    "TIFF": lambda: tiff(PIXELS),
    "TIFF, statistics": lambda: tiff(PIXELS, largest(1003)),
    "TIFF, ends of something else": lambda: tiff(PIXELS, smallest(100), largest(1023)),
    "TIFF, a lie": lambda: tiff(PIXELS, largest(255)),
    "TIFF, nonsense": lambda: tiff(PIXELS, largest(float("nan"), "f"), (340, "s", 4, "abc", False)),
    "DICOM of 16 bits": lambda: dicom(PIXELS, BitsStored=16),
}  # fmt: skip


@pytest.mark.parametrize("kind", SAYS_NOTHING)
def test_other_pixels_of_16_bits_are_divided_by_65535(kind):
    content = SAYS_NOTHING[kind]()
    stored = PIXELS * 64 if "standard" in kind else PIXELS // 64 * 64 if "dark" in kind else PIXELS
    np.testing.assert_allclose(as_image(content)[0], stored / 65535, atol=1e-6)


MEASURED = {
    "CT": {"Modality": "CT", "RescaleIntercept": "-1024", "BitsStored": 12},
    "CT without negative values": {"Modality": "CT"},
    "units": {"RescaleType": "HU"},
    "PET": {"Modality": "PT", "RescaleSlope": "2"},
    "16 signed bits": {"BitsStored": 16, "PixelRepresentation": 1},
    "16 bits below zero": {"BitsStored": 16, "RescaleIntercept": "-1024"},
}


@pytest.mark.parametrize("kind", MEASURED)
def test_measured_values_have_no_range_of_their_own(kind):
    content = dicom(PIXELS, **MEASURED[kind])
    with pytest.raises(InputError, match=r"Hounsfield.*range is not known.*value_range="):
        as_image(content)
    reading = Reading(raw=True)
    low = int(as_image(content, reading=reading).min())
    found = as_image(content, reading=Reading(ValueRange(-1024, 5000)))
    assert float(found.min()) == pytest.approx((low + 1024) / 6024)


@pytest.mark.parametrize("kind", ["PNG", "TIFF, its largest sample", "DICOM"])
def test_a_model_of_bytes_sees_the_same_image_in_more_bits(kind, tmp_path):
    X, y = stripes(24)
    clf = DiffMICClassifier(**small(max_epochs=1, validation_fraction=None))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clf.fit(X, y)
    write = {
        "PNG": lambda x: png(x, 12),
        "TIFF, its largest sample": lambda x: tiff(x, largest(4095)),
        "DICOM": lambda x: dicom(x, BitsStored=12),
    }[kind]
    files = [write(np.rint(x * (4095 / 255)).astype(np.uint16)) for x in X]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = clf.predict_proba(files)
    np.testing.assert_allclose(found, clf.predict_proba(X), atol=0.02)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        new = DiffMICClassifier(**small(max_epochs=1)).fit(X, y, validation_data=(files, y))
    assert not [w for w in caught if "black" in str(w.message)]
    assert new.model_.value_range is None


def test_files_of_several_depths_are_learnt_together():
    X, y = stripes(24)
    deep = [
        dicom(np.rint(x * (4095 / 255)).astype(np.uint16), BitsStored=12)
        if i % 6
        else dicom(x.astype(np.uint16) * 257, BitsStored=16)
        for i, x in enumerate(X)
    ]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*nearly black")
        warnings.filterwarnings("ignore", category=DiffMICWarning)
        clf = DiffMICClassifier(**small(max_epochs=1)).fit(deep, y)
        assert clf.model_.value_range == ValueRange(0, 65535)
        even = DiffMICClassifier(**small(max_epochs=1)).fit(X, y)
        np.testing.assert_allclose(clf.predict_proba(deep), even.predict_proba(X), atol=0.02)


@pytest.mark.slow
def test_exported_models_read_them_in_the_same_way(tmp_path):
    pytest.importorskip("onnxruntime")
    from diffmic.runtime import OnnxClassifier

    clf = DiffMICClassifier(**small(max_epochs=1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clf.fit(*stripes(24))
        runtime = OnnxClassifier(clf.export_onnx(tmp_path / "model.onnx"))
        for kind, content in (SAYS | SAYS_NOTHING).items():
            expected = clf.predict_proba([content()])
            found = runtime.predict_proba([content()])
            np.testing.assert_allclose(found, expected, atol=5e-3, err_msg=kind)
    with pytest.raises(InputError, match="range is not known"):
        runtime.predict_proba([dicom(PIXELS, Modality="CT")])
