"""Large files are reduced while they are decoded, without a difference; tiny images are read."""

import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import small, stripes

from diffmic import DiffMICClassifier
from diffmic.data import PreparedImages, read_inputs
from diffmic.data.images import extremes
from diffmic.data.inputs import survey_of
from diffmic.data.large import ENOUGH, LEAST
from diffmic.data.preprocessing import resized
from diffmic.data.reading import Note, Reading
from diffmic.depth import cut_to_bytes
from diffmic.errors import InputError


def scene(height, width, colour=True):
    """An image with edges, gradients and fine texture."""
    rows, columns = np.mgrid[:height, :width]
    disc = 255 * ((rows - height / 3) ** 2 + (columns - width / 2) ** 2 < (height / 4) ** 2)
    shades = [disc, 255 * rows / height, 128 + 100 * np.sin(columns / 9) * np.cos(rows / 5)]
    values = np.stack(shades, axis=-1).clip(0, 255).astype(np.uint8)
    return Image.fromarray(values if colour else values[..., 2])


def prepared(path, side, **options):
    return PreparedImages(read_inputs([path]).images, side, **options)[0]


def whole(path, side):
    """The image decoded whole, then resized."""
    return resized(read_inputs([path]).images[0], side).expand(3, -1, -1)


@pytest.mark.parametrize("colour", [True, False])
@pytest.mark.parametrize("suffix", ["jpg", "jp2", "png", "tiff"])
@pytest.mark.parametrize("side", [16, 33, 60])
def test_a_large_file_gives_the_pixels_of_the_whole_one(tmp_path, suffix, side, colour):
    path = tmp_path / f"scan.{suffix}"
    scene(530, 661, colour).save(path)
    item = prepared(path, side)
    assert item["size"].tolist() == [530, 661]
    difference = (item["image"].float() - whole(path, side).float()).abs()
    assert difference.mean() < 1.5
    assert difference.max() <= 8  # of 255; the scene is harder than images of this field


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_large_file_that_lies_on_its_side_is_turned(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / f"scan.{suffix}"
    scene(320, 480).save(path, exif=exif)
    item = prepared(path, 16)
    size = [480, 320] if orientation > 4 else [320, 480]
    assert item["size"].tolist() == size
    assert survey_of(read_inputs([path])).image_shape == (3, *size)
    difference = (item["image"].float() - whole(path, 16).float()).abs()
    assert difference.mean() < 1.5


def test_no_file_is_reduced_below_what_is_needed(tmp_path):
    path = tmp_path / "scan.jpg"
    side = 16
    for height in (ENOUGH * side, 2 * ENOUGH * side - 1):
        scene(height, 900).save(path)
        torch.testing.assert_close(prepared(path, side)["image"], whole(path, side))
        reading = Reading(side=side)
        assert read_inputs([path]).images.read(0, reading).shape[1:] == (height, 900)
    scene(2 * ENOUGH * side, 900).save(path)
    assert min(read_inputs([path]).images.read(0, Reading(side=side)).shape[1:]) == ENOUGH * side
    scene(8 * ENOUGH * side, 900).save(path)
    assert min(read_inputs([path]).images.read(0, Reading(side=side)).shape[1:]) >= ENOUGH * side


def test_a_file_of_very_many_pixels_is_reduced_further(tmp_path, monkeypatch):
    path, side = tmp_path / "scan.jpg", 60
    scene(2 * LEAST * side + 8, 300).save(path)
    assert read_inputs([path]).images.read(0, Reading(side=side)).shape[1] == 2 * LEAST * side + 8
    monkeypatch.setattr("diffmic.data.large.MOST", 30_000)
    assert read_inputs([path]).images.read(0, Reading(side=side)).shape[1] == LEAST * side + 4
    difference = (prepared(path, side)["image"].float() - whole(path, side).float()).abs()
    assert difference.mean() < 2
    assert difference.max() <= 14


def test_images_of_pil_and_bytes_are_reduced_alike_and_stay_as_they_are(tmp_path):
    path = tmp_path / "scan.png"
    scene(400, 500).save(path)
    image = Image.open(path)
    item = prepared(image, 16)
    assert image.size == (500, 400)
    torch.testing.assert_close(item["image"], prepared(path, 16)["image"])
    torch.testing.assert_close(prepared(path.read_bytes(), 16)["image"], item["image"])


def test_a_damaged_file_is_still_found_when_it_is_reduced(tmp_path):
    path = tmp_path / "scan.jpg"
    scene(1700, 1800).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(InputError, match="truncated"):
        survey_of(read_inputs([path]))


@pytest.mark.slow
def test_memory_for_a_large_jpeg_is_bounded(tmp_path):
    path, few = tmp_path / "scan.jpg", tmp_path / "small.jpg"
    Image.new("RGB", (9000, 9000), (90, 60, 30)).save(path)  # 243 MB of pixels
    Image.new("RGB", (90, 90)).save(few)
    code = (
        "import resource, sys, torchvision.transforms.v2\n"
        "from diffmic.data import PreparedImages, read_inputs\n"
        "from diffmic.data.inputs import survey_of\n"
        "PreparedImages(read_inputs([sys.argv[2]]).images, 64)[0]\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "inputs = read_inputs([sys.argv[1]])\n"
        "survey_of(inputs), PreparedImages(inputs.images, 224)[0]\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    run = [sys.executable, "-c", code, str(path), str(few)]
    grown = int(subprocess.run(run, check=True, capture_output=True, text=True).stdout)
    assert grown < 100 * 1024 * (1024 if sys.platform == "darwin" else 1)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32])
def test_extremes_of_images_larger_than_what_is_looked_at_together(monkeypatch, dtype):
    monkeypatch.setattr("diffmic.data.large._LARGEST_PART", 100)
    images = torch.randint(0, 255, (3, 3, 17, 5)).to(dtype)
    images[1, 2, 16, 4], images[2, 0, 0, 0] = 255, 0
    low, high = extremes(images)
    flat = images.flatten(1).double()
    assert low.tolist() == flat.amin(dim=1).tolist()
    assert high.tolist() == flat.amax(dim=1).tolist()


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (9, 1), (2, 2), (1, 3000)])
@pytest.mark.parametrize("colour", [True, False])
def test_tiny_images_are_fitted_predicted_and_explained(tmp_path, size, colour):
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.png" for number in range(16)]
    for path in paths:
        shape = (*size, 3) if colour else size
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(path)
    y = np.arange(16) % 2
    clf = DiffMICClassifier(**small(max_epochs=1, image_size=32)).fit(paths, y)
    assert np.isfinite(clf.predict_proba(paths[:3])).all()
    explanation = clf.explain(paths[:2])
    assert explanation.sizes.tolist() == [list(size)] * 2
    assert explanation.heatmap(0).shape == (2, *size)


def test_explanations_of_a_reduced_file_are_in_pixels_of_the_original(tmp_path):
    plots = pytest.importorskip("diffmic.plots")
    pytest.importorskip("matplotlib")
    X, y = stripes(16)
    clf = DiffMICClassifier(**small(max_epochs=1)).fit(X, y)
    path = tmp_path / "scan.jpg"
    scene(3300, 3200, colour=False).save(path)
    explanation = clf.explain([path])
    assert explanation.sizes.tolist() == [[3300, 3200]]
    assert explanation.boxes.max() > 1600
    for image in (path, Image.open(path), np.asarray(Image.open(path))):
        ax = plots.plot_regions(image, explanation)
        assert ax.get_xlim() == (-0.5, 3199.5)
        assert max(ax.images[0].get_array().shape[:2]) <= 2000


def ppm(largest):
    values = np.arange(4 * 5 * 3, dtype=">u2") * (largest // 60)
    return b"P6\n# a comment\n5 4\n%d\n" % largest + values.tobytes()


def sgi():
    head = np.zeros(512, np.uint8)
    head[:12] = [1, 218, 0, 2, 0, 3, 0, 4, 0, 4, 0, 3]  # not compressed, 2 bytes, 4 × 4 × 3
    return head.tobytes() + (np.arange(3 * 4 * 4, dtype=">u2") * 1000).tobytes()


@pytest.mark.parametrize("content", [ppm(65535), ppm(1023), sgi()], ids=["PPM", "10 bits", "SGI"])
def test_colours_of_more_than_8_bits_that_pillow_cuts_are_said(content):
    reading = Reading(raw=True)
    read_inputs([content]).images.read(0, reading)
    assert Note.BITS in reading.notes


@pytest.mark.parametrize("kind", ["PPM", "JPEG2000", "SGI", "PNG"])
def test_colours_of_8_bits_are_not_said_to_be_cut(kind):
    file, reading = io.BytesIO(), Reading(raw=True)
    scene(40, 40).save(file, kind)
    read_inputs([file.getvalue()]).images.read(0, reading)
    assert not reading.notes


def test_jpeg_2000_of_more_than_8_bits_is_known_by_its_header():
    file = io.BytesIO()
    scene(64, 64).save(file, "JPEG2000")
    head = bytearray(file.getvalue())
    start = head.find(b"\xff\x4f\xff\x51") + 42
    for depth, cut in ((7, False), (11, True), (15, True)):
        head[start : start + 9 : 3] = bytes([depth] * 3)
        image = Image.open(io.BytesIO(file.getvalue()))
        assert cut_to_bytes(image, bytes(head)) == cut
    assert not cut_to_bytes(image, b"")
