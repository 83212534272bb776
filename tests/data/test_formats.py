"""Files that Pillow does not read, or not whole, are told what they are and what to do."""

import gzip
import io
import re
import struct
import zipfile
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from diffmic.data.files import check_image_file, read_image
from diffmic.data.images import as_image
from diffmic.data.reading import Note, Reading
from diffmic.errors import InputError

tifffile = pytest.importorskip("tifffile")
GRAY = np.arange(60, dtype=np.uint8).reshape(6, 10) * 4


def npz():
    file = io.BytesIO()
    np.savez(file, X=GRAY)
    return file.getvalue()


def archive():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as folder:
        folder.writestr("a.png", b"")
    return file.getvalue()


def nifti():
    return b"\x5c\x01\0\0" + b"\0" * 340 + b"n+1\0" + b"\0" * 100


FILES = {
    "a.nii": (nifti(), r"NIfTI.*nibabel\.load\(file\)\.get_fdata\(\)\n.*value_range"),
    "a.nii.gz": (gzip.compress(nifti()), r"NIfTI.*nibabel\.load"),
    "a.mgz": (gzip.compress(b"x" * 400), r"nibabel\.load"),
    "a.nrrd": (b"NRRD0004\ntype: short\n", r"NRRD.*SimpleITK"),
    "a.mhd": (b"ObjectType = Image\nNDims = 3\n", r"MetaImage.*SimpleITK"),
    "a.npz": (npz(), r"ZIP|archive.*numpy\.load\(file\)\[name\]"),
    "a.zip": (archive(), "archive. Unpack"),
    "a.gz": (gzip.compress(b"x" * 400), "gzip"),
    "a.h5": (b"\x89HDF\r\n\x1a\n" + b"\0" * 100, r"HDF5.*h5py\.File"),
    "a.mat": (b"MATLAB 5.0 MAT-file" + b"\0" * 200, r"MATLAB.*loadmat"),
    "a.pdf": (b"%PDF-1.7\n%\xe2\xe3", "PDF"),
    "a.svg": (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
    "b.svg": (b'<svg xmlns="http://www.w3.org/2000/svg"></svg>', "SVG"),
    "a.html": (b"<!DOCTYPE html><html><body>404", "web page.*Download it again"),
    "a.png": (b"path,label\na.png,1\n", r"it is a text\."),
    "a.txt": (b"A file.\nWEBP is a format", r"it is a text\."),
    "b.png": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
    "c.png": (b"", r"empty \(0 bytes\)"),
    "d.png": (bytes(range(256)), "its format is not known"),
    "a.heic": (b"\0\0\0\x18ftypheic" + b"\0" * 100, r"HEIC.*pillow-heif"),
    "a.mp4": (b"\0\0\0\x18ftypisom" + b"\0" * 100, "video.*frames"),
    "a.avi": (b"RIFF\0\0\0\0AVI LIST" + b"\0" * 100, "video"),
    "a.mkv": (b"\x1aE\xdf\xa3" + b"\0" * 100, "video"),
    "a.webp": (b"RIFF\0\0\0\0WEBPVP9 " + b"\0" * 20, "WebP, damaged or unknown"),
    "a.jxl": (b"\xff\x0a" + b"\0" * 100, "JPEG XL"),
    "a.pt": (archive(), "archive"),
    "a.pkl": (b"\x80\x04\x95" + b"\0" * 100, "pickle"),
}


@pytest.mark.parametrize(
    ("name", "read"),
    [
        *((name, read_image) for name in FILES),
        *((name, check_image_file) for name in FILES if name != "a.h5"),  # Pillow reads its header
    ],
)
def test_other_files_are_told_what_they_are(tmp_path, name, read):
    content, message = FILES[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read(path)
    text = str(caught.value)
    assert text.startswith(f"The file '{path}' is not an image that can be read: ")
    assert re.search(message, text, re.DOTALL), text
    assert "path,label" not in text  # contents stay where they are


@pytest.mark.parametrize("dtype", ["float16", "float64", "uint64", "complex64"])
def test_a_tiff_that_pillow_does_not_know_is_for_tifffile(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "a.tif", GRAY.astype(dtype))
    with pytest.raises(InputError, match=r"a\.tif' is not.*TIFF that Pillow.*tifffile\.imread"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("pixels", "options"),
    [
        (np.stack([GRAY.astype(np.uint16) * 200] * 3), {"planarconfig": "separate"}),
        (GRAY.astype(np.int8), {"photometric": "minisblack"}),
        (GRAY.astype(np.uint32), {"photometric": "miniswhite"}),
    ],
    ids=["16 bits in planes", "signed bytes", "32 bits of white"],
)
def test_a_tiff_that_pillow_misreads_is_refused(tmp_path, pixels, options):
    options = {"photometric": "rgb"} | options
    tifffile.imwrite(tmp_path / "a.tif", pixels, **options)
    with pytest.raises(InputError, match=r"a\.tif.*tifffile\.imread"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_tiff_whose_white_is_zero_is_inverted(tmp_path, dtype):
    top = np.iinfo(dtype).max
    pixels = GRAY.astype(dtype) * (top // 255)
    tifffile.imwrite(tmp_path / "white.tif", top - pixels, photometric="miniswhite")
    found = read_image(tmp_path / "white.tif")
    found = found if dtype == np.uint8 else (found * 255).round()
    np.testing.assert_array_equal(found[0], GRAY)


def test_floats_and_bits_whose_white_is_zero_are_inverted(tmp_path):
    floats = (GRAY / 255).astype(np.float32)
    tifffile.imwrite(tmp_path / "white.tif", 1 - floats, photometric="miniswhite")
    np.testing.assert_allclose(read_image(tmp_path / "white.tif")[0], floats, atol=1e-6)


@pytest.mark.parametrize("shape", [(6, 10), (6, 10, 3), (3, 6, 10)])
def test_a_numpy_file_of_one_image_is_read(tmp_path, shape):
    pixels = np.random.RandomState(0).randint(0, 256, shape, np.uint8)
    np.save(tmp_path / "a.npy", pixels)
    check_image_file(tmp_path / "a.npy")
    np.testing.assert_array_equal(read_image(tmp_path / "a.npy"), as_image(pixels))
    np.testing.assert_array_equal(as_image((tmp_path / "a.npy").read_bytes()), as_image(pixels))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((7, 6, 10), np.uint8), r"a\.npy.* shape"),
        (np.zeros((6, 10), np.int16), r"a\.npy.*int16.*value_range"),
        (np.array([{"a": 1}]), r"a\.npy.*pickle"),
    ],
    ids=["volume", "int16", "objects"],
)
def test_a_numpy_file_of_something_else_is_named(tmp_path, value, message):
    np.save(tmp_path / "a.npy", value)
    with pytest.raises(InputError, match=message):
        read_image(tmp_path / "a.npy")


def deep_png(pixels):
    """PNG of 16 bits per colour, which Pillow cannot write."""

    def chunk(kind, data):
        end = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + end

    height, width, channels = pixels.shape
    kind = {2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_a_colour_png_of_16_bits_keeps_them(channels):
    colours = np.random.RandomState(0).randint(0, 65536, (6, 10, channels)).astype(np.uint16)
    if channels != 3:
        colours[..., -1] = 65535
    shown = colours if channels == 3 else colours[..., :-1]
    found = as_image(deep_png(colours))
    np.testing.assert_allclose(found, shown.transpose(2, 0, 1) / 65535, atol=1e-6)


def test_bits_that_pillow_drops_are_noted(tmp_path):
    pixels = np.stack([GRAY.astype(np.uint16) * 257] * 3, axis=2)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb")
    for value in (tmp_path / "a.tif", Image.open(io.BytesIO(deep_png(pixels)))):
        reading = Reading()
        np.testing.assert_array_equal(as_image(value, reading=reading)[0], GRAY)
        assert list(reading.notes) == [Note.BITS]


# Alpha and modes.


def noted(value):
    reading = Reading()
    image = as_image(value, reading=reading)
    return image, {note: len(places) for note, places in reading.notes.items()}


CUT = np.zeros((6, 10, 4), np.uint8)
CUT[..., 0] = 200  # red that is cut away
CUT[1:3, 2:5] = (0, 250, 0, 255)


def palette(transparent):
    image = Image.fromarray(np.repeat([[0, 1]], 3, axis=0).astype(np.uint8), "P")
    image.putpalette([200, 0, 0, 0, 250, 0])
    if transparent:
        image.info["transparency"] = 0
    return image


def saved(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def test_transparent_pixels_are_black_and_noted():
    expected = np.where(CUT[..., 3:] > 0, CUT[..., :3], 0).transpose(2, 0, 1)
    image = Image.fromarray(CUT)
    for value in (
        image,
        saved(image, "PNG"),
        saved(image, "TIFF"),
        saved(image, "WEBP", lossless=True, exact=True),
    ):
        found, notes = noted(value)
        np.testing.assert_array_equal(found, expected)
        assert notes == {Note.ALPHA: 1}


def test_half_transparent_pixels_are_mixed_with_black():
    image = Image.fromarray(np.array([[[200, 128]]], np.uint8), "LA")
    found, notes = noted(image)
    assert found.flatten().tolist() == [100]
    assert notes == {Note.ALPHA: 1}


@pytest.mark.parametrize("kind", ["palette", "gray", "colour", "GIF"])
def test_colours_that_count_as_transparent_are_black_and_noted(kind):
    if kind == "gray":
        value = saved(Image.fromarray(GRAY), "PNG", transparency=int(GRAY[0, 3]))
        hidden = (0, 3)
    elif kind == "colour":
        value = saved(Image.fromarray(CUT[..., :3]), "PNG", transparency=(200, 0, 0))
        hidden = (0, 0)
    else:
        value = saved(palette(True), "GIF" if kind == "GIF" else "PNG", transparency=0)
        hidden = (0, 0)
    found, notes = noted(value)
    assert found[:, hidden[0], hidden[1]].tolist() == [0] * len(found)
    assert found.max() > 200
    assert notes == {Note.ALPHA: 1}


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(CUT[..., :3]).convert("RGBA"),
        Image.fromarray(GRAY).convert("LA"),
        palette(False),
        Image.fromarray(CUT[..., :3]).convert("RGBX"),
    ],
    ids=["RGBA", "LA", "P", "RGBX"],
)
def test_opaque_images_say_nothing(image):
    found, notes = noted(image)
    assert found.max() >= 200
    assert notes == {}


@pytest.mark.parametrize("mode", ["La", "RGBa", "YCbCr", "HSV", "LAB", "CMYK", "I;16B", "I;16L"])
def test_less_common_modes_are_read(mode):
    if mode == "LAB":
        image = Image.fromarray(np.full((6, 10, 3), (128, 0, 0), np.uint8), "LAB")
        found, _ = noted(image)
        assert found.shape == (3, 6, 10)
        assert found.float().std() < 3  # gray
    elif mode.startswith("I;16"):
        pixels = (GRAY.astype(np.uint16) * 257).astype(">u2" if mode == "I;16B" else "<u2")
        image = Image.frombytes(mode, (10, 6), pixels.tobytes())
        assert torch.allclose(as_image(image)[0], torch.from_numpy(GRAY / 255).float())
    else:
        source = Image.fromarray(GRAY).convert({"La": "LA", "RGBa": "RGBA"}.get(mode, "RGB"))
        found, notes = noted(source.convert(mode))
        assert (found[0].float() - torch.from_numpy(GRAY).float()).abs().max() < 5
        assert notes == {}


# Frames.


def frames(format, n=3):
    images = [Image.fromarray(np.full((6, 10), 50 * (i + 1), np.uint8)) for i in range(n)]
    return saved(images[0], format, save_all=True, append_images=images[1:])


@pytest.mark.parametrize("format", ["GIF", "TIFF", "PNG", "WEBP"])
def test_the_first_of_several_frames_is_taken_and_noted(format):
    found, notes = noted(frames(format))
    assert abs(int(found.float().mean()) - 50) <= 3
    assert notes == {Note.FRAMES: 1}
    found, notes = noted(frames(format, n=1))
    assert notes == {}


def test_a_frame_that_was_chosen_is_taken_without_a_word():
    image = Image.open(io.BytesIO(frames("TIFF")))
    image.seek(2)
    found, notes = noted(image)
    assert int(found.max()) == 150
    assert notes == {}
