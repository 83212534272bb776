"""Arrays of images as people pass them, each with the pixels that must be read from it."""

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st
from numpy.typing import NDArray

TIMES = int(os.environ.get("DOOR_TIMES", "1"))  # as many examples as usual: a wider search
SIDES = st.sampled_from([1, 2, 3, 4, 5])
GOOD_TYPES = ("uint8", "float16", "float32", "float64", ">f4", "uint16")
OTHER_TYPES = ("int8", "int16", "int32", "int64", "uint32", "uint64", "bool", "complex64", "M8[s]")


def examples(number, **options):
    """Settings of a search of some examples; with DOOR_TIMES others, and more, in each run."""
    return settings(max_examples=number * TIMES, deadline=None, derandomize=TIMES == 1, **options)


@dataclass(frozen=True)
class Given:
    """What is passed, and what must be read: pixels (n, C, H, W) in 0–1; None: to be refused."""

    X: Any
    pixels: NDArray[np.float64] | None


@st.composite
def shapes(draw):
    """Shapes of images that can be read: (n, H, W), or channels first or last."""
    n, height, width = draw(st.integers(1, 3)), draw(SIDES), draw(SIDES)
    channels = draw(st.sampled_from([1, 3]))
    return draw(
        st.sampled_from(
            [(n, height, width), (n, channels, height, width), (n, height, width, channels)]
        )
    )


def images_of(X: NDArray[Any]) -> NDArray[Any]:
    """(n, C, H, W) of an array: channels first, if they can be; then last."""
    if X.ndim == 3:
        return X[:, None]
    return X if X.shape[1] in (1, 3) else X.transpose(0, 3, 1, 2)


def filled(draw, shape, dtype):
    """Random pixels of a type in its natural range, and the same in 0–1."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = np.dtype(dtype)
    if kind.kind == "f":
        values = rng.random(shape).astype(kind)
        return values, values.astype(np.float64).clip(0, 1)
    largest = 255 if kind == np.uint8 else 65535
    values = rng.integers(0, largest + 1, shape).astype(kind)
    values.flat[0] = largest  # so that 16 bits are seen to be 16 bits
    return values, values / largest


def laid_out(draw, values):
    """The same values in memory of another order, with gaps, backwards, or read-only."""
    how = draw(st.sampled_from(["as is", "fortran", "gaps", "backwards", "turned", "read-only"]))
    if how == "fortran":
        return np.asfortranarray(values)
    if how == "gaps":
        wide = np.repeat(values, 2, axis=-1)
        return wide[..., ::2]
    if how == "backwards":
        axis = draw(st.integers(0, values.ndim - 1))
        return np.flip(np.flip(values, axis).copy(), axis)
    if how == "turned":
        return np.moveaxis(np.moveaxis(values, -1, 0).copy(), 0, -1)
    values = values.copy()
    values.flags.writeable = how != "read-only"
    return values


@st.composite
def good_arrays(draw, dtypes=GOOD_TYPES):
    """Arrays and tensors that must be read."""
    values, unit = filled(draw, draw(shapes()), draw(st.sampled_from(dtypes)))
    X = laid_out(draw, values)
    if draw(st.booleans()) and values.dtype.isnative:
        X = as_tensor(draw, X)
    return Given(X, images_of(unit))


def as_tensor(draw, values):
    """A tensor of the values, perhaps with gaps, with a gradient, or a view of another."""
    tensor = torch.from_numpy(np.ascontiguousarray(values).copy())
    how = draw(st.sampled_from(["as is", "gaps", "turned", "gradient", "parameter"]))
    if how == "gaps":
        return torch.stack([tensor, tensor], dim=-1)[..., 0]
    if how == "turned":
        return tensor.movedim(-1, 0).contiguous().movedim(0, -1)
    if how in ("gradient", "parameter") and tensor.is_floating_point():
        return torch.nn.Parameter(tensor) if how == "parameter" else tensor.requires_grad_()
    return tensor


@st.composite
def any_arrays(draw):
    """Arrays of any shape, type and values: most must be refused."""
    shape = tuple(draw(st.lists(st.integers(0, 4), min_size=0, max_size=5)))
    dtype = np.dtype(draw(st.sampled_from(GOOD_TYPES + OTHER_TYPES)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if dtype.kind in "fc":
        low, high = draw(st.sampled_from([(0, 1), (0, 255), (-2, 2), (-1024, 1024), (0, 1e-4)]))
        values = np.asarray(low + (high - low) * rng.random(shape)).astype(dtype)
        wrong = draw(st.sampled_from([None, np.nan, np.inf, -np.inf, 1e300]))
        if values.size and wrong is not None:
            with np.errstate(over="ignore"):
                values.flat[0] = wrong
        return values
    values = np.asarray(rng.integers(0, 2**15, shape))
    with np.errstate(over="ignore"):
        return values.astype(dtype)
