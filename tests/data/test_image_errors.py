"""Every error of an image is an InputError that names the image."""

import io
import os

import numpy as np
import pandas
import pytest
import scipy.sparse
import torch
from PIL import Image
from tiny import small, stripes
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision.datasets import ImageFolder

from diffmic import DiffMICClassifier
from diffmic.data import PreparedImages, read_inputs
from diffmic.data.images import as_image
from diffmic.data.inputs import survey_of
from diffmic.errors import InputError

N = 6


def content(seed=0, format="PNG"):
    file = io.BytesIO()
    pixels = np.random.RandomState(seed).randint(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(pixels).save(file, format)
    return file.getvalue()


@pytest.fixture
def folder(tmp_path):
    """Two classes; the fourth image of the second is cut off."""
    for label in "ab":
        (tmp_path / label).mkdir()
        for i in range(N):
            (tmp_path / label / f"{i}.png").write_bytes(content(i))
    bad = tmp_path / "b" / "3.png"
    bad.write_bytes(bad.read_bytes()[:900])
    return tmp_path


def cut(format="PNG"):
    return Image.open(io.BytesIO(content(format=format)[:700]))


def closed():
    image = Image.open(io.BytesIO(content()))
    image.close()
    return image


class Raising(Dataset):
    def __init__(self, error):
        self.error = error

    def __len__(self):
        return N

    def __getitem__(self, index):
        if index == 4:
            raise self.error
        return torch.full((1, 8, 8), 0.5), index % 2


ERRORS = [
    OSError("image file is truncated"),
    KeyError("scan"),
    RuntimeError("decoder"),
    AssertionError(),
    StopIteration(),
    ZeroDivisionError(),
    InputError("of a transform"),
    Exception("whatever"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    "form", [lambda d: d, lambda d: DataLoader(d, 2), lambda d: Subset(d, range(N))]
)
def test_whatever_an_item_raises_is_an_input_error_that_names_it(error, form):
    message = rf"Item 4 .*cannot be read: .*{error}"
    with pytest.raises(InputError, match=message) as caught:
        read_inputs(form(Raising(error)), with_targets=True)
    assert caught.value.__cause__ is not None
    images = read_inputs(form(Raising(error))).images
    with pytest.raises(InputError, match=message):
        list(PreparedImages(images, 8).batches(2))


def test_the_first_cause_is_told_too():
    def wrapped(error):  # as MONAI's transforms do, several times
        for name in ("LoadImaged", "Compose"):
            outer = RuntimeError(f"applying transform {name}")
            outer.__cause__, error = error, outer
        return error

    first = FileNotFoundError("No such file: 'a/7.png'\nTraceback of many lines")
    message = r"RuntimeError: applying transform Compose \(from FileNotFoundError: .*a/7\.png'\)\."
    with pytest.raises(InputError, match=message):
        read_inputs(Raising(wrapped(first)), with_targets=True)
    circle = RuntimeError("a")
    circle.__cause__ = circle
    with pytest.raises(InputError, match=r"RuntimeError: a\."):
        read_inputs(Raising(circle), with_targets=True)


@pytest.mark.parametrize("shape", [(1, 4, 24, 28), (20, 24, 28), (2, 1, 4, 24, 28)])
def test_a_volume_is_told_to_be_passed_by_slices(shape):
    volume = np.zeros(shape, np.float32)
    with pytest.raises(InputError, match="slice"):
        as_image(volume)
    with pytest.raises(InputError, match="slice"):
        read_inputs(np.stack([volume] * 2))


def test_out_of_memory_and_interruptions_are_not_errors_of_an_image():
    for error in (MemoryError(), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            read_inputs(Raising(error), with_targets=True)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_error_in_a_worker_names_the_image(num_workers):
    images = PreparedImages(read_inputs(Raising(OSError("cut"))).images, 8)
    with pytest.raises(InputError, match="Item 4 of the Dataset cannot be read"):
        list(images.batches(2, num_workers=num_workers))


@pytest.mark.parametrize(
    "wrap", [lambda d: d, lambda d: DataLoader(d, 4), lambda d: Subset(d, range(4, 12))]
)
def test_a_damaged_file_of_an_image_folder_is_named(folder, wrap):
    with pytest.raises(InputError, match=r"Item [59] .*b/3\.png.*cannot be read: OSError"):
        read_inputs(wrap(ImageFolder(folder)), with_targets=True)


@pytest.mark.parametrize("image", [cut, lambda: cut("JPEG"), closed], ids=["PNG", "JPEG", "closed"])
def test_a_pil_image_that_cannot_be_decoded_is_named(image):
    good = Image.open(io.BytesIO(content()))
    for images in ([good, image()], Items([good, image()])):
        found = read_inputs(images)
        with pytest.raises(InputError, match="image 1 is not an image that can be read"):
            survey_of(found)
    with pytest.raises(InputError, match="image 0 is not an image that can be read"):
        read_inputs([image()], known_channels=3)


class Items(Dataset):
    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index]


def test_a_fit_and_a_prediction_name_the_image(folder):
    data = ImageFolder(folder)
    new = DiffMICClassifier(**small())
    with pytest.raises(InputError, match=r"b/3\.png"):
        new.fit(data)
    with pytest.raises(InputError, match=r"b/3\.png"):
        new.fit([path for path, _ in data.samples], data.targets)
    clf = DiffMICClassifier(**small(max_epochs=1)).fit(*stripes())
    for X in (data, DataLoader(data, 4), [path for path, _ in data.samples], [cut()]):
        with pytest.raises(InputError, match=r"b/3\.png|image 0"):
            clf.predict_proba(X)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.arange(6), "dim 1.*labels are passed as y"),
        ([1, 2, 3], r"image 0 is a int.*fit\(X, y\) takes the images first"),
        ([np.zeros((4, 4)).tolist()], r"image 0 is a list.*numpy\.asarray"),
        ([np.zeros((4, 4)), None], "image 1 is a NoneType.*missing.*leave it out"),
        ([np.zeros((4, 4)), float("nan")], "image 1 is a float.*missing"),
        (["", "a.png"], "path of image 0 is empty"),
        ((x for x in "ab"), r"is a generator.*list\(X\)"),
        ({"a.png"}, r"is a set.*list\(X\)"),
        (np.zeros((3, 4, 4)).astype(object), r"type object, whose range.*astype\('uint8'\)"),
        (np.array([["a", "b"]] * 3), "table of 3 × 2 texts; give the column"),
        (scipy.sparse.csr_array(np.eye(4)), r"sparse matrix of shape \(4, 4\).*toarray"),
        (np.zeros((3, 4, 4), complex), "complex128"),
        (np.zeros((3, 4, 4), "datetime64[s]"), "datetime64"),
        (np.zeros((3, 4, 4), [("r", "u1"), ("g", "u1")]), "range is not known"),
    ],
)
@pytest.mark.parametrize("known_channels", [None, 1])
def test_what_is_no_image_is_told_what_it_may_be(X, message, known_channels):
    with pytest.raises(InputError, match=message):
        survey_of(read_inputs(X, known_channels=known_channels))


def test_a_table_of_one_column_is_that_column(tmp_path):
    (tmp_path / "a.png").write_bytes(content())
    table = pandas.DataFrame({"path": [str(tmp_path / "a.png")] * 3})
    assert len(read_inputs(table).images) == 3
    np.testing.assert_array_equal(
        read_inputs(table).images[1], read_inputs(table["path"]).images[1]
    )


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1), (2, 2, 3), (3000, 1, 3)])
def test_images_of_a_single_pixel_or_line_are_predicted_and_explained(shape):
    clf = DiffMICClassifier(**small(max_epochs=1, validation_fraction=None)).fit(*stripes())
    image = np.full(shape, 100, np.uint8)
    assert np.isfinite(clf.predict_proba([image])).all()
    explanation = clf.explain([image])
    assert explanation.heatmap(0).shape[1:] == shape[:2]


def test_an_explanation_of_a_large_image_is_small():
    clf = DiffMICClassifier(**small(max_epochs=1, validation_fraction=None)).fit(*stripes())
    explanation = clf.explain([np.zeros((4000, 3000), np.uint8)])
    arrays = [value for value in vars(explanation).values() if hasattr(value, "nbytes")]
    assert sum(array.nbytes for array in arrays) < 1e5
    assert explanation.sizes.tolist() == [[4000, 3000]]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(InputError, match="no regular file"):
        read_inputs([tmp_path / "pipe.png"])


def test_a_path_in_bytes_gets_advice():
    with pytest.raises(InputError, match=r"os\.fsdecode\(path\)"):
        read_inputs([b"scans/1.png"])


def test_an_object_of_another_array_library_is_read():
    class Other:
        def __array__(self, dtype=None, copy=None):
            return np.full((2, 5, 4), 7, np.uint8)

    images = read_inputs(Other()).images
    assert len(images) == 2
    assert images[0].unique().tolist() == [7]
