"""Image sources: arrays, files, lists and Datasets, indexed by integers."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Subset

from ..errors import InputError
from ..generators import seeded
from ..random import derived_seed
from .files import check_image_file, content_of, holds_content
from .images import as_image, in_range
from .items import USUAL_KEYS, Keys, split_item
from .ranges import ValueRange
from .reading import Reading, one_of_many
from .workers import Workers, unchanged

_CHECKED_TOGETHER = 2**26  # pixels
_SURVEYED_SIDE = 224  # larger files are not decoded whole when all are looked at before a fit


class ImageSource(Protocol):
    """Sequence of images, each a Tensor (C, H, W), uint8 or float in 0–1."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Tensor: ...


class Source:
    """Images of some kind, which are read by index.

    Attributes
    ----------
    workers : Workers or None
        Worker processes that must read the images; None: any may.
    """

    workers: Workers | None = None

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
        """All images, many at once, each part with a reading of its own.

        Raises
        ------
        InputError
            Pixels cannot be used.
        """
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
    worker processes, only they read the items: what a Dataset opens when it is
    first used must not be inherited by workers.

    Parameters
    ----------
    dataset : Dataset
    keys : Keys
        Keys of images and targets in items that are dicts.
    workers : Workers or None
        Worker processes that read the items; None: there are none.
    """

    def __init__(
        self, dataset: Any, keys: Keys = USUAL_KEYS, workers: Workers | None = None
    ) -> None:
        self.dataset, self.keys, self.workers = dataset, keys, workers

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, index: int, reading: Reading) -> Tensor:
        return self.item(index, reading)[0]

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
            file = _file_of(self.dataset, index)
            if not file:
                raise
            raise InputError(f"{reason} (item {index} of the Dataset, {file})") from reason

    def readers(
        self, value_range: ValueRange | None, *, with_target: bool
    ) -> Iterator[Callable[[Reading], tuple[Tensor, Any]]]:
        """A function for each item in turn, which gives its image and target; see :meth:`item`."""
        if self.workers is None or self.workers.num_workers == 0:
            for index in range(len(self)):
                yield partial(self.item, index, with_target=with_target)
            return
        items = _ReadItems(self, value_range, with_target)
        yield from self.workers.open(items, None, unchanged)  # type: ignore[arg-type]


@dataclass(frozen=True)
class _ReadItem:
    """An item that a worker read, or why it cannot be used."""

    item: tuple[Tensor, Any] | InputError
    reading: Reading

    def __call__(self, reading: Reading) -> tuple[Tensor, Any]:
        vars(reading).update(vars(self.reading))
        if isinstance(self.item, InputError):
            raise self.item
        return self.item


@dataclass(frozen=True)
class _ReadItems:
    """Items as :meth:`DatasetImages.readers` needs them from workers."""

    images: DatasetImages
    value_range: ValueRange | None
    with_target: bool

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> _ReadItem:
        reading = surveying(self.value_range)
        try:
            item = self.images.item(index, reading, with_target=self.with_target)
        except InputError as reason:
            return _ReadItem(reason, reading)
        return _ReadItem(item, reading)


class SomeImages(Source):
    """Some of the images of a source."""

    def __init__(self, images: ImageSource, indices: Sequence[int]) -> None:
        self.images, self.indices = images, indices
        self.workers = getattr(images, "workers", None)

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, index: int, reading: Reading) -> Tensor:
        return read_from(self.images, self.indices[index], reading)


def surveying(value_range: ValueRange | None) -> Reading:
    """How each image is read when all are looked at before a fit."""
    return Reading(value_range, raw=True, side=_SURVEYED_SIDE)


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


@contextmanager
def item_errors(dataset: Any, index: int) -> Iterator[None]:
    """Whatever a Dataset raises for an item, as an InputError that names the item."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as reason:
        file = _file_of(dataset, index)
        told = f"{type(reason).__name__}: {reason}".removeprefix("InputError: ").rstrip(". :")
        first = None if isinstance(reason, InputError) else _first_cause(reason)
        if first is not None:  # transforms tell their own name, not what went wrong in them
            told = f"{told} (from {type(first).__name__}: {first})"
        raise InputError(
            f"Item {index} of the Dataset{f', {file},' if file else ''} cannot be read: {told}."
        ) from reason


def _first_cause(reason: BaseException) -> BaseException | None:
    """Exception that an exception was raised from, and that one in turn, to the first."""
    chain = [reason]
    while (cause := chain[-1].__cause__) is not None and cause not in chain:
        chain.append(cause)
    return chain[-1] if len(chain) > 1 else None


def _number_in(dataset: Any, index: int) -> int:
    """Number of an item in the whole Dataset of which a Subset may be a part."""
    number = index
    while type(dataset) is Subset and 0 <= index < len(dataset.indices):
        index, dataset = dataset.indices[index], dataset.dataset
        if not isinstance(index, (int, np.integer)) or index < 0:  # a key, or counted from the end
            break
        number = int(index)
    return number


def _file_of(dataset: Any, index: int) -> str:
    """File of an item of an image folder, as torchvision's Datasets list them; empty: unknown."""
    with suppress(Exception):
        while isinstance(dataset, Subset):
            dataset, index = dataset.dataset, dataset.indices[index]
        for name in ("samples", "imgs"):
            entry = getattr(dataset, name)[index]
            file = entry[0] if isinstance(entry, (tuple, list)) else entry
            if is_path(file):
                return repr(os.fspath(file))
    return ""
