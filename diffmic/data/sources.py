"""Image sources: arrays, files, lists and Datasets, indexed by integers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from .images import as_image, check_image_file, read_image
from .streams import split_item


class ImageSource(Protocol):
    """Sequence of images, each a Tensor (C, H, W), uint8 or float in 0–1."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Tensor: ...


@dataclass(frozen=True)
class Survey:
    """Summary of all images of a source, collected while each is read and checked once.

    Attributes
    ----------
    image_shape : tuple of int
        (C, H, W) of the first image.
    largest : float or None
        Largest pixel value of all float images, including 16-bit files; None: all are uint8.
    """

    image_shape: tuple[int, int, int]
    largest: float | None

    @classmethod
    def of(cls, images: Iterable[Tensor]) -> "Survey":
        """Summary of images, each of which is read once; at least one is needed."""
        shape, largest = None, None
        for image in images:
            shape = shape or tuple(image.shape)
            if image.is_floating_point():
                largest = max(largest or 0.0, float(image.max()))
        assert shape is not None  # an empty X is refused earlier
        channels, height, width = shape
        return cls((channels, height, width), largest)


class ArrayImages:
    """Images of one array, which has been checked; uint8 stays uint8."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]

    def survey(self) -> Survey:
        """Summary of the images, without a loop over them."""
        channels, height, width = self.images.shape[1:]
        largest = float(self.images.max()) if self.images.is_floating_point() else None
        return Survey((channels, height, width), largest)


class FileImages:
    """Image files. Headers are checked on construction; pixels are decoded on each access."""

    def __init__(self, paths: Sequence[str | Path]) -> None:
        self.paths = [Path(path) for path in paths]
        for path in self.paths:
            check_image_file(path)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return read_image(self.paths[index])


class ListImages:
    """List of PIL images, arrays, tensors or paths, of any sizes, checked on construction."""

    def __init__(self, images: Sequence[Any]) -> None:
        self.images = images
        self.found = Survey.of(self[index] for index in range(len(images)))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return as_image(self.images[index], name=f"image {index}")

    def survey(self) -> Survey:
        """Summary of the images, collected on construction."""
        return self.found


class DatasetImages:
    """Images of a map-style Dataset of images, (image, target) pairs or dicts."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Tensor:
        return self.item(index)[0]

    def item(self, index: int) -> tuple[Tensor, Any]:
        """Image and target of an item; the target is None if the item has none."""
        image, target = split_item(self.dataset[index])
        return as_image(image, name=f"image {index}"), target
