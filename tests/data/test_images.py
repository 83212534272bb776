"""One image: PIL, array, tensor or file → (C, H, W), uint8 or float in 0–1."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from diffmic.data.files import check_image_file, read_image
from diffmic.data.images import as_image, as_tensor, channels_first, in_range
from diffmic.data.reading import Reading
from diffmic.errors import InputError

GRADIENT = np.arange(6 * 10, dtype=np.uint8).reshape(6, 10) * 4


def checked_range(images):
    return in_range(images, Reading())


def pil(mode):
    """A picture of 6 × 10 pixels in a mode of Pillow."""
    if mode.startswith("I;16"):
        return Image.fromarray(GRADIENT.astype("<u2") * 257).convert(mode)
    if mode == "I":
        return Image.fromarray(GRADIENT.astype(np.int32) * 257)
    if mode == "F":
        return Image.fromarray(GRADIENT.astype(np.float32) / 255)
    return Image.fromarray(GRADIENT).convert("RGB").convert(mode)


@pytest.mark.parametrize(
    ("mode", "channels"),
    [
        ("L", 1),
        ("1", 1),
        ("LA", 1),
        ("I", 1),
        ("I;16", 1),
        ("F", 1),
        ("RGB", 3),
        ("RGBA", 3),
        ("P", 3),
        ("CMYK", 3),
    ],
)
def test_a_pil_image_of_any_mode_becomes_gray_or_rgb(mode, channels):
    image = as_image(pil(mode))
    assert image.shape == (channels, 6, 10)
    assert image.dtype == (torch.float32 if mode in ("I", "I;16", "F") else torch.uint8)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_a_pil_image_of_bytes_keeps_its_pixels(mode):
    assert torch.equal(as_image(pil(mode))[0], torch.from_numpy(GRADIENT))


@pytest.mark.parametrize("mode", ["I", "I;16", "F"])
def test_deep_gray_is_scaled_to_0_1(mode):
    assert torch.allclose(as_image(pil(mode))[0], torch.from_numpy(GRADIENT / 255).float())


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4", "longdouble"])
def test_float_arrays_of_any_precision_and_byte_order_become_float32(dtype):
    pixels = np.linspace(0, 1, 12).reshape(3, 4)
    tensor = as_tensor(pixels.astype(dtype))
    assert tensor.dtype == torch.float32
    np.testing.assert_allclose(tensor, pixels, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_float_tensors_of_any_precision_become_float32(dtype):
    assert as_tensor(torch.rand(3, 4).to(dtype)).dtype == torch.float32


def test_uint8_stays_uint8():
    assert as_tensor(GRADIENT).dtype == torch.uint8
    assert as_tensor(torch.from_numpy(GRADIENT)).dtype == torch.uint8


def test_a_tensor_with_a_gradient_is_read_without_it():
    assert not as_tensor(torch.rand(3, 4, requires_grad=True)).requires_grad


@pytest.mark.parametrize("view", [np.flip, np.transpose, lambda a: a[::2, ::3]])
def test_views_of_any_stride_are_read(view):
    np.testing.assert_array_equal(as_tensor(view(GRADIENT)), view(GRADIENT))


def test_a_read_only_array_is_read_without_warning():
    pixels = GRADIENT.copy()
    pixels.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(as_tensor(pixels), GRADIENT)


@pytest.mark.parametrize(
    "dtype", ["int8", "int16", "uint32", "int64", "bool", "complex64", "object", "str"]
)
def test_a_type_without_a_known_range_is_an_error_that_names_it(dtype):
    pixels = np.zeros((3, 4), dtype)
    with pytest.raises(InputError, match=rf"type {pixels.dtype}.*range is not known.*uint8.*float"):
        as_tensor(pixels)


@pytest.mark.parametrize("dtype", [torch.int16, torch.int64, torch.bool, torch.uint32])
def test_a_tensor_type_without_a_known_range_is_an_error_that_names_it(dtype):
    with pytest.raises(InputError, match=f"type {dtype}"):
        as_tensor(torch.zeros(3, 4, dtype=dtype))


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_last_is_turned_to_channels_first(channels):
    images = torch.rand(2, channels, 5, 7)
    assert torch.equal(channels_first(images), images)
    assert torch.equal(channels_first(images.permute(0, 2, 3, 1)), images)


@pytest.mark.parametrize("shape", [(2, 2, 8, 8), (2, 8, 8, 4), (2, 5, 8, 8)])
def test_another_number_of_channels_is_an_error(shape):
    with pytest.raises(InputError, match=r"shape \(.*\); 1 \(gray\) or 3 \(RGB\) channels"):
        channels_first(torch.zeros(shape))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((6, 10), (1, 6, 10)), ((6, 10, 3), (3, 6, 10)), ((3, 6, 10), (3, 6, 10))],
)
@pytest.mark.parametrize("kind", [torch.zeros, np.zeros])
def test_an_image_may_be_gray_or_have_its_channels_first_or_last(kind, shape, expected):
    assert as_image(kind(shape)).shape == expected


def test_an_image_of_another_number_of_dimensions_is_an_error():
    with pytest.raises(InputError, match=r"image 4 has shape \(2, 3, 6, 10\); \(C, H, W\)"):
        as_image(np.zeros((2, 3, 6, 10)), name="image 4")


@pytest.mark.parametrize("value", [None, 5, np.float32(5), {"image": 1}])
def test_something_that_is_no_image_is_an_error_that_names_its_type(value):
    with pytest.raises(InputError, match=f"image 2 is a {type(value).__name__}; give an array"):
        as_image(value, name="image 2")


@pytest.mark.parametrize("shape", [(1, 3, 0, 4), (1, 3, 4, 0)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_an_image_without_pixels_is_an_error(shape, dtype):
    with pytest.raises(InputError, match="without pixels"):
        checked_range(torch.zeros(shape, dtype=dtype))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_the_first_image_with_pixels_that_are_not_finite_is_named(value):
    images = torch.zeros(5, 1, 4, 4)
    images[3, 0, 1, 2] = value
    with pytest.raises(InputError, match=r"NaN or infinite, first in image 3\. Remove"):
        checked_range(images)


def test_an_image_alone_with_pixels_that_are_not_finite_is_named():
    with pytest.raises(InputError, match=r"first in image 7\."):
        as_image(np.full((4, 4), np.nan), name="image 7")


def test_negative_pixels_look_normalised_already():
    with pytest.raises(
        InputError, match=r"found -2 to 2\. They look normalised already.*Normalize"
    ):
        checked_range(torch.linspace(-2, 2, 16).view(1, 1, 4, 4))


def test_pixels_above_1_are_to_be_divided():
    with pytest.raises(InputError, match=r"found 0 to 255\. Divide them .*255"):
        checked_range(torch.linspace(0, 255, 16).view(1, 1, 4, 4))


def test_the_overshoot_of_resampling_is_clipped():
    images = torch.tensor([-1e-4, 0.5, 1.0001, 1.0]).view(1, 1, 2, 2)
    assert torch.equal(checked_range(images).flatten(), torch.tensor([0, 0.5, 1, 1]))


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp"])
@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_a_file_gives_the_pixels_that_were_written(tmp_path, suffix, kind):
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(GRADIENT).convert("RGB").save(path, lossless=True)
    check_image_file(kind(path))
    assert torch.equal(read_image(kind(path)), torch.from_numpy(GRADIENT).expand(3, 6, 10))
    assert torch.equal(as_image(kind(path)), read_image(path))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_file_of_16_bits_is_scaled_to_0_1(tmp_path, suffix):
    path = tmp_path / f"deep.{suffix}"
    Image.fromarray(GRADIENT.astype(np.uint16) * 257).save(path)
    assert torch.allclose(read_image(path)[0], torch.from_numpy(GRADIENT / 255).float())


@pytest.mark.parametrize("read", [read_image, check_image_file])
def test_a_file_that_cannot_be_read_is_named(tmp_path, read):
    text = tmp_path / "notes.png"
    text.write_text("no image")
    with pytest.raises(InputError, match=r"notes\.png' is not an image that can be read"):
        read(text)
    with pytest.raises(InputError, match=r"none\.png' does not exist"):
        read(tmp_path / "none.png")
    with pytest.raises(InputError, match=f"{tmp_path.name}' is not an image .*it is a folder"):
        read(tmp_path)
    with pytest.raises(InputError, match="is not an image that can be read"):
        read("null\0byte.png")


def test_a_truncated_file_is_named(tmp_path):
    path = tmp_path / "cut.png"
    noise = np.random.RandomState(0).randint(0, 256, (50, 50), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:800])
    with pytest.raises(InputError, match=r"cut\.png' is not an image that can be read"):
        read_image(path)


@pytest.mark.parametrize("read", [read_image, check_image_file])
def test_an_image_too_large_for_pillow_is_named(tmp_path, read, monkeypatch):
    path = tmp_path / "large.png"
    Image.fromarray(GRADIENT).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(InputError, match=r"large\.png' is not an image that can be read.*exceeds"):
        read(path)


def test_a_file_whose_pixels_are_out_of_range_is_named(tmp_path):
    path = tmp_path / "float.tif"
    Image.fromarray(GRADIENT.astype(np.float32)).save(path)
    with pytest.raises(InputError, match=r"Float images must lie in 0–1.*float\.tif'"):
        read_image(path)


def test_a_photograph_is_turned_as_its_exif_says(tmp_path):
    picture = Image.fromarray(GRADIENT)
    exif = picture.getexif()
    exif[0x0112] = 6  # turn by 90° clockwise to view it
    picture.save(tmp_path / "turned.png", exif=exif)
    expected = torch.from_numpy(np.rot90(GRADIENT, -1).copy())
    assert torch.equal(read_image(tmp_path / "turned.png")[0], expected)


def test_8_bits_in_a_mode_of_32_are_refused():
    with pytest.raises(InputError, match="from 200 to 200; their range is not known"):
        as_image(Image.fromarray(np.full((4, 4), 200, np.int32)))


def test_a_black_image_of_32_bits_is_black_whatever_its_range():
    image = Image.fromarray(np.zeros((4, 4), np.int32))
    assert image.mode == "I"
    assert as_image(image).max() == 0


def test_an_array_that_is_mirrored_along_an_axis_of_length_one_is_read():
    pixels = np.arange(12, dtype=np.uint8).reshape(1, 3, 4)
    np.testing.assert_array_equal(as_image(pixels[::-1]).numpy(), pixels)
    np.testing.assert_array_equal(as_image(np.float32(pixels)[::-1] / 16).numpy(), pixels / 16)
