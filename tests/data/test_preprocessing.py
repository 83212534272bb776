"""One size, three channels, and augmentation that depends on seed, epoch and image alone."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as transforms

from diffmic.data import (
    PreparedImages,
    PreparedStream,
    named_augment,
    read_inputs,
    unit_range,
    views_of,
)
from diffmic.data.augmentation import Named
from diffmic.data.preprocessing import collate, resized
from diffmic.errors import InputError

IMAGES = torch.from_numpy(np.random.RandomState(0).randint(0, 256, (7, 3, 20, 16), np.uint8))


def prepared(images=IMAGES, size=8, **options):
    return PreparedImages(read_inputs(images).images, size, **options)


def noise(image):
    """An augmentation in which every pixel shows the state of the generator."""
    return unit_range(image) * 0 + torch.rand(image.shape)


def batches(data, **options):
    """The images of a loader, by their number."""
    return {
        int(index): image
        for batch in data.loader(2, **options)
        for index, image in zip(batch["index"], batch["image"], strict=True)
    }


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 16, 33])
def test_every_image_becomes_a_square_of_three_channels_and_keeps_its_type(dtype, channels, size):
    images = IMAGES[:, :channels]
    images = images if dtype == torch.uint8 else images / 255
    item = prepared(images, size)[2]
    assert item["image"].shape == (3, size, size)
    assert item["image"].dtype == dtype
    assert item["size"].tolist() == [20, 16]
    assert item["index"] == 2


def test_a_gray_image_has_three_equal_channels():
    image = prepared(IMAGES[:, :1])[0]["image"]
    assert torch.equal(image[0], image[1])
    assert torch.equal(image[0], image[2])


def test_resizing_is_torchvisions_with_antialiasing():
    expected = transforms.resize(IMAGES[0], [8, 8], antialias=True)
    assert torch.equal(prepared()[0]["image"], expected)


def test_an_image_of_the_right_size_is_left_alone():
    assert resized(IMAGES[0, :, :16], 16).data_ptr() == IMAGES[0].data_ptr()


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_resizing_keeps_floats_in_0_1(height, width, size):
    image = (torch.arange(3 * height * width).view(3, height, width) % 2).float()
    image = resized(image, size)
    assert image.shape == (3, size, size)
    assert image.min() >= 0
    assert image.max() <= 1 + 1e-6


def test_unit_range_divides_bytes_alone():
    assert torch.equal(unit_range(IMAGES), IMAGES / 255)
    assert torch.equal(unit_range(IMAGES / 255), IMAGES / 255)


def test_a_batch_holds_images_sizes_and_numbers():
    batch = next(iter(prepared().loader(3)))
    assert batch["image"].shape == (3, 3, 8, 8)
    assert batch["image"].dtype == torch.uint8
    assert batch["size"].tolist() == [[20, 16]] * 3
    assert batch["index"].tolist() == [0, 1, 2]


def test_a_batch_of_mixed_types_sizes_and_channels_is_float():
    data = prepared([IMAGES[0], IMAGES[1, :1, :9] / 255])
    batch = collate([data[0], data[1]])
    assert batch["image"].dtype == torch.float32
    assert torch.equal(batch["image"][0], unit_range(data[0]["image"]))
    assert torch.equal(batch["image"][1], data[1]["image"])
    assert batch["size"].tolist() == [[20, 16], [9, 16]]


@pytest.mark.parametrize("augment", [noise, named_augment("auto")], ids=["noise", "default"])
def test_augmentation_does_not_depend_on_the_order_of_the_images(augment):
    data = prepared(augment=augment, seed=3)
    forwards = [data[i]["image"] for i in range(len(data))]
    backwards = [data[i]["image"] for i in reversed(range(len(data)))][::-1]
    assert all(map(torch.equal, forwards, backwards))
    assert torch.equal(data[np.int64(4)]["image"], forwards[4])


def test_augmentation_does_not_depend_on_the_process_nor_on_shuffling():
    data = prepared(augment=noise, seed=3)
    data.epoch = 2
    here, there, shuffled = (
        batches(data, **options)
        for options in ({}, {"num_workers": 1}, {"shuffle": True, "num_workers": 2})
    )
    for index in range(len(data)):
        assert torch.equal(here[index], there[index])
        assert torch.equal(here[index], shuffled[index])


@pytest.mark.parametrize("change", ["seed", "epoch", "index"])
def test_augmentation_depends_on_seed_epoch_and_image(change):
    images = IMAGES[:1].expand(2, -1, -1, -1)
    first, second = prepared(images, augment=noise), prepared(images, augment=noise)
    if change != "index":
        setattr(second, change, 1)
    other = second[1 if change == "index" else 0]["image"]
    assert not torch.equal(first[0]["image"], other)


def test_augmentation_is_the_same_whatever_the_global_generators_say():
    data = prepared(augment=named_augment("auto"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        first = data[0]["image"]
        torch.manual_seed(2)
        assert torch.equal(data[0]["image"], first)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_augmentation_leaves_the_global_random_states_as_they_were(num_workers):
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    data = prepared(augment=named_augment("auto"))
    for _ in data.loader(4, num_workers=num_workers, generator=torch.Generator()):
        pass
    assert torch.equal(torch.get_rng_state(), states[0])
    np.testing.assert_array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert random.getstate() == states[2]


def test_an_augmentation_that_works_in_place_leaves_the_users_images_alone():
    images = IMAGES[:, :, :8, :8].contiguous()
    before = images.clone()
    assert prepared(images, augment=lambda image: image.zero_())[0]["image"].max() == 0
    assert torch.equal(images, before)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_the_default_augmentation_keeps_shape_type_and_range(dtype):
    images = IMAGES if dtype == torch.uint8 else IMAGES / 255
    data = prepared(images, 16, augment=named_augment("auto"))
    for epoch in range(5):
        data.epoch = epoch
        for item in data:
            assert item["image"].shape == (3, 16, 16)
            assert item["image"].dtype == dtype
            assert item["image"].min() >= 0
            assert item["image"].max() <= (255 if dtype == torch.uint8 else 1)
        assert not torch.equal(data[0]["image"], prepared(images, 16)[0]["image"])


def test_the_default_augmentation_never_turns_an_image_upside_down():
    image = torch.zeros(1, 3, 32, 32)
    image[:, :, :16] = 1
    data = prepared(image, 32, augment=named_augment("auto"))
    for epoch in range(50):
        data.epoch = epoch
        upper, lower = data[0]["image"].chunk(2, dim=1)
        assert upper.mean() > lower.mean()


def test_rotations_turn_images_any_way():
    image = torch.zeros(1, 3, 32, 32)
    image[:, :, :16] = 1
    data = prepared(image, 32, augment=named_augment("rotations"))
    brighter = set()
    for epoch in range(50):
        data.epoch = epoch
        upper, lower = data[0]["image"].chunk(2, dim=1)
        left, right = data[0]["image"].chunk(2, dim=2)
        brighter |= {"upper" if upper.mean() > lower.mean() else "lower"}
        brighter |= {side for side, half in (("left", left), ("right", right)) if half.mean() > 0.6}
    assert brighter == {"upper", "lower", "left", "right"}


def test_an_augmentation_may_change_the_type():
    data = prepared(augment=v2.ToDtype(torch.float32, scale=True))
    assert torch.allclose(data[0]["image"], unit_range(prepared()[0]["image"]))


@pytest.mark.parametrize(
    ("augment", "found"),
    [
        (v2.CenterCrop(6), r"\(3, 6, 6\)"),
        (v2.Grayscale(), r"\(1, 8, 8\)"),
        (lambda image: image[None], r"\(1, 3, 8, 8\)"),
        (lambda image: None, "NoneType"),
        (lambda image: image.numpy(), "ndarray"),
    ],
    ids=["smaller", "one channel", "a batch", "None", "array"],
)
def test_an_augmentation_that_returns_something_else_is_an_error(augment, found):
    with pytest.raises(InputError, match=rf"augment returned {found}; .*shape \(3, 8, 8\) is nee"):
        prepared(augment=augment)[0]


@pytest.mark.parametrize(
    "augment",
    [
        v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.2] * 3)]),
        v2.ToDtype(torch.float32),
        lambda image: unit_range(image) * float("nan"),
    ],
    ids=["normalised", "not scaled", "NaN"],
)
def test_an_augmentation_that_leaves_the_range_is_an_error(augment):
    with pytest.raises(
        InputError, match=r"pixels from .* to .*; floats must stay in 0–1\. Leave ou"
    ):
        prepared(augment=augment)[0]


def test_the_overshoot_of_an_augmentation_is_clipped():
    images = torch.linspace(0, 1, 64).view(1, 1, 8, 8)
    image = prepared(images, augment=lambda image: image * 1.4 - 0.2)[0]["image"]
    assert image.min() == 0
    assert image.max() == 1


def test_an_error_in_a_worker_is_the_same_error():
    data = prepared(augment=lambda image: None)
    with pytest.raises(InputError, match="augment returned NoneType"):
        next(iter(data.loader(2, num_workers=1)))


def test_views_lie_side_by_side_and_the_first_is_the_image_itself():
    images = IMAGES[:, :, :16, :16]
    views = views_of(images, 3, noise, seed=0)
    assert views.shape == (21, 3, 16, 16)
    assert torch.equal(views[::3], unit_range(images))
    second, third = views[1::3], views[2::3]
    assert torch.equal(second, second[:1].expand_as(second))  # every image is changed alike
    assert not torch.equal(second[0], third[0])


def test_views_do_not_depend_on_neighbours_nor_on_the_global_generators():
    images, augment = IMAGES[:, :, :16, :16], named_augment("rotations")
    expected = views_of(images, 4, augment, seed=3)
    torch.rand(1)
    assert torch.equal(views_of(images[2:3], 4, augment, seed=3), expected[8:12])
    assert expected.dtype == torch.uint8
    assert not torch.equal(views_of(images, 4, augment, seed=4), expected)


def test_a_single_view_is_what_came():
    assert views_of(IMAGES, 1, None, seed=0) is IMAGES


@pytest.mark.parametrize("n_threads", [2, 4])
def test_threads_make_views_at_once_with_the_same_results(n_threads):
    images, augment = IMAGES[:, :, :16, :16], named_augment("rotations")
    expected = [views_of(images, 4, augment, seed) for seed in range(n_threads)]
    state = torch.get_rng_state()
    with ThreadPoolExecutor(n_threads) as threads:
        for _ in range(5):
            found = threads.map(lambda seed: views_of(images, 4, augment, seed), range(n_threads))
            assert all(map(torch.equal, found, expected))
    assert torch.equal(torch.get_rng_state(), state)


def test_views_of_named_augmentations_do_not_wait_for_one_another():
    """Those of the user take turns: numpy's and Python's generators are those of all threads."""
    barrier = threading.Barrier(2, timeout=20)

    def meeting(image):
        barrier.wait()  # both threads are in here at once, or this fails
        return noise(image)

    images = IMAGES[:1, :, :16, :16]
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(lambda seed: views_of(images, 2, Named(meeting), seed), [5, 5]))
    assert torch.equal(found[0], found[1])


@pytest.mark.parametrize(
    "draw", [lambda data: data[0], lambda data: views_of(IMAGES, 3, data.augment, seed=1)]
)
def test_augmentation_never_touches_the_global_generator(draw, monkeypatch):
    data = prepared(augment=named_augment("rotations"), seed=2**32 - 1)
    state = torch.get_rng_state()
    monkeypatch.setattr(torch, "set_rng_state", None)  # as would be needed to put it back
    draw(data)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("options", [{}, {"num_workers": 1}], ids=["plain", "a worker"])
def test_batches_are_those_of_a_loader(options):
    data = prepared(augment=noise)
    expected, found = list(data.loader(3)), list(data.batches(3, **options))
    assert [len(batch["image"]) for batch in found] == [3, 3, 1]
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_batches_without_workers_need_no_loader(monkeypatch):
    monkeypatch.setattr("diffmic.data.preprocessing.DataLoader", None)
    assert len(list(prepared().batches(2))) == 4
    assert len(list(PreparedStream(iter(IMAGES), 8).batches(2))) == 4


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_of_a_stream_hold_each_image_once_whatever_the_workers(num_workers):
    stream = PreparedStream(list(IMAGES), 8)
    numbers = [int(i) for b in stream.batches(2, num_workers=num_workers) for i in b["index"]]
    assert sorted(numbers) == list(range(len(IMAGES)))
