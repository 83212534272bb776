"""From images to batches for the network: one size, three channels, perhaps augmented."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypedDict

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from ..errors import InputError
from ..random import seeded_rng
from .inputs import ImageSource

Augment = Callable[[Tensor], Tensor]
AUGMENTS = ("auto", "rotations")

_OVERSHOOT = 0.5  # more than cubic interpolation can do, less than a normalised image


class Item(TypedDict):
    """One prepared image: ``image`` (3, S, S), its ``size`` (H, W) as it came, its number."""

    image: Tensor
    size: Tensor
    index: int


class PreparedImages(Dataset[Item]):
    """Images resized to a square and, while training, augmented; uint8 stays uint8.

    Parameters
    ----------
    images : ImageSource
    image_size : int
        Side of the square, in pixels; the whole image is kept, whatever its shape.
    augment : callable or None
        Maps a uint8 or float tensor (3, S, S) to another.
    seed : int
        With ``epoch`` and the image's number it decides the augmentation, whatever the order of
        the images or the process that reads them.
    """

    def __init__(
        self,
        images: ImageSource,
        image_size: int,
        *,
        augment: Augment | None = None,
        seed: int = 0,
    ) -> None:
        self.images = images
        self.image_size = image_size
        self.augment = augment
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Item:
        item = _item(self.images[index], self.image_size, int(index))
        if self.augment is not None:
            seed = hash((self.seed, self.epoch, int(index)))
            item["image"] = _augmented(item["image"], self.augment, seed)
        return item

    def loader(self, batch_size: int, **options: Any) -> "DataLoader[Item]":
        """A DataLoader; options as there."""
        return _loader(self, batch_size, options)


class PreparedStream(IterableDataset[Item]):
    """Images of a stream resized to a square as they come: one batch is in memory, not all.

    Parameters
    ----------
    images : iterable of Tensor
        Each (C, H, W), uint8 or float in 0–1.
    image_size : int
        Side of the square, in pixels.
    """

    def __init__(self, images: Iterable[Tensor], image_size: int) -> None:
        self.images = images
        self.image_size = image_size

    def __iter__(self) -> Iterator[Item]:
        for index, image in enumerate(self.images):
            yield _item(image, self.image_size, index)

    def loader(self, batch_size: int, **options: Any) -> "DataLoader[Item]":
        """A DataLoader; options as there."""
        return _loader(self, batch_size, options)


def views_of(images: Tensor, n_views: int, augment: Augment | None, seed: int) -> Tensor:
    """Each image as it is, then changed: its views lie side by side, (B, …) → (B·V, …).

    Parameters
    ----------
    images : Tensor of shape (B, 3, S, S)
    n_views : int
        V; each but the first is one draw of ``augment``, the same for every image.
    augment : callable or None
        None where V is 1.
    seed : int
        With a view's number it decides the draw, from torch's global generator, which is then as it
        was before: one thread at a time.
    """
    if n_views == 1:
        return images
    assert augment is not None  # the parameters have been checked
    views = [images]
    for view in range(1, n_views):
        changed = [_augmented(image, augment, hash((seed, view))) for image in images]
        views.append(torch.stack(changed))
    if len({view.dtype for view in views}) > 1:
        views = [unit_range(view) for view in views]
    return torch.stack(views, dim=1).flatten(0, 1)


def _augmented(image: Tensor, augment: Augment, seed: int) -> Tensor:
    with seeded_rng(seed):
        # A copy: a transform may work in place, and the pixels are the user's.
        changed = augment(image.clone(memory_format=torch.contiguous_format))
    expected = tuple(image.shape)
    if not isinstance(changed, Tensor) or tuple(changed.shape) != expected:
        found = tuple(changed.shape) if isinstance(changed, Tensor) else type(changed).__name__
        raise InputError(f"augment returned {found}; a tensor of shape {expected} is needed.")
    if not changed.is_floating_point():
        return changed
    low, high = changed.aminmax()
    if not (low >= -_OVERSHOOT and high <= 1 + _OVERSHOOT):
        raise InputError(
            f"augment returned pixels from {low:.3g} to {high:.3g}; floats must stay in 0–1. "
            "Leave out Normalize, the model normalises; scale where the type is changed."
        )
    return changed.clamp(0, 1)


def _item(image: Tensor, image_size: int, index: int) -> Item:
    size = torch.tensor(image.shape[1:])
    return {
        "image": resized(image, image_size).expand(3, -1, -1),
        "size": size,
        "index": index,
    }


def _loader(dataset: Dataset[Item], batch_size: int, options: dict[str, Any]) -> "DataLoader[Item]":
    # Without one of its own a DataLoader draws from torch's global generator.
    options.setdefault("generator", torch.Generator())
    return DataLoader(dataset, batch_size=batch_size, collate_fn=collate, **options)


def resized(image: Tensor, size: int) -> Tensor:
    """An image (C, H, W) with both sides of ``size`` pixels, antialiased."""
    if image.shape[1:] == (size, size):
        return image
    from torchvision.transforms.v2 import functional as transforms

    resized_image: Tensor = transforms.resize(image, [size, size], antialias=True)
    return resized_image


def collate(items: list[Item]) -> dict[str, Tensor]:
    """Items as a batch; images of mixed types become float."""
    images = [item["image"] for item in items]
    if len({image.dtype for image in images}) > 1:
        images = [unit_range(image) for image in images]
    return {
        "image": torch.stack(images),
        "size": torch.stack([item["size"] for item in items]),
        "index": torch.tensor([item["index"] for item in items]),
    }


def unit_range(images: Tensor) -> Tensor:
    """Pixels as float in 0–1: uint8 is divided by 255, floats are there already."""
    return images.float() if images.is_floating_point() else images.float().div_(255)


def named_augment(name: str) -> Augment:
    """Mild changes that keep most medical images plausible.

    Parameters
    ----------
    name : {"auto", "rotations"}
        Auto: shifts, small rotations, flips from left to right. Rotations: any, and flips up and
        down, for images without an upright direction, as of skin, fundus or cells.
    """
    from torchvision.transforms import v2

    turns = name == "rotations"
    augment: Augment = v2.Compose(
        [
            v2.RandomHorizontalFlip(),
            *([v2.RandomVerticalFlip()] if turns else []),
            # Half of the images keep their own grain: resampling smooths noise and leaves black
            # corners, and a network that only ever saw that misjudges images as they come.
            v2.RandomApply(
                [
                    v2.RandomAffine(
                        degrees=180 if turns else 15,
                        translate=(0.05, 0.05),
                        scale=(0.9, 1.1),
                        interpolation=v2.InterpolationMode.BILINEAR,
                    )
                ]
            ),
            v2.ColorJitter(brightness=0.15, contrast=0.15),
        ]
    )
    return augment
