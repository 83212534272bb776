"""What of images is left out or changed is said: one warning for each cause, with a count."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import small, stripes
from torch.utils.data import IterableDataset

from diffmic import DiffMICClassifier, DiffMICWarning
from diffmic.data import read_training_data

X, Y = stripes(30)


@pytest.fixture(scope="module")
def clf():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return DiffMICClassifier(**small(max_epochs=1)).fit(X, Y)


def told(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    found = [w for w in caught if w.category is DiffMICWarning]
    assert all(w.filename == __file__ for w in found)
    return [str(w.message) for w in found]


def read(images):
    return read_training_data(
        images,
        Y[: len(images)],
        sample_weight=None,
        groups=None,
        validation_data=None,
        validation_fraction=None,
        class_weight=None,
        rng=np.random.RandomState(0),
    )


def stacked(image):
    other = Image.fromarray(255 - image)
    return Image.fromarray(image), other


@pytest.fixture
def files(tmp_path):
    """30 files: 2 of several pages, 3 with transparent pixels, one of both."""
    paths = []
    for i, image in enumerate(X):
        paths.append(tmp_path / f"{i}.tif")
        first, second = stacked(image)
        if i in (4, 5, 6):
            first.putalpha(Image.fromarray(image))
            second.putalpha(255)
        more = {"save_all": True, "append_images": [second]} if i in (3, 4) else {}
        first.save(paths[-1], **more)
    return paths


PAGES = r"2 of 30 images hold several frames or pages, of which only the first is used"
ALPHA = r"3 of 30 images have transparent pixels"


def test_a_fit_says_once_what_it_left_out(files):
    messages = told(lambda: read(files))
    assert len(messages) == 2
    assert PAGES in messages[0]
    assert ALPHA in messages[1]


@pytest.mark.parametrize(
    ("method", "num_workers"),
    [
        ("predict_proba", 0),
        ("predict_proba", 2),
        ("predict", 0),
        ("transform", 0),
        ("explain", 0),
    ],
)
def test_a_prediction_says_it_too(clf, files, num_workers, method):
    clf.set_params(num_workers=num_workers, batch_size=7)
    messages = told(lambda: getattr(clf, method)(files))
    clf.set_params(num_workers=0)
    assert len(messages) == 2
    assert PAGES in messages[0]
    assert ALPHA in messages[1]


def test_a_stream_says_it_too(clf, files):
    class Files(IterableDataset):
        def __iter__(self):
            return iter(files)

    messages = told(lambda: clf.predict_proba(Files()))
    assert [m.split(":")[0][:20] for m in messages] == [
        "2 of 30 images hold ",
        "3 of 30 images have ",
    ]


def test_an_evaluation_says_it_once(clf, files):
    assert len(told(lambda: clf.evaluate(files, Y))) == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x * 1.09 - 0.09,
        lambda x: x + 0.05 * np.random.RandomState(0).randn(*x.shape),
        lambda x: torch.nn.functional.interpolate(
            torch.from_numpy(x)[:, None], scale_factor=2, mode="bicubic"
        )[:, 0].numpy(),
    ],
    ids=["scaled", "noise", "cubic"],
)
def test_floats_a_little_outside_are_clipped_and_counted(clf, change):
    images = change((X / 255).astype(np.float32) ** 2).astype(np.float32)
    assert images.min() < -0.001
    messages = told(lambda: read(images))
    assert len(messages) == 1
    assert "of 30 images have float pixels a little outside 0–1" in messages[0]
    outside = ((images < -1e-3) | (images > 1.001)).any(axis=(1, 2)).sum()
    assert messages[0].startswith(f"{outside} of 30")
    assert told(lambda: read(list(images))) == messages
    assert len(told(lambda: clf.predict_proba(images))) == 1
    np.testing.assert_allclose(
        clf.predict_proba(images.clip(0, 1)), clf.predict_proba(images), atol=1e-6
    )


@pytest.mark.parametrize("scale", [1 / 16, 1 / 257])
def test_images_that_are_nearly_black_are_pointed_out_when_predicting(clf, scale):
    for dark in ((X / 255 * scale).astype(np.float32), (X * (257 * scale)).astype(np.uint16)):
        messages = told(lambda dark=dark: clf.predict_proba(dark))
        assert len(messages) == 1
        assert "30 of 30 images stay below an eighth of the range" in messages[0]
    some = (X / 255).astype(np.float32)
    some[:10] *= scale
    assert told(lambda: clf.predict_proba(some)) == []


def test_bytes_that_are_nearly_black_are_pointed_out_when_fitting():
    messages = told(lambda: read(X // 128))
    assert len(messages) == 1
    assert "largest pixel of all images is 1 of 255" in messages[0]


def test_good_images_say_nothing(clf):
    for images in (X, (X / 255).astype(np.float32), list(X)):
        assert told(lambda images=images: clf.predict_proba(images)) == []
        assert told(lambda images=images: read(images)) == []
