"""Preparation of images for the network: size, three channels, augmentation, batching."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, NotRequired, TypedDict

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from ..random import derived_seed
from .augmentation import Augment, augmented
from .columns import as_array
from .framing import cropped, made_small, resized
from .images import as_image
from .ranges import ValueRange
from .reading import DARK, Note, Notes, Reading
from .sources import DatasetImages, ImageSource, name_of, read_from
from .workers import workers_of


class Item(TypedDict):
    """One prepared image (3, S, S), with original size (H, W), index, and what was noticed.

    ``target`` is there if it was asked for, as it came with the image. For a zoom, ``original`` is
    what is seen of the image, from which regions are cut: (1 or 3, H', W'), or augmented and of the
    zoom's size.
    """

    image: Tensor
    original: NotRequired[Tensor]
    size: Tensor
    index: int
    notes: int
    target: NotRequired[Any]


ZOOM_BATCH = 8  # images in memory at their own size


class _Batches(Dataset[Item]):
    """Batches of prepared images.

    Parameters
    ----------
    images : ImageSource, or iterable
    image_size : int
        Side of the square to which images are resized, in pixels.
    crop : {"none", "square"}
        Part of each image that is resized, as in :func:`~diffmic.data.framing.frames`.
        ``"none"``: the whole image, whatever its aspect ratio.
    zoom_size : int or None
        Side of the squares that are augmented for a zoom, in pixels, if regions are cut from the
        originals; None: they are not.
    value_range : ValueRange or None
        Range of pixel values; None: 8 bits, 16 bits, or floats in 0–1.
    with_targets : bool
        Whether to read the targets, too, of a Dataset or :class:`Stream`, which ``images`` are
        then.

    Attributes
    ----------
    notes : Notes
        What was noticed in the images of :meth:`batches`.
    targets : list
        Targets that came with them, if they were asked for.
    """

    def __init__(
        self,
        images: Any,
        image_size: int,
        *,
        crop: str = "none",
        zoom_size: int | None = None,
        value_range: ValueRange | None = None,
        with_targets: bool = False,
    ) -> None:
        self.images, self.image_size, self.crop = images, image_size, crop
        self.zoom_size, self.value_range, self.with_targets = zoom_size, value_range, with_targets
        self.notes = Notes(partial(name_of, images))
        self.targets: list[Any] = []

    def items(self, only: Sequence[int] | None = None) -> Iterator[Item]:
        """All items, in order; or ``only`` those with given indices."""
        raise NotImplementedError

    def loader(
        self, batch_size: int, *, num_workers: int = 0, **options: Any
    ) -> "DataLoader[Item]":
        """DataLoader of dict batches for training; options as for :class:`DataLoader`.

        The worker processes are those of the DataLoader that the images come from, if they do, else
        ``num_workers``.
        """
        workers = workers_of(self.images, num_workers)
        return workers.open(self, batch_size, collate, **options)

    def batches(
        self,
        batch_size: int,
        *,
        num_workers: int = 0,
        pin_memory: bool = False,
        only: Sequence[int] | None = None,
    ) -> Iterator[dict[str, Tensor]]:
        """All batches in order, for predictions: a dict of tensors; see :class:`Item`.

        Batches for a zoom have no more than :data:`ZOOM_BATCH` images. ``only``: indices of some
        images, not of a stream.
        """
        batches: Iterator[dict[str, Any]]
        if self.zoom_size is not None:
            batch_size = min(batch_size, ZOOM_BATCH)
        if workers_of(self.images, num_workers).num_workers > 0 or pin_memory:
            some = {} if only is None else {"sampler": only}
            batches = iter(
                self.loader(batch_size, num_workers=num_workers, pin_memory=pin_memory, **some)
            )
        else:  # a DataLoader costs half a millisecond, a lot for a single image
            items = self.items(only)
            batches = map(collate, iter(lambda: list(islice(items, batch_size)), []))
        for batch in batches:
            flags = batch["notes"] | _darkness(batch["image"])
            self.notes.add_flags(flags.tolist(), batch["index"].tolist())
            self.targets += batch.pop("target", ())
            yield batch

    def to_augment(self, batch: Mapping[str, Any]) -> list[Tensor]:
        """Images of a batch as an augmentation takes them, (3, S, S)."""
        if self.zoom_size is None:
            return list(batch["image"])
        return [resized(whole, self.zoom_size).expand(3, -1, -1) for whole in batch["original"]]

    def views(
        self, batch: Mapping[str, Any], n_views: int, augment: Augment | None, seed: int
    ) -> tuple[Tensor, list[Tensor] | None]:
        """Test-time views of a batch as in :func:`views_of`, and the originals of a zoom."""
        if self.zoom_size is None or n_views == 1:
            return views_of(batch["image"], n_views, augment, seed), batch.get("original")
        assert augment is not None  # checked with the parameters
        images, originals = [], []
        shown = zip(batch["image"], batch["original"], self.to_augment(batch), strict=True)
        for image, original, whole in shown:
            others = [
                augmented(whole, augment, derived_seed(seed, view)) for view in range(1, n_views)
            ]
            images += [image, *(made_small(other, self.image_size) for other in others)]
            originals += [original, *others]
        return _stacked(images), originals

    def _item(
        self, image: Tensor, index: int, reading: Reading, change: Augment | None = None
    ) -> Item:
        """Item of an image (C, H, W); ``change`` augments it, at the size of a zoom."""
        item: Item = {
            "image": image,
            "size": torch.tensor(reading.size_of(image)),
            "index": index,
            "notes": reading.flags,
        }
        image = cropped(image, self.crop)
        if self.zoom_size is None or change is not None:
            image = resized(image, self.zoom_size or self.image_size).expand(3, -1, -1)
        if change is not None:
            image = change(image)
        if self.zoom_size is None:
            item["image"] = image
        else:
            item["image"] = made_small(image, self.image_size).expand(3, -1, -1)
            item["original"] = image
        return item


class PreparedImages(_Batches):
    """Dataset of images resized to a square and, in training, augmented; uint8 stays uint8.

    Parameters
    ----------
    images : ImageSource
    image_size, crop, zoom_size, value_range, with_targets
        See :class:`_Batches`.
    augment : callable or None
        Augmentation: maps a uint8 or float tensor (3, S, S) to another; None: none.
    seed : int
        Seed of the augmentation, and of what items of a Dataset draw at random. The random numbers
        depend on this seed, ``epoch`` and the index of the image, but not on the order of the
        images or on the worker that loads them.
    """

    def __init__(
        self,
        images: ImageSource,
        image_size: int,
        *,
        augment: Augment | None = None,
        seed: int = 0,
        **how: Any,
    ) -> None:
        super().__init__(images, image_size, **how)
        self.augment, self.seed, self.epoch = augment, seed, 0

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Item:
        seed = derived_seed(self.seed, self.epoch)
        reading = Reading(self.value_range, seed=seed, side=self.zoom_size or self.image_size)
        if self.with_targets:
            assert isinstance(self.images, DatasetImages)
            image, target = self.images.item(int(index), reading, with_target=True)
        else:
            image, target = read_from(self.images, int(index), reading), None
        change = None
        if self.augment is not None:
            seed = derived_seed(self.seed, self.epoch, int(index))
            change = partial(augmented, augment=self.augment, seed=seed)
        item = self._item(image, int(index), reading, change)
        if self.with_targets:
            item["target"] = as_array(target, "target")
        return item

    def items(self, only: Sequence[int] | None = None) -> Iterator[Item]:
        return (self[index] for index in (range(len(self)) if only is None else only))


class PreparedStream(_Batches, IterableDataset[Item]):
    """Iterable dataset of streamed images resized to a square, with one batch in memory at a time.

    Images are of any kind that :func:`as_image` reads; the parameters are those of _Batches.
    """

    def __iter__(self) -> Iterator[Item]:
        worker = get_worker_info()
        # Every worker has the whole stream, so only the first may read it.
        return iter(()) if worker is not None and worker.id > 0 else self.items()

    def items(self, only: Sequence[int] | None = None) -> Iterator[Item]:
        assert only is None  # of a stream all images are read
        pairs = self.images.labelled() if self.with_targets else ((x, None) for x in self.images)
        for index, (value, target) in enumerate(pairs):
            reading = Reading(self.value_range, side=self.zoom_size or self.image_size)
            image = as_image(value, name=f"image {index}", reading=reading)
            item = self._item(image, index, reading)
            if self.with_targets:
                item["target"] = as_array(target, "target")
            yield item


class PreparedItems(PreparedImages):
    """Dataset of items that were prepared before, one by one, as those of requests to a service.

    The other parameters are those of :class:`PreparedImages`, which prepared them.
    """

    def __init__(self, items: Sequence[Item], image_size: int, **how: Any) -> None:
        super().__init__([item["image"] for item in items], image_size, **how)
        self.ready = items

    def __getitem__(self, index: int) -> Item:
        return self.ready[index]


def noticed(item: Item, value_range: ValueRange | None) -> list[str]:
    """What was noticed in a prepared image, a sentence or two for each cause."""
    notes = Notes()
    notes.add_flags([item["notes"] | int(_darkness(item["image"][None]))], [item["index"]])
    return list(notes.messages(value_range))


def views_of(images: Tensor, n_views: int, augment: Augment | None, seed: int) -> Tensor:
    """Test-time views of each image, the original first, in adjacent rows: (B, …) → (B·V, …).

    Parameters
    ----------
    images : Tensor of shape (B, 3, S, S)
    n_views : int
        V, the number of views. Every view after the first applies ``augment`` with the same random
        numbers, its own, to every image.
    augment : callable or None
        Augmentation of an image (3, S, S); may be None if V is 1.
    seed : int
        Seed of the augmentation.
    """
    if n_views == 1:
        return images
    assert augment is not None  # checked with the parameters
    views = [images]
    for view in range(1, n_views):
        changed = [augmented(image, augment, derived_seed(seed, view)) for image in images]
        views.append(torch.stack(changed))
    if len({view.dtype for view in views}) > 1:
        views = [unit_range(view) for view in views]
    return torch.stack(views, dim=1).flatten(0, 1)


def _darkness(images: Tensor) -> Tensor:
    """Note of each image (B, 3, S, S) that is nearly black."""
    brightest = images.flatten(1).amax(dim=1) / (1 if images.is_floating_point() else 255)
    return ((brightest > 0) & (brightest < DARK)).long() * int(Note.DARK)


def collate(items: list[Item]) -> dict[str, Any]:
    """Batch of items; images of mixed dtypes become float in 0–1, originals are a list."""
    batch: dict[str, Any] = {
        "image": _stacked([item["image"] for item in items]),
        "size": torch.stack([item["size"] for item in items]),
        "index": torch.tensor([item["index"] for item in items]),
        "notes": torch.tensor([item["notes"] for item in items]),
    }
    for name in ("original", "target"):
        if name in items[0]:
            batch[name] = [item[name] for item in items]
    return batch


def _stacked(images: list[Tensor]) -> Tensor:
    """Images of one size in a batch; those of mixed dtypes become float in 0–1."""
    if len({image.dtype for image in images}) > 1:
        images = [unit_range(image) for image in images]
    return torch.stack(images)


def unit_range(images: Tensor) -> Tensor:
    """Pixels as float in 0–1: uint8 is divided by 255, float pixels are returned unchanged."""
    return images.float() if images.is_floating_point() else images.float().div_(255)
