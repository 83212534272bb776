"""Containers: whatever holds the images and labels, they are those that were put in."""

import tempfile

import numpy as np
import pandas
import pytest
import torch
from door.arrays import examples
from door.test_arrays import unit
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
)

from diffmic.data import read_inputs
from diffmic.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")
few = examples(15)


class Items(Dataset):
    """A map-style Dataset of any items."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


class Streamed(IterableDataset):
    """An iterable Dataset of any items."""

    def __init__(self, items):
        self.items = items

    def __iter__(self):
        return iter(self.items)


@st.composite
def pictures(draw, *, same_size=False):
    """uint8 images (H, W) or (H, W, 3), with a label each."""
    n = draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    colour = draw(st.booleans())
    sizes = [tuple(rng.integers(2, 7, 2)) for _ in range(n)]
    if same_size:
        sizes = [sizes[0]] * n
    images = [rng.integers(0, 256, (*s, 3) if colour else s, dtype=np.uint8) for s in sizes]
    if colour and any(image.shape[0] in (1, 3) for image in images):  # could be channels first
        images = [np.pad(image, ((2, 2), (0, 0), (0, 0))) for image in images]
    return images, rng.integers(0, 3, n).tolist()


def channels_first(image):
    return image[None] if image.ndim == 2 else image.transpose(2, 0, 1)


def tensors(images):
    return [torch.from_numpy(np.ascontiguousarray(channels_first(image))) for image in images]


def pil(images):
    return [Image.fromarray(image) for image in images]


def objects(entries):
    array = np.empty(len(entries), dtype=object)
    array[:] = entries
    return array


IMAGES_ALONE = {
    "list of arrays": lambda images: list(images),
    "tuple of arrays": tuple,
    "object array": objects,
    "list of PIL images": pil,
    "list of tensors": tensors,
    "Dataset of arrays": Items,
    "Dataset of PIL images": lambda images: Items(pil(images)),
    "stream of tensors": lambda images: Streamed(tensors(images)),
    "concatenated": lambda images: ConcatDataset([Items(images[:1]), Items(tensors(images))]),
    "batches of one": lambda images: DataLoader(Items(tensors(images)), batch_size=1),
    "no batches": lambda images: DataLoader(Items(tensors(images)), batch_size=None),
}

WITH_LABELS = {
    "pairs": lambda images, y: Items(list(zip(images, y, strict=True))),
    "list of pairs": lambda images, y: list(zip(images, y, strict=True)),
    "triples": lambda images, y: Items(
        [(i, v, {"age": 3}) for i, v in zip(images, y, strict=True)]
    ),
    "dicts": lambda images, y: Items(
        [{"image": i, "label": v} for i, v in zip(images, y, strict=True)]
    ),
    "PIL images": lambda images, y: Items(list(zip(pil(images), y, strict=True))),
    "tensor labels": lambda images, y: Items(
        [(i, torch.tensor(v)) for i, v in zip(images, y, strict=True)]
    ),
    "labels (1,)": lambda images, y: Items(
        [(i, np.array([v])) for i, v in zip(images, y, strict=True)]
    ),
    "stream of pairs": lambda images, y: Streamed(list(zip(tensors(images), y, strict=True))),
    "DataLoader": lambda images, y: DataLoader(
        Items(list(zip(tensors(images), y, strict=True))), batch_size=None
    ),
}

OF_ONE_SIZE = {
    "array": lambda images, y: (np.stack(images), None),
    "TensorDataset": lambda images, y: (
        TensorDataset(torch.stack(tensors(images)), torch.tensor(y)),
        y,
    ),
    "Subset": lambda images, y: (
        Subset(TensorDataset(torch.stack(tensors(images)), torch.tensor(y)), range(len(y))[::-1]),
        y[::-1],
    ),
    "DataLoader": lambda images, y: (
        DataLoader(Items(list(zip(tensors(images), y, strict=True))), batch_size=2),
        y,
    ),
    "DataLoader of dicts": lambda images, y: (
        DataLoader(
            Items([{"image": i, "label": v} for i, v in zip(tensors(images), y, strict=True)]),
            batch_size=3,
        ),
        y,
    ),
    "DataLoader of a stream": lambda images, y: (
        DataLoader(Streamed(list(zip(tensors(images), y, strict=True))), batch_size=2),
        y,
    ),
    "memory map": lambda images, y: (_mapped(np.stack(images)), None),
}


def _mapped(images):
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/images.npy", images)
        return np.load(f"{folder}/images.npy", mmap_mode="r")  # the file lives on while mapped


def assert_read(X, images, labels=None, **options):
    """The images and labels of X are these, bit for bit."""
    found = read_inputs(X, with_targets=labels is not None, **options)
    assert len(found.images) == len(images)
    for index, image in enumerate(images):
        np.testing.assert_array_equal(found.images[index].numpy(), channels_first(image))
    if labels is not None:
        assert np.asarray(found.targets).ravel().tolist() == labels


@pytest.mark.parametrize("kind", list(IMAGES_ALONE))
@few
@given(pictures())
def test_images_in_any_container_are_those_that_were_put_in(kind, given):
    images, _ = given
    X = IMAGES_ALONE[kind](images)
    assert_read(X, images[:1] + images if kind == "concatenated" else images)


@pytest.mark.parametrize("kind", list(WITH_LABELS))
@few
@given(pictures())
def test_labels_stay_with_their_images(kind, given):
    images, labels = given
    assert_read(WITH_LABELS[kind](images, labels), images, labels)


@pytest.mark.parametrize("kind", list(OF_ONE_SIZE))
@few
@given(pictures(same_size=True))
def test_batches_are_those_of_their_images(kind, given):
    images, labels = given
    X, expected = OF_ONE_SIZE[kind](images, labels)
    images = images[::-1] if kind == "Subset" else images
    assert_read(X, images, expected)


@few
@given(pictures(), st.sampled_from(["png", "bmp", "tiff", "ppm", "webp"]))
def test_files_hold_the_pixels_that_were_saved(tmp_path_factory, given, suffix):
    images, _ = given
    folder = tmp_path_factory.mktemp("files")
    paths = [folder / f"{i}.{suffix}" for i in range(len(images))]
    for image, path in zip(pil(images), paths, strict=True):
        image.save(path, **({"lossless": True} if suffix == "webp" else {}))
    if suffix == "webp":  # which has no gray
        images = [image if image.ndim == 3 else np.stack([image] * 3, axis=2) for image in images]
    texts = [str(path) for path in paths]
    for X in (paths, texts, np.array(texts), objects(paths), pandas.Series(texts), tuple(paths)):
        assert_read(X, images)
    assert_read(Items([(path, 1) for path in texts]), images)


@st.composite
def strange_items(draw):
    """Things that hold no images, or not only images."""
    leaf = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-3, 3),
        st.floats(),
        st.text(max_size=3),
        st.binary(max_size=3),
        st.just(np.zeros((2, 2), np.uint8)),
        st.just(np.float32(1)),
        st.just(torch.zeros(1, 2, 2)),
        st.just(Image.new("L", (2, 2))),
        st.just(object()),
    )
    return draw(
        st.recursive(
            leaf,
            lambda inner: st.one_of(
                st.lists(inner, max_size=3),
                st.tuples(inner, inner),
                st.dictionaries(st.sampled_from(["image", "label", "x", "id"]), inner, max_size=3),
                st.sets(st.integers(), max_size=2),
            ),
            max_leaves=6,
        )
    )


@examples(150)
@given(strange_items(), st.booleans())
def test_whatever_is_passed_is_read_or_refused(X, with_targets):
    if with_targets:
        X = Items([X, X])
    try:
        found = read_inputs(X, with_targets=with_targets)
        for index in range(len(found.images)):
            unit(found.images[index])
    except InputError:
        pass
