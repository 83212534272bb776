"""Streams are read as they come, one batch at a time."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from diffmic.data import PreparedImages, PreparedStream, Stream, read_inputs
from diffmic.data.images import as_image
from diffmic.datasets import inspect
from diffmic.errors import InputError

N, H, W = 5, 6, 10
RGB = np.random.RandomState(0).randint(0, 256, (N, 3, H, W), np.uint8)


class Images(IterableDataset):
    """Whatever ``form`` makes of each image; counts those that were asked for."""

    def __init__(self, form=lambda image: image, images=RGB):
        self.form, self.images, self.n_read = form, images, 0

    def __iter__(self):
        for image in self.images:
            self.n_read += 1
            yield self.form(torch.from_numpy(image))


FORMS = {
    "image": lambda image: image,
    "channels last": lambda image: image.permute(1, 2, 0),
    "floats": lambda image: image / 255,
    "pair": lambda image: (image, 7),
    "dict": lambda image: {"label": 7, "image": image},
}
LOADERS = {
    "no loader": lambda stream: stream,
    "no batches": lambda stream: DataLoader(stream, batch_size=None),
    "batches": lambda stream: DataLoader(stream, batch_size=2),
    "a worker": lambda stream: DataLoader(stream, batch_size=2, num_workers=1),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("loader", LOADERS.values(), ids=LOADERS)
def test_a_stream_gives_the_images_in_its_order_each_time_it_is_walked(form, loader):
    stream = Stream.of(loader(Images(form)))
    for _ in range(2):
        images = torch.stack([as_image(image) for image in stream])
        if images.is_floating_point():
            images = (images * 255).round()
        np.testing.assert_array_equal(images, RGB)


class ByNumber(Dataset):
    """The images by number, in whatever ``form`` makes of each."""

    def __init__(self, form):
        self.form = form

    def __len__(self):
        return N

    def __getitem__(self, index):
        return self.form(RGB[index])


SINGLE = {
    "array": lambda image: image,
    "channels last": lambda image: image.transpose(1, 2, 0),
    "tensor": torch.from_numpy,
    "gray": lambda image: image[0],
    "PIL": lambda image: Image.fromarray(image.transpose(1, 2, 0)),
    "tuple of one": lambda image: (torch.from_numpy(image),),
}


@pytest.mark.parametrize("form", SINGLE.values(), ids=SINGLE)
@pytest.mark.parametrize("collate_fn", [list, tuple])
@pytest.mark.parametrize("batch_size", [1, 2, 3, N])
def test_a_batch_that_is_a_list_of_images_holds_each_of_them(form, collate_fn, batch_size):
    loader = DataLoader(ByNumber(form), batch_size=batch_size, collate_fn=collate_fn)
    images = [as_image(image).numpy() for image in Stream.of(loader)]
    np.testing.assert_array_equal(images, RGB[:, :1] if form is SINGLE["gray"] else RGB)


def test_images_and_targets_of_a_batch_are_not_taken_for_two_images():
    def collated(items):
        return [np.stack([item[0] for item in items]), np.zeros((len(items), 4))]

    stream = Stream.of(DataLoader(ByNumber(lambda i: i), batch_size=2, collate_fn=collated))
    images = [as_image(image).numpy() for image in stream]
    np.testing.assert_array_equal(images, RGB[:, :1])


def test_a_stream_leaves_the_global_generator_as_it_was():
    state = torch.get_rng_state()
    list(PreparedStream(Stream.of(Images()), 8).batches(2))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_stream_of_pil_images_is_read():
    stream = Stream.of(Images(lambda image: Image.fromarray(image.permute(1, 2, 0).numpy())))
    np.testing.assert_array_equal(torch.stack([as_image(image) for image in stream]), RGB)


@pytest.mark.parametrize(
    "X", [RGB, list(RGB), TensorDataset(torch.from_numpy(RGB)), DataLoader([1]), "file.png", None]
)
def test_what_can_be_read_by_number_is_no_stream(X):
    assert Stream.of(X) is None


def test_no_more_than_a_batch_is_asked_for_before_it_is_used():
    images = Images()
    loader = PreparedStream(Stream.of(images), 8).loader(2)
    assert images.n_read == 0
    for n_batches, batch in enumerate(loader, 1):
        assert len(batch["image"]) <= 2
        assert images.n_read == min(2 * n_batches, N)


def test_a_stream_is_prepared_like_the_same_images_by_number():
    streamed, numbered = (
        list(images.loader(2))
        for images in (
            PreparedStream(Stream.of(Images()), 8),
            PreparedImages(read_inputs(RGB).images, 8),
        )
    )
    assert len(streamed) == len(numbered) == 3
    for one, other in zip(streamed, numbered, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("loader", LOADERS.values(), ids=LOADERS)
def test_an_empty_stream_is_an_error(loader):
    with pytest.raises(InputError, match="X holds no images"):
        list(Stream.of(loader(Images(images=RGB[:0]))))


def test_an_image_that_cannot_be_used_is_named():
    floats = np.where(np.arange(N)[:, None, None, None] == 3, np.nan, RGB / 255)
    with pytest.raises(InputError, match=r"NaN or infinite, first in image 3"):
        list(PreparedStream(Stream.of(Images(images=floats)), 8).batches(2))


@pytest.mark.parametrize(
    ("batch", "kind"),
    [
        ([None, None], "NoneType"),
        ((None, [0, 1]), "NoneType"),
        ({"image": 3, "label": [0, 1]}, "int"),
        ((torch.tensor(3), [0]), "Tensor"),
        ((Image.new("L", (8, 8)), 0), "Image"),
        (("a.png", 0), "str"),
    ],
)
@pytest.mark.parametrize("read", [read_inputs, lambda loader: inspect(loader, verbose=0)])
def test_a_batch_without_images_is_told_what_it_holds(batch, kind, read):
    loader = DataLoader([0, 1], batch_size=2, collate_fn=lambda items: batch)
    with pytest.raises(InputError, match=f"Batch 0 has a {kind} where its images should be.*coll"):
        read(loader)
