"""DICOM files: units, window, inversion, palettes, and what to do about those without image."""

import io
import re
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import small, stripes

from diffmic import DiffMICClassifier
from diffmic.data.files import check_image_file, read_image
from diffmic.data.images import as_image
from diffmic.data.ranges import ValueRange
from diffmic.data.reading import Reading
from diffmic.dicom import is_dicom
from diffmic.errors import InputError

pydicom = pytest.importorskip("pydicom")
from pydicom.data import get_testdata_file  # noqa: E402
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.sequence import Sequence  # noqa: E402
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian  # noqa: E402

GRADIENT = np.arange(60, dtype=np.int16).reshape(6, 10) * 20 - 400  # -400 to 780
WINDOW = {"WindowCenter": "40", "WindowWidth": "400"}
NAME = "Doe^Jane"


def shipped(name):
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip("not shipped with this pydicom")
    return path


def dicom(stored, *, preamble=True, **elements):
    """Content of a DICOM file of these stored values."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, "1.2.3.4"
    dataset.PatientName, dataset.PatientID = NAME, "12345"
    dataset.Rows, dataset.Columns = stored.shape[-2:] if stored.ndim == 2 else stored.shape[:2]
    dataset.SamplesPerPixel = 1 if stored.ndim == 2 else 3
    dataset.PhotometricInterpretation = "MONOCHROME2" if stored.ndim == 2 else "RGB"
    if stored.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = stored.dtype.itemsize * 8
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    dataset.PixelData = stored.tobytes()
    for name, value in elements.items():
        setattr(dataset, name, value)
    if "BitsStored" in elements:
        dataset.HighBit = dataset.BitsStored - 1
    file = io.BytesIO()
    if preamble:
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.save_as(file, enforce_file_format=True)
    else:
        dataset.save_as(file, implicit_vr=True, little_endian=True)
    return file.getvalue()


def raw(content, **options):
    return as_image(content, reading=Reading(raw=True, **options))


def test_units_are_those_of_the_modality():
    found = raw(dicom(GRADIENT, RescaleSlope="2", RescaleIntercept="-1024"))
    np.testing.assert_array_equal(found[0], GRADIENT.astype(int) * 2 - 1024)


def test_a_window_gives_0_to_1():
    content = dicom(
        GRADIENT, RescaleSlope="1", RescaleIntercept="0", WindowCenter="40", WindowWidth="400"
    )
    found = as_image(content)
    assert found.dtype == torch.float32
    expected = ((GRADIENT - 39.5) / 399 + 0.5).clip(0, 1)
    np.testing.assert_allclose(found[0], expected, atol=1e-3)


def test_of_several_windows_the_first_is_used():
    one = dicom(GRADIENT, WindowCenter=["40", "0"], WindowWidth=["400", "5"])
    assert torch.equal(as_image(one), as_image(dicom(GRADIENT, **WINDOW)))


def test_a_window_without_width_is_none():
    found = raw(dicom(GRADIENT, WindowCenter="40", WindowWidth="0"))
    np.testing.assert_array_equal(found[0], GRADIENT)


def test_a_given_range_takes_the_place_of_the_window():
    content = dicom(GRADIENT, **WINDOW)
    found = as_image(content, reading=Reading(ValueRange(-400, 780, given=True)))
    np.testing.assert_allclose(found[0], (GRADIENT + 400) / 1180, atol=1e-6)
    assert torch.equal(as_image(content, reading=Reading(ValueRange(0, 9))), as_image(content))


def test_a_lut_gives_0_to_1():
    lut = Dataset()
    lut.LUTDescriptor = [256, 0, 12]
    lut.LUTData = (np.arange(256) ** 2 * 4095 // 255**2).astype(np.uint16).tobytes()
    lut["LUTData"].VR = "OW"
    stored = np.arange(60, dtype=np.uint8).reshape(6, 10) * 4
    found = as_image(dicom(stored, VOILUTSequence=Sequence([lut])))
    np.testing.assert_allclose(found[0], (stored / 255.0) ** 2, atol=1e-3)


@pytest.mark.parametrize("options", [{}, {"WindowCenter": "190", "WindowWidth": "1180"}])
def test_monochrome1_is_inverted(options):
    normal = dicom(GRADIENT, **options)
    inverse = dicom(GRADIENT, PhotometricInterpretation="MONOCHROME1", **options)
    one, other = raw(normal), raw(inverse)
    if options:
        assert torch.allclose(one + other, torch.ones(()))
    else:
        assert len((one + other).unique()) == 1
        scaled = ValueRange(-400, 780, given=True)
        one, other = raw(normal, value_range=scaled), raw(inverse, value_range=scaled)
        assert torch.allclose(one + other, torch.ones(()))


def test_monochrome1_of_12_bits_stays_within_12_bits():
    stored = np.arange(60, dtype=np.uint16).reshape(6, 10) * 60
    found = raw(dicom(stored, PhotometricInterpretation="MONOCHROME1", BitsStored=12))
    np.testing.assert_array_equal(found[0], 4095 - stored.astype(int))


def test_8_bits_stay_bytes():
    stored = np.arange(60, dtype=np.uint8).reshape(6, 10) * 4
    found = as_image(dicom(stored))
    assert found.dtype == torch.uint8
    np.testing.assert_array_equal(found[0], stored)
    inverse = as_image(dicom(stored, PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_array_equal(inverse[0], 255 - stored)


def test_padding_is_as_dark_as_the_darkest_pixel():
    stored = GRADIENT.copy()
    stored[0, :3] = -2000
    found = raw(dicom(stored, PixelPaddingValue=-2000))
    assert found.min() == stored[stored > -2000].min()
    assert int(found[0, 0, 0]) == found.min()


def test_colours_are_bytes():
    rgb = np.random.RandomState(0).randint(0, 256, (6, 10, 3), np.uint8)
    np.testing.assert_array_equal(as_image(dicom(rgb)), rgb.transpose(2, 0, 1))
    deep = as_image(dicom(rgb.astype(np.uint16) * 257))
    np.testing.assert_array_equal(deep, rgb.transpose(2, 0, 1))


def test_a_file_without_preamble_is_known_by_its_name_or_its_beginning(tmp_path):
    content = dicom(GRADIENT, preamble=False)
    for name in ("a.dcm", "b", "c.ima"):
        (tmp_path / name).write_bytes(content)
        check_image_file(tmp_path / name)
        reading = Reading(raw=True)
        np.testing.assert_array_equal(as_image(tmp_path / name, reading=reading)[0], GRADIENT)


def test_a_png_that_is_called_dcm_is_a_png(tmp_path):
    pixels = np.arange(60, dtype=np.uint8).reshape(6, 10)
    Image.fromarray(pixels).save(tmp_path / "a.dcm", format="PNG")
    np.testing.assert_array_equal(read_image(tmp_path / "a.dcm")[0], pixels)
    assert not is_dicom(b"\x89PNG", "'a.dcm'")


REFUSED = {
    "report": ({"PixelData": None}, r"without an image \(no pixel data\)"),
    "frames": ({"NumberOfFrames": 6, "Rows": 1}, r"of 6 frames.*index=k.*numpy.save"),
    "cut": ({"PixelData": b"\0" * 50}, "cannot be decoded"),
    "fractions": ({"RescaleSlope": "0.37", "RescaleIntercept": "0"}, "fractional.*value_range"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_files_that_hold_no_single_image_are_refused_with_advice(tmp_path, kind):
    elements, message = REFUSED[kind]
    content = dicom(GRADIENT, **elements)
    if kind == "report":
        dataset = pydicom.dcmread(io.BytesIO(content))
        del dataset.PixelData
        file = io.BytesIO()
        dataset.save_as(file)
        content = file.getvalue()
    (tmp_path / "a.dcm").write_bytes(content)
    with pytest.raises(InputError) as caught:
        raw(tmp_path / "a.dcm")
    text = str(caught.value)
    assert "a.dcm" in text
    assert re.search(message, text, re.DOTALL), text
    assert NAME not in text


def test_fractions_are_read_where_the_range_is_given():
    content = dicom(GRADIENT, RescaleSlope="0.5", RescaleIntercept="0")
    found = as_image(content, reading=Reading(ValueRange(-200, 390, given=True)))
    np.testing.assert_allclose(found[0], (GRADIENT / 2 + 200) / 590, atol=1e-6)


def test_an_enhanced_file_holds_its_window_in_groups():
    window, units, groups = Dataset(), Dataset(), Dataset()
    window.WindowCenter, window.WindowWidth = "40", "400"
    units.RescaleSlope, units.RescaleIntercept = "1", "0"
    groups.FrameVOILUTSequence = Sequence([window])
    groups.PixelValueTransformationSequence = Sequence([units])
    content = dicom(GRADIENT, SharedFunctionalGroupsSequence=Sequence([groups]))
    plain = dicom(GRADIENT, **WINDOW)
    assert torch.equal(as_image(content), as_image(plain))


@pytest.mark.parametrize("name", ["garbage", "header"])
def test_a_damaged_file_is_named(tmp_path, name):
    content = b"\0" * 128 + b"DICM" + (b"\0" * 400 if name == "garbage" else b"")
    (tmp_path / "a.dcm").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.dcm.*DICOM"):
        read_image(tmp_path / "a.dcm")


def test_without_pydicom_the_message_says_how_to_install_it(tmp_path, monkeypatch):
    (tmp_path / "a.dcm").write_bytes(dicom(GRADIENT))
    monkeypatch.setitem(sys.modules, "pydicom.pixels", None)
    for read in (read_image, check_image_file):
        with pytest.raises(InputError, match=r'a\.dcm.*pip install "diffmic\[dicom\]"'):
            read(tmp_path / "a.dcm")


def test_a_missing_plugin_is_named(monkeypatch):
    from pydicom.pixels import get_decoder
    from pydicom.uid import JPEG2000Lossless

    monkeypatch.setattr(get_decoder(JPEG2000Lossless), "_available", {})
    with pytest.raises(
        InputError, match=r"JPEG 2000.*plugin is missing.*diffmic\[dicom\].*would do"
    ):
        raw(shipped("MR_small_jp2klossless.dcm"))


def test_nothing_of_the_patient_is_said(tmp_path, caplog):
    (tmp_path / "a.dcm").write_bytes(dicom(GRADIENT, **WINDOW))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        as_image(tmp_path / "a.dcm")
    assert not caught
    assert not caplog.records


SHIPPED = {
    "CT_small.dcm": (1, 128, 128),
    "MR_small.dcm": (1, 64, 64),
    "MR_small_bigendian.dcm": (1, 64, 64),
    "MR_small_implicit.dcm": (1, 64, 64),
    "MR_small_RLE.dcm": (1, 64, 64),
    "SC_rgb_rle.dcm": (3, 100, 100),
    "SC_ybr_full_422_uncompressed.dcm": (3, 100, 100),
    "examples_palette.dcm": (3, 350, 800),
    "image_dfl.dcm": (1, 512, 512),
}
COMPRESSED = {
    "MR_small_jp2klossless.dcm": (1, 64, 64),
    "MR_small_jpeg_ls_lossless.dcm": (1, 64, 64),
    "SC_rgb_jpeg_dcmtk.dcm": (3, 100, 100),
    "SC_rgb_jpeg_gdcm.dcm": (3, 100, 100),
    "examples_jpeg2k.dcm": (3, 480, 640),
}


@pytest.mark.parametrize("name", SHIPPED | COMPRESSED)
def test_files_that_pydicom_ships_are_read(name):
    if name in COMPRESSED:
        pytest.importorskip("gdcm")
    found = raw(shipped(name))
    assert found.shape == (SHIPPED | COMPRESSED)[name]
    assert found.float().std() > 0
    if name.startswith("MR_small_"):  # the same image in other encodings
        assert torch.allclose(found, raw(shipped("MR_small.dcm")))
    if name.startswith("SC_rgb_") or "ybr" in name:  # bars of pure colours, red on top
        assert (found[:, 5, 50].int() - torch.tensor([255, 0, 0])).abs().max() < 12


def test_files_of_ct_are_learnt_and_predicted(tmp_path):
    X, y = stripes(24)
    paths = [tmp_path / f"{i}" for i in range(24)]
    for path, image in zip(paths, X, strict=True):
        path.write_bytes(
            dicom(image.astype(np.int16) * 4, RescaleSlope="1", RescaleIntercept="-1024")
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clf = DiffMICClassifier(**small(max_epochs=1)).fit(paths, y)
    assert clf.model_.value_range == ValueRange(-1024, 1)
    proba = clf.predict_proba(paths)
    assert np.isfinite(proba).all()
    np.testing.assert_allclose(clf.predict_proba([p.read_bytes() for p in paths]), proba, atol=1e-6)


@pytest.mark.parametrize("bits", [14, 16])
def test_inverted_pixels_that_use_few_of_their_bits_are_not_all_white(bits):
    X, y = stripes(30)
    options = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": bits}
    files = [dicom(x.astype(np.uint16) * 16, **options) for x in X]
    clf = DiffMICClassifier(**small(max_epochs=1)).fit(files, y)
    value_range = clf.model_.value_range
    shown = torch.cat([as_image(file, reading=Reading(value_range)) for file in files])
    pixels = torch.from_numpy(X).float()
    assert np.corrcoef(shown.flatten(), pixels.flatten())[0, 1] < -0.99  # inverted, not clipped
    assert shown.max() - shown.min() > 0.2
