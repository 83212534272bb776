"""Damaged images, tables and checkpoints: read, or refused with a documented error."""

import io

import numpy as np
import pytest
import tifffile
import torch
from data.test_dicom import dicom
from datasets.test_public import save_medmnist
from fuzz.attempts import attempt_all
from fuzz.mutations import of_bytes, of_safetensors
from PIL import Image
from safetensors.torch import save
from torch import nn

from diffmic.convert import convert_state_dict, read_checkpoint
from diffmic.data import read_inputs
from diffmic.datasets import read_csv, read_medmnist

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
WAVES = (127 + 120 * np.sin(np.arange(48 * 40).reshape(40, 48) / 9)).astype(np.uint8)
COLOURS = np.stack([WAVES, WAVES[::-1], 255 - WAVES], axis=2)


def encoded(kind, pixels=COLOURS, **options):
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind, **options)
    return content.getvalue()


def tiff(pixels, **options):
    content = io.BytesIO()
    tifffile.imwrite(content, pixels, **options)
    return content.getvalue()


def volume(kind):
    content = io.BytesIO()
    if kind == "npy":
        np.save(content, WAVES)
        return content.getvalue()
    nibabel = pytest.importorskip("nibabel")
    return nibabel.Nifti1Image(WAVES[..., None], np.eye(4)).to_bytes()


IMAGES = {
    "a.png": lambda: encoded("PNG"),
    "palette.png": lambda: encoded("PNG", WAVES // 16 * 16),
    "deep.png": lambda: encoded("PNG", WAVES.astype(np.uint16) * 257),
    "a.jpeg": lambda: encoded("JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0"),
    "progressive.jpeg": lambda: encoded("JPEG", progressive=True),
    "a.gif": lambda: encoded("GIF", WAVES),
    "a.bmp": lambda: encoded("BMP"),
    "a.webp": lambda: encoded("WEBP"),
    "a.jp2": lambda: encoded("JPEG2000"),
    "lzw.tiff": lambda: encoded("TIFF", compression="tiff_lzw"),
    "white.tiff": lambda: tiff(WAVES.astype(np.uint16) * 257, photometric="miniswhite"),
    "float.tiff": lambda: tiff(WAVES.astype(np.float32) / 255),
    "a.dcm": lambda: dicom(WAVES.astype(np.int16), WindowCenter="128", WindowWidth="256"),
    "bare.dcm": lambda: dicom(COLOURS, preamble=False),
    "a.nii": lambda: volume("nii"),
    "a.npy": lambda: volume("npy"),
}


@pytest.mark.parametrize("name", IMAGES)
def test_damaged_images(name, tmp_path):
    content, file = IMAGES[name](), tmp_path / name

    def attempt(rng):
        file.write_bytes(of_bytes(rng, content))
        source = read_inputs([file]).images
        for index in range(len(source)):
            image = source[index]
            assert torch.isfinite(torch.as_tensor(np.asarray(image)).float()).all()

    found, faults = attempt_all(range(250), attempt)
    assert not faults
    assert found["refused"]


def test_damaged_tables(tmp_path):
    for number in range(4):
        Image.fromarray(WAVES).save(tmp_path / f"{number}.png")
    rows = "".join(f'{n}.png;"{c}";p{n};train\n' for n, c in enumerate("aäbb"))
    content, file = f"file;label;patient;split\n{rows}".encode(), tmp_path / "table.csv"

    def attempt(rng):
        file.write_bytes(of_bytes(rng, content))
        table = read_csv(file, group="patient" if rng.random() < 0.5 else None)
        assert len(table.images) > 0

    found, faults = attempt_all(range(1500), attempt)
    assert not faults
    assert found["refused"]
    assert found["used"]


def test_damaged_files_of_medmnist(tmp_path):
    file = tmp_path / "breastmnist.npz"
    save_medmnist(file, "breastmnist")
    content = file.read_bytes()
    with np.load(file) as arrays:
        np.savez(file, **arrays)  # headers of arrays that are not compressed can be changed
    contents = content, file.read_bytes()

    def attempt(rng):
        file.write_bytes(of_bytes(rng, rng.choice(contents)))
        read_medmnist("breastmnist", tmp_path)

    found, faults = attempt_all(range(800), attempt)
    assert not faults
    assert found["refused"]


@pytest.mark.parametrize("kind", ["torch", "old torch", "safetensors"])
def test_damaged_checkpoints_of_the_authors(kind, tmp_path):
    tensors = dict(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).state_dict())
    file, content = tmp_path / "checkpoint", io.BytesIO()
    if kind == "safetensors":
        content.write(save(tensors))
    else:
        new = kind == "torch"
        torch.save({"state_dict": tensors}, content, _use_new_zipfile_serialization=new)

    def attempt(rng):
        change = of_safetensors if kind == "safetensors" and rng.random() < 0.5 else of_bytes
        file.write_bytes(change(rng, content.getvalue()))
        convert_state_dict(read_checkpoint(file))

    found, faults = attempt_all(range(800), attempt)
    assert not faults
    assert found["refused"] == 800  # these are no tensors of the authors
