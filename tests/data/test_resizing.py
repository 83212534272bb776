import pytest
import torch

from diffmic.data.resizing import made_small, resized


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
