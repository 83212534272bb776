"""Tensors, arrays and files of every kind are read as the same plain image."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import tv_tensors

from diffmic.data import read_inputs
from diffmic.data.images import as_image
from diffmic.data.ranges import ValueRange
from diffmic.data.reading import Reading
from diffmic.errors import InputError

RGB = np.random.RandomState(0).randint(0, 256, (3, 6, 10), np.uint8)
FLOATS = torch.from_numpy(RGB).float() / 255


class Meta(torch.Tensor):
    """Like MONAI's: every operation returns the subclass, and arithmetic may not be done."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func.__name__ in ("add", "mul", "sub", "div", "to", "clamp"):
            raise TypeError("arithmetic of the subclass")
        return super().__torch_function__(func, types, args, kwargs or {})


def strided(image):
    return torch.empty(6, 10, 3).copy_(image.permute(1, 2, 0)).permute(2, 0, 1)


TENSORS = {
    "subclass": lambda image: image.as_subclass(Meta),
    "torchvision": tv_tensors.Image,
    "parameter": nn.Parameter,
    "gradient": lambda image: image.clone().requires_grad_(),
    "result": lambda image: image.clone().requires_grad_() * 1,
    "sparse": lambda image: image.to_sparse(),
    "double": lambda image: image.double(),
    "strided": strided,
    "flipped twice": lambda image: image.flip(2).flip(2),
    "inference": lambda image: torch.inference_mode()(image.clone)(),
    "negative view": lambda image: torch.complex(image, -image).conj().imag,
}


@pytest.mark.parametrize("kind", TENSORS.values(), ids=TENSORS)
def test_tensors_of_every_kind_are_plain_from_the_door_on(kind):
    value = kind(FLOATS)
    for found in (as_image(value), read_inputs(value[None]).images[0]):
        assert type(found) is torch.Tensor
        assert found.layout == torch.strided
        assert not found.requires_grad
        assert torch.equal(found, FLOATS)


def test_half_precision_and_quantised_tensors_are_read():
    for value in (FLOATS.half(), FLOATS.bfloat16()):
        assert torch.allclose(as_image(value), FLOATS, atol=4e-3)
    quantised = torch.quantize_per_tensor(FLOATS, 1 / 255, 0, torch.quint8)
    assert torch.allclose(as_image(quantised), FLOATS, atol=1e-6)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.zeros(3, 4, 4, device="meta"), "meta"),
        (np.ma.masked_array(RGB, RGB > 9), r"masked.*filled"),
        (np.array(["a", "b"]), "type"),
    ],
    ids=["meta", "masked", "strings"],
)
def test_tensors_and_arrays_without_values_are_refused(value, message):
    with pytest.raises(InputError, match=message):
        as_image(value)


ARRAYS = {
    "big endian": lambda image: image.astype(">f4"),
    "double": lambda image: image.astype("float64"),
    "masked nowhere": np.ma.masked_array,
    "fortran": np.asfortranarray,
    "negative strides": lambda image: image[:, ::-1].copy()[:, ::-1],
}


@pytest.mark.parametrize("kind", ARRAYS.values(), ids=ARRAYS)
def test_arrays_of_every_kind_are_read(kind):
    value = kind(FLOATS.numpy())
    assert torch.equal(as_image(value), FLOATS)
    assert torch.equal(read_inputs(value[None]).images[0], FLOATS)


def test_a_memory_map_and_a_read_only_array_are_read(tmp_path):
    np.save(tmp_path / "X.npy", RGB[None])
    X = np.load(tmp_path / "X.npy", mmap_mode="r")
    np.testing.assert_array_equal(read_inputs(X).images[0], RGB)


class Array:
    """Anything that numpy can read, such as arrays of other libraries."""

    def __init__(self, pixels):
        self.pixels = pixels

    def __array__(self, dtype=None, copy=None):
        return self.pixels


def test_arrays_of_other_libraries_are_read():
    np.testing.assert_array_equal(as_image(Array(RGB)), RGB)


class Upload:
    """An upload of an asynchronous web framework."""

    def __init__(self, content):
        self.file = io.BytesIO(content)

    async def read(self):
        return self.file.read()


class Awaited:
    async def read(self):
        return b""


@pytest.fixture
def png(tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(RGB.transpose(1, 2, 0)).save(path)
    return path


class Own(os.PathLike):
    def __init__(self, path):
        self.path = path

    def __fspath__(self):
        return str(self.path)


FILES = {
    "str": str,
    "Path": Path,
    "PathLike": Own,
    "bytes": Path.read_bytes,
    "bytearray": lambda path: bytearray(path.read_bytes()),
    "memoryview": lambda path: memoryview(path.read_bytes()),
    "BytesIO": lambda path: io.BytesIO(path.read_bytes()),
    "open file": lambda path: path.open("rb"),
    "unbuffered": lambda path: path.open("rb", buffering=0),
    "upload": lambda path: Upload(path.read_bytes()),
    "PIL": Image.open,
}


@pytest.mark.parametrize("kind", FILES.values(), ids=FILES)
def test_files_of_every_kind_are_read_as_often_as_needed(png, kind):
    value = kind(png)
    for _ in range(2):
        np.testing.assert_array_equal(as_image(value), RGB)
    images = read_inputs([kind(png), kind(png)]).images
    np.testing.assert_array_equal(images[1], RGB)
    np.testing.assert_array_equal(images[1], RGB)
    np.testing.assert_array_equal(read_inputs(kind(png), known_channels=3).images[0], RGB)
    with pytest.raises(InputError, match="X is one image"):
        read_inputs(kind(png))


def test_a_file_is_read_from_its_beginning_and_left_where_it_was(png):
    with png.open("rb") as file:
        file.seek(7)
        np.testing.assert_array_equal(as_image(file), RGB)
        assert file.tell() == 7


def test_a_home_folder_is_found(png, monkeypatch):
    monkeypatch.setenv("HOME", str(png.parent))
    np.testing.assert_array_equal(as_image("~/image.png"), RGB)


@pytest.mark.parametrize("form", [np.asarray, lambda x: np.asarray(x)[:, None]])
@pytest.mark.parametrize("kind", [str, os.fsencode], ids=["str", "bytes"])
def test_arrays_of_paths_may_be_columns_or_bytes(png, form, kind):
    images = read_inputs(form([kind(png)] * 2)).images
    np.testing.assert_array_equal(images[1], RGB)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("https://example.org/a.png", "is a URL. Download it first"),
        ("s3://bucket/a.png", "is a URL"),
        ("data:image/png;base64,iVBORw0", "data URL.*b64decode"),
        (io.StringIO("text"), "image 1 .*binary mode"),
        (io.BytesIO(), "image 1 .*empty"),
        (b"", "image 1 .*empty"),
        (b"no image", "image 1 is not an image that can be read"),
        (Awaited(), "image 1 must be awaited"),
    ],
    ids=["https", "s3", "data", "text file", "empty file", "empty bytes", "bytes", "awaited"],
)
def test_files_that_cannot_be_read_are_refused_with_advice(png, value, message):
    with pytest.raises(InputError, match=message):
        read_inputs([str(png), value], known_channels=3).images[1]


def test_closed_files_are_refused(png):
    file = png.open("rb")
    file.close()
    with pytest.raises(InputError, match=r"image 0 is a BufferedReader that cannot be read.*clos"):
        read_inputs([file, file])


def test_integers_of_any_type_are_taken_where_the_range_is_known():
    reading, half = Reading(ValueRange(0, 255)), RGB // 2
    expected = torch.from_numpy(half).float() / 255
    for dtype in ("int8", "int16", "int32", "int64", "uint16", "uint32", "uint64", ">i2", "<u2"):
        assert torch.allclose(as_image(half.astype(dtype), reading=reading), expected)
    for kind in (torch.int16, torch.int32, torch.int64, torch.uint16):
        assert torch.allclose(as_image(torch.from_numpy(half).to(kind), reading=reading), expected)
