"""Pictures of every mode of Pillow, masked arrays and half precision: read, or refused."""

import numpy as np
import torch
from door.arrays import SIDES, examples
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from diffmic.data import read_inputs, unit_range
from diffmic.errors import InputError

BYTES = ("L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV")
DEEP = {"I;16": np.uint16, "I": np.int32, "F": np.float32}
BANDS = {"1": 1, "L": 1, "LA": 2, "P": 1, "PA": 2, "RGBA": 4, "CMYK": 4}


@st.composite
def pictures(draw):
    mode = draw(st.sampled_from(["1", *BYTES, *DEEP]))
    height, width = draw(SIDES), draw(SIDES)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if mode in DEEP:
        top = draw(st.sampled_from([1, 255, 65535]))
        return Image.fromarray((top * rng.random((height, width))).astype(DEEP[mode]))
    size = (width + 7) // 8 * height if mode == "1" else width * height * BANDS.get(mode, 3)
    return Image.frombytes(mode, (width, height), rng.bytes(size))


def read_or_refused(X, shape):
    try:
        source = read_inputs([X]).images
        pixels = unit_range(source[0])
    except InputError:
        return None
    assert pixels.shape[-2:] == shape
    assert pixels.shape[0] in (1, 3)
    assert pixels.isfinite().all()
    return pixels


@given(pictures())
@examples(150)
def test_pictures_of_every_mode(picture):
    pixels = read_or_refused(picture, (picture.height, picture.width))
    if picture.mode in ("1", *BYTES):
        assert pixels is not None  # these have bytes, whose range is known
        assert 0 <= pixels.min() <= pixels.max() <= 1


@given(SIDES, st.booleans(), st.integers(0, 255))
@examples(20)
def test_masked_arrays_and_half_precision(side, masked, value):
    pixels = np.full((side, side), value, np.uint8)
    mask = np.zeros_like(pixels, bool)
    mask[0, 0] = masked
    read_or_refused(np.ma.masked_array(pixels, mask), (side, side))
    for dtype in (torch.bfloat16, torch.float16):
        half = (torch.from_numpy(pixels).float() / 255).to(dtype)
        found = read_or_refused(half, (side, side))
        assert torch.allclose(found.float(), half.float().expand_as(found), atol=1e-3)
