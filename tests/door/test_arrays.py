"""Arrays and tensors: what is read are the pixels that were passed, or it is refused."""

import warnings

import numpy as np
import pytest
import torch
from door.arrays import any_arrays, examples, good_arrays, images_of
from hypothesis import given

from diffmic.data import read_inputs
from diffmic.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")
few = examples(60)


def unit(image):
    """An image that was read, in 0–1."""
    assert image.dtype in (torch.uint8, torch.float32)
    assert type(image) is torch.Tensor
    assert not image.requires_grad
    return image.numpy() / (255 if image.dtype == torch.uint8 else 1)


def assert_pixels(images, expected):
    assert len(images) == len(expected)
    for index, pixels in enumerate(expected):
        np.testing.assert_allclose(unit(images[index]), pixels, rtol=0, atol=1e-5)


@few
@given(good_arrays())
def test_pixels_are_those_that_were_passed_however_they_lie_in_memory(given):
    as_it_was = given.X.detach().numpy() if isinstance(given.X, torch.Tensor) else given.X
    before = as_it_was.copy()
    assert_pixels(read_inputs(given.X).images, given.pixels)
    np.testing.assert_array_equal(as_it_was, before)


@few
@given(good_arrays(dtypes=("uint8", "float32")))
def test_a_list_of_the_images_is_read_like_the_array(given):
    assert_pixels(read_inputs(list(given.X)).images, given.pixels)
    assert_pixels(read_inputs(tuple(given.X)).images, given.pixels)


@few
@given(good_arrays(dtypes=("uint8", "float64")))
def test_one_image_shown_many_times_without_a_copy_is_read(given):
    X = given.X.detach().numpy() if isinstance(given.X, torch.Tensor) else given.X
    many = np.broadcast_to(X[:1], (3, *X.shape[1:]))  # strides of zero
    expected = np.broadcast_to(given.pixels[:1], (3, *given.pixels.shape[1:]))
    assert_pixels(read_inputs(many).images, expected)
    tensor = torch.from_numpy(X[:1].copy()).expand(3, *X.shape[1:])
    assert_pixels(read_inputs(tensor).images, expected)


@few
@given(any_arrays())
def test_any_array_is_read_rightly_or_refused(X):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for value in (X, list(X) if X.ndim else [X]):
            try:
                images = read_inputs(value).images
                read = [unit(images[index]) for index in range(len(images))]
            except InputError:
                continue
            assert X.dtype.kind in "fu"
            expected = images_of(X) if X.ndim > 2 else X
            scale = {"uint8": 255, "uint16": 65535}.get(X.dtype.name, 1)
            for image, pixels in zip(read, expected, strict=True):
                assert np.isfinite(pixels.astype(np.float64)).all()
                wanted = (pixels.astype(np.float64) / scale).clip(0, 1)
                np.testing.assert_allclose(image, wanted.reshape(image.shape), rtol=0, atol=1e-5)


@few
@given(any_arrays())
def test_an_array_without_gaps_in_its_type_or_shape_is_not_refused(X):
    """uint8 of a known shape is always read."""
    known = X.ndim in (3, 4) and X.size and (X.ndim == 3 or {X.shape[1], X.shape[3]} & {1, 3})
    if X.dtype == np.uint8 and known:
        assert len(read_inputs(X).images) == len(X)
