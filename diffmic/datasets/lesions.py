"""Synthetic images whose class depends on a small local structure."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom

from ..errors import InputError

LARGEST_TISSUE = 256  # pixels; a larger background is enlarged from one of this size
LESION_CLASSES = ("no lesion", "smooth lesion", "spiculated lesion")


def make_lesions(
    n_samples: int = 300,
    *,
    image_size: int = 96,
    noise: float = 0.08,
    radius: float = 0.075,
    healthy: bool = True,
    return_centers: bool = False,
    random_state: int | np.random.RandomState | None = None,
) -> Any:
    """Synthetic gray images of tissue with bright blobs, one of which may be a lesion.

    Every image has the same kind of background and several benign, blurred blobs. Class 0 has
    nothing else, class 1 a small disc with a sharp edge, class 2 a small star. By default the
    lesion covers about 2 % of the image, so its location matters.

    Parameters
    ----------
    n_samples : int
        Number of images; the classes are equally frequent.
    image_size : int
        Side of the square images, in pixels.
    noise : float
        Standard deviation of the pixel noise, for pixels in 0–1.
    radius : float
        Mean radius of a lesion, as a fraction of the image side; radii vary by 13 % about it.
    healthy : bool
        Whether there are images of class 0, without a lesion.
    return_centers : bool
        Whether to return the centres of the lesions, too, to check where a model looks.
    random_state : int, RandomState or None
        Random seed or generator; None: different images at each call.

    Returns
    -------
    X : ndarray of shape (n_samples, image_size, image_size), uint8
        Images.
    y : ndarray of shape (n_samples,)
        Class of each image: 0, 1 or 2, an index of ``LESION_CLASSES``.
    centers : ndarray of shape (n_samples, 2)
        Centre of each lesion as x, y in pixels, NaN where there is none; only if
        ``return_centers``.

    Raises
    ------
    InputError
        ``n_samples`` or ``image_size`` is below 1.

    Examples
    --------
    >>> X, y = make_lesions(6, image_size=64, random_state=0)
    >>> X.shape, X.dtype, sorted(set(y.tolist()))
    ((6, 64, 64), dtype('uint8'), [0, 1, 2])
    """
    for name, value in (("n_samples", n_samples), ("image_size", image_size)):
        if value < 1:
            raise InputError(f"{name} is {value}; it must be at least 1.")
    rng = (
        random_state
        if isinstance(random_state, np.random.RandomState)
        else np.random.RandomState(np.random.default_rng(random_state).integers(2**31))
    )
    classes = np.arange(len(LESION_CLASSES)) if healthy else np.arange(1, len(LESION_CLASSES))
    y = rng.permutation(classes[np.arange(n_samples) % len(classes)])
    pairs = [_image(int(label), image_size, noise, radius, rng) for label in y]
    X = np.stack([image for image, _ in pairs])
    return (X, y, np.array([center for _, center in pairs])) if return_centers else (X, y)


def _image(
    label: int, size: int, noise: float, radius: float, rng: np.random.RandomState
) -> tuple[NDArray[np.uint8], tuple[float, float]]:
    """One image, and the centre (x, y) of its lesion in pixels."""
    rows, columns = np.mgrid[:size, :size] / size
    image = 0.35 + 0.8 * _tissue(size, rng)
    for _ in range(rng.randint(2, 5)):  # benign blobs
        y0, x0 = rng.uniform(0.1, 0.9, 2)
        width = rng.uniform(0.04, 0.09)
        image += rng.uniform(0.15, 0.35) * np.exp(
            -((rows - y0) ** 2 + (columns - x0) ** 2) / (2 * width**2)
        )
    center = (np.nan, np.nan)
    if label:
        y0, x0 = rng.uniform(0.15, 0.85, 2)
        distance = np.hypot(rows - y0, columns - x0)
        angle = np.arctan2(rows - y0, columns - x0) + rng.uniform(0, np.pi)
        limit = radius / 0.075 * rng.uniform(0.065, 0.085)
        if label == 2:  # spikes, of about the same area
            limit = limit * (1 + 0.4 * np.cos(rng.randint(6, 9) * angle))
        image += rng.uniform(0.12, 0.28) * (distance < limit)
        center = (x0 * size, y0 * size)
    image += noise * rng.randn(size, size)
    return (image.clip(0, 1) * 255).astype(np.uint8), center


def _tissue(size: int, rng: np.random.RandomState) -> NDArray[np.float64]:
    """Smooth background; that of a large image is enlarged, so that it is as strong."""
    if size <= LARGEST_TISSUE:
        smooth: NDArray[np.float64] = gaussian_filter(rng.randn(size, size), size / 10)
        return smooth
    small = gaussian_filter(rng.randn(LARGEST_TISSUE, LARGEST_TISSUE), LARGEST_TISSUE / 10)
    enlarged: NDArray[np.float64] = zoom(small, size / LARGEST_TISSUE, order=1)
    return enlarged
