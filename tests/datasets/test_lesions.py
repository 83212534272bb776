"""Generated images: reproducible, balanced, and with the sign where it should be."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffmic.datasets import LESION_CLASSES, make_lesions
from diffmic.errors import InputError


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 20), st.integers(8, 40), st.integers(0, 2**32 - 1))
def test_images_are_gray_bytes_and_classes_equally_frequent(n_samples, image_size, seed):
    X, y = make_lesions(n_samples, image_size=image_size, random_state=seed)
    assert X.shape == (n_samples, image_size, image_size)
    assert X.dtype == np.uint8
    counts = np.bincount(y, minlength=len(LESION_CLASSES))
    assert len(counts) == len(LESION_CLASSES)
    assert counts.max() - counts.min() <= 1


def test_the_same_seed_gives_the_same_images_and_another_seed_others():
    first, again, other = (make_lesions(6, image_size=32, random_state=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


def test_chance_may_come_from_a_random_state():
    rng = np.random.RandomState(5)
    first, second = (
        make_lesions(3, image_size=16, random_state=rng)[0],
        make_lesions(3, image_size=16, random_state=rng)[0],
    )
    assert not np.array_equal(first, second)
    again = make_lesions(3, image_size=16, random_state=np.random.RandomState(5))[0]
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("random_state", [None, 0])
def test_the_global_random_state_stays_as_it_was(random_state):
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    make_lesions(3, image_size=16, random_state=random_state)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_a_lesion_has_an_edge_and_tissue_has_none():
    X, y = make_lesions(30, image_size=160, noise=0.0, random_state=0)
    edges = np.abs(np.diff(X.astype(float), axis=1)).max(axis=(1, 2))
    assert edges[y > 0].min() > edges[y == 0].max()


def test_noise_is_noise_of_the_pixels():
    (calm, _), (noisy, _) = (
        make_lesions(3, image_size=64, noise=noise, random_state=0) for noise in (0.0, 0.1)
    )
    assert (
        np.abs(np.diff(noisy.astype(float))).mean() > 2 * np.abs(np.diff(calm.astype(float))).mean()
    )


@pytest.mark.parametrize("options", [{"n_samples": 0}, {"n_samples": -3}, {"image_size": 0}])
def test_no_images_or_no_pixels_are_an_error(options):
    name, value = next(iter(options.items()))
    with pytest.raises(InputError, match=f"{name} is {value}; it must be at least 1"):
        make_lesions(**options)
