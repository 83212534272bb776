"""The classifier of exported models: what it reads, and that it needs no torch."""

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from tiny import small, stripes

from diffmic import DiffMICClassifier, InputError
from diffmic.runtime import OnnxClassifier

pytestmark = [pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning"), pytest.mark.slow]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The estimator, and its exported model."""
    X, y = stripes(60)
    clf = DiffMICClassifier(**small(max_epochs=1, class_names=["a", "b", "c"])).fit(X, y)
    return clf, clf.export_onnx(tmp_path_factory.mktemp("onnx") / "model.onnx")


def picture(mode, size=(50, 40)):
    """A picture of a mode, with something in it."""
    rows, columns = np.mgrid[: size[1], : size[0]]
    waves = (127 + 120 * np.sin(rows / 5) * np.cos(columns / 7)).astype(np.uint8)
    image = Image.fromarray(np.stack([waves, waves[::-1], 255 - waves], axis=2))
    if mode == "I;16":
        return Image.fromarray(waves.astype(np.uint16) * 257)
    if mode == "RGBA":
        image.putalpha(Image.fromarray(255 - waves))
        return image
    return image.convert(mode)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "CMYK", "1", "I;16"])
@pytest.mark.parametrize("kind", ["png", "image", "content"])
def test_pictures_are_read_as_the_estimator_reads_them(both, mode, kind, tmp_path):
    clf, file = both
    image = picture(mode)
    suffix = "tiff" if mode == "CMYK" else "png"
    path = tmp_path / f"picture.{suffix}"
    image.save(path)
    X = {"png": path, "image": image, "content": path.read_bytes()}[kind]
    found = OnnxClassifier(file).predict_proba([X])
    np.testing.assert_allclose(found, clf.predict_proba([X]), atol=2e-3)


@pytest.mark.parametrize(
    ("name", "value_range"), [("CT_small.dcm", (-1000, 1000)), ("693_J2KI.dcm", None)]
)
def test_dicom_is_read_as_the_estimator_reads_it(name, value_range, tmp_path):
    path = pytest.importorskip("pydicom.data").get_testdata_file(name)
    clf = DiffMICClassifier(**small(max_epochs=1, value_range=value_range)).fit(*stripes(60))
    runtime = OnnxClassifier(clf.export_onnx(tmp_path / "model.onnx"))
    expected = clf.predict_proba([path])
    for given in (path, Path(path).read_bytes()):
        np.testing.assert_allclose(runtime.predict_proba([given]), expected, atol=2e-3)


def test_a_turned_photograph_is_set_upright(both, tmp_path):
    clf, file = both
    image, exif = picture("RGB"), Image.Exif()
    exif[274] = 6
    path = tmp_path / "turned.png"
    image.save(path, exif=exif)
    np.testing.assert_allclose(
        OnnxClassifier(file).predict_proba([path]), clf.predict_proba([path]), atol=2e-3
    )


@pytest.mark.parametrize("shape", [(45, 30), (45, 30, 3), (3, 45, 30), (1, 45, 30)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_arrays_are_read_as_the_estimator_reads_them(both, shape, dtype):
    clf, file = both
    pixels = np.random.RandomState(0).rand(4, *shape)
    largest = {np.uint8: 255, np.uint16: 65535}.get(dtype, 1)
    X = (pixels * largest).astype(dtype)
    runtime = OnnxClassifier(file)
    for given in (X, list(X), iter(list(X))):
        np.testing.assert_allclose(
            runtime.predict_proba(given), clf.predict_proba(list(X)), atol=5e-3
        )


def test_what_cannot_be_read_is_named(both, tmp_path):
    runtime = OnnxClassifier(both[1])
    (tmp_path / "broken.png").write_bytes(b"nonsense")
    good = np.zeros((8, 8), np.uint8)
    for X, message in [
        ([tmp_path / "broken.png"], "broken.png"),
        ([tmp_path / "missing.png"], "missing.png"),
        ([good, np.full((8, 8), np.nan)], "image 1.*NaN"),
        ([good - 5.0], "image 0.*pixels from -5"),
        ([np.zeros((4, 8, 8), np.uint8)], "image 0.*shape"),
        ([np.zeros((0, 8), np.uint8)], "image 0.*shape"),
        ([], "no images"),
        (good, "shape"),
        ("picture.png", "single image"),
        ([object()], "image 0"),
        ([good > 0], "image 0.*type bool"),
        ([np.ma.masked_equal(good, 0)], "image 0.*masked"),
    ]:
        with pytest.raises(InputError, match=f"(?s){message}"):
            runtime.predict_proba(X)
    with pytest.raises(InputError, match="stage"):
        runtime.predict_proba([good], stage="other")
    for size in (0, -1, 2.5, True):
        with pytest.raises(InputError, match="batch_size"):
            runtime.predict_proba([good], batch_size=size)


def test_an_array_of_paths_is_a_list_of_them(both, tmp_path):
    picture("L").save(tmp_path / "a.png")
    runtime, path = OnnxClassifier(both[1]), str(tmp_path / "a.png")
    for paths in (np.array([path, path]), np.array([path, path], dtype=object)):
        expected = runtime.predict_proba([path, path])
        np.testing.assert_array_equal(runtime.predict_proba(paths), expected)


def test_the_central_square_is_cut_as_the_estimator_cuts_it(tmp_path):
    X, y = stripes(60, size=(32, 41))
    clf = DiffMICClassifier(**small(max_epochs=1, crop="square")).fit(X, y)
    runtime = OnnxClassifier(clf.export_onnx(tmp_path / "model.onnx"))
    np.testing.assert_allclose(runtime.predict_proba(X), clf.predict_proba(X), atol=1e-5)


PROGRAM = """
import sys
import zlib
for name in ("torch", "torchvision", "timm", "sklearn", "scipy", "safetensors", "huggingface_hub"):
    sys.modules[name] = None  # importing it fails
import numpy as np
from diffmic.runtime import OnnxClassifier
clf = OnnxClassifier(sys.argv[1])
proba = clf.predict_proba(np.zeros((2, 16, 16), np.uint8))
assert np.allclose(proba.sum(axis=1), 1, atol=1e-5)
print(clf.class_names_)
"""


def test_it_needs_neither_torch_nor_scikit_learn(both):
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(both[1])], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "['a', 'b', 'c']"


def test_content_is_a_model_too(both):
    runtime = OnnxClassifier(both[1].read_bytes(), num_threads=1)
    assert runtime.predict_proba([np.zeros((8, 8), np.uint8)]).shape == (1, 3)


def test_files_that_pillow_reads_otherwise_than_the_estimator_are_refused(both, tmp_path):
    runtime, pixels = OnnxClassifier(both[1]), np.zeros((8, 8), np.uint16)
    white, deep = tmp_path / "white.tiff", tmp_path / "deep.png"
    Image.fromarray(pixels).save(white, tiffinfo={262: 0})
    with pytest.raises(InputError, match=r"white\.tiff.*zero is white"):
        runtime.predict_proba([white])
    deep.write_bytes(png_of_16_bits(8, 8))
    with pytest.raises(InputError, match=r"deep\.png.*colour PNG of 16 bits"):
        runtime.predict_proba([deep])
    signed = tmp_path / "signed.tiff"
    tifffile.imwrite(signed, pixels.astype(np.int8))
    with pytest.raises(InputError, match="signed bytes"):
        runtime.predict_proba([signed])


def png_of_16_bits(width, height):
    """A black RGB image."""

    def chunk(kind, data):
        content = kind + data
        return struct.pack(">I", len(data)) + content + struct.pack(">I", zlib.crc32(content))

    rows = zlib.compress(b"".join(b"\0" + bytes(6 * width) for _ in range(height)))
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
