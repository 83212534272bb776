"""Image sources: arrays, files, lists and Datasets, indexed by integers."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Subset

from ..errors import InputError
from ..generators import seeded
from ..random import derived_seed
from .columns import as_array
from .files import check_image_file, content_of, holds_content
from .images import as_image, in_range
from .items import USUAL_KEYS, Keys, split_item
from .ranges import ValueRange
from .reading import Reading, one_of_many
from .skipping import file_of, item_errors
from .workers import Workers, unchanged

_CHECKED_TOGETHER = 2**26  # pixels
_SURVEYED_SIDE = 224  # larger files are not decoded whole when all are looked at before a fit


class ImageSource(Protocol):
    """Sequence of images, each a Tensor (C, H, W), uint8 or float in 0–1."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Tensor: ...


class Source:
    """Images of some kind, which are read by index."""

    workers: Workers | None = None  # processes that must read the images; None: any may

    def __len__(self) -> int:
        raise NotImplementedError

    def read(self, index: int, reading: Reading) -> Tensor:
        """Image at an index; ``reading`` gives the range of values, and what is noticed is told.

        Raises
        ------
        InputError
            The image cannot be used; the message names it.
        """
        raise NotImplementedError

    def check(self, reading: Reading) -> None:
        """Check what can be checked quickly, for an error early rather than late."""

    def named(self, index: int) -> str:
        """Name of an image for people: its file, or else its number."""
        return f"image {index}"

    def __getitem__(self, index: int) -> Tensor:
        return self.read(index, Reading())


class ArrayImages(Source):
    """Images of one array (n, C, H, W): uint8, float32, or integers of more than 8 bits."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int, reading: Reading) -> Tensor:
        return in_range(self.images[index][None], reading, name=f"image {index}")[0]

    def parts(self, reading: Callable[[], Reading]) -> Iterator[tuple[Tensor, Reading]]:
        """All images, many at once, each part with a reading of its own."""
        step = max(1, _CHECKED_TOGETHER // max(1, self.images[0].numel()))
        for start in range(0, len(self), step):
            notes = reading()
            yield in_range(self.images[start : start + step], notes, first=start), notes

    def check(self, reading: Reading) -> None:
        """Check all images."""
        for _ in self.parts(lambda: Reading(reading.value_range, reading.raw)):
            pass


class FileImages(Source):
    """Image files; pixels are decoded on each access."""

    def __init__(self, paths: Sequence[str | os.PathLike[Any]]) -> None:
        self.paths = list(paths)

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int, reading: Reading) -> Tensor:
        return as_image(self.paths[index], name=f"image {index}", reading=reading)

    def named(self, index: int) -> str:
        return repr(str(os.fsdecode(self.paths[index])))

    def check(self, reading: Reading) -> None:
        """Check the header of every file; pixels are decoded once, when they are used."""
        for number, path in enumerate(self.paths):
            try:
                if os.fsdecode(path).strip():
                    check_image_file(path)
                else:
                    self.read(number, reading)
            except InputError as reason:
                if number and reading.raw:  # for a fit
                    raise one_of_many(reason) from reason
                raise


class ListImages(Source):
    """List of PIL images, arrays, tensors, paths or files, of any sizes.

    Open files are read on construction, and images that PIL has not decoded are decoded: worker
    processes would share their position in the file.
    """

    def __init__(self, images: Sequence[Any]) -> None:
        self.images = [_settled(image, index) for index, image in enumerate(images)]

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int, reading: Reading) -> Tensor:
        return as_image(self.images[index], name=f"image {index}", reading=reading)

    def named(self, index: int) -> str:
        image = self.images[index]
        return repr(str(os.fsdecode(image))) if is_path(image) else super().named(index)

    def check(self, reading: Reading) -> None:
        """Check types, and the headers of files; decode the first image."""
        for index, image in enumerate(self.images):
            if is_path(image):
                check_image_file(image)
            elif not isinstance(image, (np.ndarray, Tensor, Image.Image, bytes)):
                self.read(index, Reading(reading.value_range, reading.raw))
        self.read(0, Reading(reading.value_range, reading.raw))


class OneImage(Source):
    """An image of any kind, such as the content of a file; errors call it by its name."""

    def __init__(self, image: Any, name: str) -> None:
        self.image, self.name = image, name

    def __len__(self) -> int:
        return 1

    def read(self, index: int, reading: Reading) -> Tensor:
        return as_image(self.image, name=self.name, reading=reading)

    def named(self, index: int) -> str:
        return self.name


def is_path(value: Any) -> bool:
    """Whether a value of a list is the path of a file."""
    return isinstance(value, (str, os.PathLike))


def _settled(image: Any, index: int) -> Any:
    """An image of a list that depends on no open file; errors are left to when it is read."""
    with suppress(Exception):
        if holds_content(image):
            return content_of(image, f"image {index}")
        if isinstance(image, Image.Image):
            image.load()
    return image


class DatasetImages(Source):
    """Images of a map-style Dataset of images, (image, target) pairs or dicts.

    What an item draws at random depends on the seed of the reading and on the item's number in the
    Dataset, whatever :class:`Subset` it is in, not on the order or the worker. Where there are
    worker processes, only they read the items: what a Dataset opens when it is first used must not
    be inherited by workers.
    """

    def __init__(
        self, dataset: Any, keys: Keys = USUAL_KEYS, workers: Workers | None = None
    ) -> None:
        self.dataset, self.keys, self.workers = dataset, keys, workers

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, index: int, reading: Reading) -> Tensor:
        return self.item(index, reading)[0]

    def named(self, index: int) -> str:
        return file_of(self.dataset, index) or super().named(index)

    def item(
        self, index: int, reading: Reading, *, with_target: bool = False
    ) -> tuple[Tensor, Any]:
        """Image and target of an item; the target is None if it is not asked for."""
        name = f"image {index}"
        seed = derived_seed(reading.seed, _number_in(self.dataset, index))
        with item_errors(self.dataset, index), seeded(self.dataset, seed):
            item = self.dataset[index]
        whole = f"Item {index} of the Dataset"
        image, target = split_item(item, self.keys, with_target=with_target, name=whole)
        try:
            return as_image(image, name=name, reading=reading), target
        except InputError as reason:
            file = file_of(self.dataset, index)
            if not file:
                raise
            raise InputError(f"{reason} (item {index} of the Dataset, {file})") from reason


class SomeImages(Source):
    """Some of the images of a source."""

    def __init__(self, images: ImageSource, indices: Sequence[int]) -> None:
        self.images, self.indices = images, indices
        self.workers = getattr(images, "workers", None)

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, index: int, reading: Reading) -> Tensor:
        return read_from(self.images, self.indices[index], reading)

    def named(self, index: int) -> str:
        return name_of(self.images, self.indices[index])


def is_of_a_dataset(images: Any) -> bool:
    """Whether images are those of a Dataset, or some of them."""
    while isinstance(images, SomeImages):
        images = images.images
    return isinstance(images, DatasetImages)


def read_from(images: Any, index: int, reading: Reading) -> Tensor:
    """Image of a source, or of any other sequence of images."""
    if isinstance(images, Source):
        return images.read(index, reading)
    return as_image(images[index], name=f"image {index}", reading=reading)


def name_of(images: Any, index: int) -> str:
    """Name of an image of a source, or of any other sequence of images, for people."""
    return images.named(index) if isinstance(images, Source) else f"image {index}"


@dataclass(frozen=True)
class Sighting:
    """An image of a survey, or why it cannot be used; with what was noticed, and its target."""

    reading: Reading
    image: Tensor | InputError
    target: Any = None


@dataclass(frozen=True)
class Surveyed(Dataset[Sighting]):
    """Images as they are read when all are looked at before a fit."""

    images: Any
    value_range: ValueRange | None
    with_targets: bool

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sighting:
        reading = Reading(self.value_range, raw=True, side=_SURVEYED_SIDE)
        try:
            if not self.with_targets:
                return Sighting(reading, read_from(self.images, index, reading))
            image, target = self.images.item(index, reading, with_target=True)
            # A copy, since what a worker sends may hold on to a file descriptor.
            return Sighting(reading, image, as_array(target, "target").copy())
        except InputError as reason:
            return Sighting(reading, reason)

    def __iter__(self) -> Iterator[Sighting]:
        """All images; where there are worker processes, only they read them."""
        workers: Workers | None = getattr(self.images, "workers", None)
        if workers is None or workers.num_workers == 0:
            return map(self.__getitem__, range(len(self)))
        return iter(workers.open(self, None, unchanged))


def _number_in(dataset: Any, index: int) -> int:
    """Number of an item in the whole Dataset of which a Subset may be a part."""
    number = index
    while type(dataset) is Subset and 0 <= index < len(dataset.indices):
        index, dataset = dataset.indices[index], dataset.dataset
        if not isinstance(index, (int, np.integer)) or index < 0:  # a key, or counted from the end
            break
        number = int(index)
    return number
