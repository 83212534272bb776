"""The part of an image that is seen: the whole, or the central square."""

import pytest
import torch
from torchvision.transforms.v2 import functional as transforms

from diffmic.data import PreparedImages, PreparedStream, read_inputs
from diffmic.data.framing import cropped, frames, made_small, resized

SIZES = torch.tensor([[20, 16], [16, 20], [7, 12], [12, 7], [9, 9], [1, 30]])


def test_the_whole_image_is_seen_without_a_crop():
    assert frames(SIZES, "none").tolist() == [[0, 0, w, h] for h, w in SIZES.tolist()]
    image = torch.rand(3, 20, 16)
    assert cropped(image, "none") is image


def test_a_square_is_the_largest_one_in_the_middle():
    assert frames(SIZES, "square").tolist() == [
        [0, 2, 16, 18],
        [2, 0, 18, 16],
        [2, 0, 9, 7],
        [0, 2, 7, 9],
        [0, 0, 9, 9],
        [14, 0, 15, 1],
    ]


@pytest.mark.parametrize("size", SIZES.tolist())
def test_the_pixels_of_a_crop_are_those_of_its_frame(size):
    image = torch.arange(3 * size[0] * size[1]).view(3, *size)
    x0, y0, x1, y1 = frames(torch.tensor([size]), "square")[0].tolist()
    found = cropped(image, "square")
    assert torch.equal(found, image[:, y0:y1, x0:x1])
    assert found.shape == (3, min(size), min(size))


@pytest.mark.parametrize("size", [(20, 16), (16, 20), (13, 33)])
def test_an_image_is_cropped_and_then_resized_and_its_own_size_is_kept(size):
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    images = read_inputs([image]).images
    item = PreparedImages(images, 8, crop="square")[0]
    (streamed,) = PreparedStream([image], 8, crop="square").items()
    expected = transforms.resize(cropped(image, "square"), [8, 8], antialias=True)
    for found in (item, streamed):
        assert torch.equal(found["image"], expected)
        assert found["size"].tolist() == [*size]


@pytest.mark.parametrize(
    "shape", [(1, 97, 131), (3, 300, 202), (1, 65, 64), (3, 256, 3), (1, 99, 2)]
)
@pytest.mark.parametrize("layout", ["planes", "interleaved"])
def test_made_small_is_resized_up_to_rounding(shape, layout):
    image = (torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 255).to(torch.uint8)
    if layout == "interleaved":
        image = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    for part in (image, image[:, 3:, 1:]):  # a view, whose rows are not contiguous
        found, expected = made_small(part, 16), resized(part, 16)
        assert found.shape == expected.shape == (shape[0], 16, 16)
        assert found.dtype == torch.uint8
        assert (found.int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize("shape", [(3, 20, 30), (1, 16, 16), (3, 5, 7)])
def test_images_that_are_not_much_larger_are_resized(shape):
    image = (torch.rand(shape) * 255).to(torch.uint8)
    assert torch.equal(made_small(image, 16), resized(image, 16))
    assert torch.equal(made_small(image / 255, 16), resized(image / 255, 16))
