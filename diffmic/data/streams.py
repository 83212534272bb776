"""Streams: images read one after another, which need not fit into memory together."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from ..errors import InputError, warn_user
from ..generators import seeded
from ..random import derived_seed
from .arrays import CHANNELS
from .items import USUAL_KEYS, Keys, is_single, split_item
from .loaders import batch_size_of, in_order, is_walked, iterates_itself, makes_batches
from .skipping import Remaining
from .workers import unchanged

_END = object()
_CANNOT_SKIP = (
    " on_error='skip' cannot leave it out: what iterates by itself, or collates, does not go on "
    "after an error. Catch the error there, or pass a map-style Dataset."
)


class Stream:
    """Images (C, H, W), in the order in which a DataLoader yields them; each iteration reads anew.

    What is drawn at random on the way is the same in each iteration.

    Parameters
    ----------
    loader : DataLoader
        Its workers read the images, diffmic adds none.
    keys : Keys
        Keys of images and targets in items that are dicts.
    skip : bool
        Whether items that cannot be read are left out, where that can be: among the images of
        their batch there is an InputError in the place of each.
    """

    def __init__(
        self, loader: "DataLoader[Any]", keys: Keys = USUAL_KEYS, *, skip: bool = False
    ) -> None:
        self.loader, self.keys, self.skip = loader, keys, skip

    @property
    def batch_size(self) -> int | None:
        """Batch size of the DataLoader."""
        return batch_size_of(self.loader)

    @staticmethod
    def of(X: Any, keys: Keys = USUAL_KEYS, *, skip: bool = False) -> "Stream | None":
        """Stream of an IterableDataset, a list of batches or a walked DataLoader; else None."""
        if isinstance(X, IterableDataset):
            # Without an explicit generator, a DataLoader draws from torch's global one.
            items = DataLoader(X, batch_size=None, generator=torch.Generator())
            return Stream(items, keys, skip=skip)
        if isinstance(X, list) and _is_list_of_batches(X):
            batches: Any = X  # a list is a map-style Dataset
            loader = DataLoader(batches, None, collate_fn=unchanged, generator=torch.Generator())
            return Stream(loader, keys)
        if isinstance(X, DataLoader) and is_walked(X):
            return Stream(in_order(X, skip=skip), keys, skip=skip)
        return None

    def batches(
        self, *, with_targets: bool = False, optional: bool = False
    ) -> Iterator[tuple[Sequence[Any], Sequence[Any] | None]]:
        """Batches of images with their targets, which are None if they are not asked for.

        ``optional``: whether they may be missing, and are None then. An InputError says that a
        batch has none, or another number of them than of images.
        """
        # Where there are workers, it is they that draw; the first context gives them their seeds.
        alone = self.loader.num_workers == 0 or iterates_itself(self.loader)
        with batch_errors(0), seeded(self.loader, 0):
            batches = iter(self.loader)
        n_empty, first = 0, None
        for number in count():
            mine = seeded(self.loader, derived_seed(0, number)) if alone else nullcontext()
            with batch_errors(number, skip=self.skip), mine:
                batch = next(batches, _END)
            if batch is _END:
                if n_empty:
                    warn_user(
                        f"{n_empty} of {number} batches or items that X yields are None, so that "
                        "their images are left out."
                    )
                return
            if isinstance(batch, Remaining):
                some: tuple[Any, Any] = [], [] if with_targets else None
                if batch.batch is not None:
                    how = {"with_target": with_targets, "optional": optional}
                    some = self._split(batch.batch, number, **how)
                yield batch.filled(*some)
            elif batch is None:  # a collate_fn may find nothing in a batch that it can use
                n_empty += 1
            else:
                found = self._split(batch, number, with_target=with_targets, optional=optional)
                if number == 1 and self.loader.num_workers > 1 and _alike(first, found[0]):
                    warn_user(
                        f"The first images of two of the {self.loader.num_workers} workers are the "
                        "same: each seems to yield the whole IterableDataset, so that every image "
                        "is read several times. Let __iter__ share the images out by "
                        "torch.utils.data.get_worker_info(), or set num_workers=0."
                    )
                first = found[0]
                yield found

    def _split(
        self, batch: Any, number: int, **how: bool
    ) -> tuple[Sequence[Any], Sequence[Any] | None]:
        """Images and targets of a batch, of a list of items, or of a single item."""
        batched = makes_batches(self.loader)
        name = f"{'Batch' if batched else 'Item'} {number}"
        if _is_list_of_items(batch) or (batched and _is_list_of_images(batch)):
            pairs = [split_item(item, self.keys, name=name, **how) for item in batch]
            images, targets = ([pair[i] for pair in pairs] for i in (0, 1))
        else:
            images, targets = split_item(batch, self.keys, name=name, **how)
            if not batched and not _is_batch(images):
                images, targets = [images], [targets]
        one = isinstance(images, str | bytes) or not hasattr(images, "__len__")
        if one or getattr(images, "ndim", 1) == 0:
            raise InputError(
                f"{name} has a {type(images).__name__} where its images should be. Let collate_fn "
                "give (images, targets), a dict of them, or a list of items."
            )
        if not how["with_target"] or targets is None:
            return images, None
        single = isinstance(targets, str) or not hasattr(targets, "__len__")
        single = single or getattr(targets, "ndim", 1) == 0
        if single or len(targets) != len(images):
            found = "a single target" if single else f"{len(targets)} targets"
            raise InputError(f"{name} holds {len(images)} images and {found}.")
        return images, targets

    def __iter__(self) -> Iterator[Any]:
        """Images as they come, of any kind that ``as_image`` reads."""
        return (image for image, _ in self._pairs(with_targets=False))

    def labelled(self, *, optional: bool = False) -> Iterator[tuple[Any, Any]]:
        """Images as they come, each with its target; ``optional``: None if there is none."""
        return self._pairs(with_targets=True, optional=optional)

    def _pairs(self, **how: bool) -> Iterator[tuple[Any, Any]]:
        number = 0
        for images, targets in self.batches(**how):
            for index, image in enumerate(images):
                yield image, None if targets is None else targets[index]
                number += 1
        if number == 0:
            raise InputError("X holds no images.")


def _alike(some: Sequence[Any] | None, others: Sequence[Any]) -> bool:
    """Whether two batches hold the same images."""
    if some is None or len(some) != len(others):
        return False
    return all(
        torch.equal(one, other)
        if isinstance(one, Tensor) and isinstance(other, Tensor)
        else np.array_equal(one, other)
        if isinstance(one, np.ndarray) and isinstance(other, np.ndarray)
        else isinstance(one, str | bytes | Path | Image.Image) and one == other
        for one, other in zip(some, others, strict=True)
    )


def _is_list_of_batches(X: list[Any]) -> bool:
    """Whether the first entry of a list is a batch of images, with targets or not."""
    first = X[0] if X else None
    values = list(first.values()) if isinstance(first, Mapping) else first
    if not isinstance(values, (list, tuple)):
        return False
    return any(isinstance(value, (np.ndarray, Tensor)) and value.ndim == 4 for value in values)


@contextmanager
def batch_errors(number: int, *, skip: bool = False) -> Iterator[None]:
    """Whatever a DataLoader or an IterableDataset raises, as an InputError that says where.

    ``skip``: whether the error says why on_error="skip" does not help.
    """
    more = _CANNOT_SKIP if skip else ""
    try:
        yield
    except MemoryError:
        raise
    except InputError as reason:
        if not skip:
            raise
        raise InputError(f"{reason}{more}") from reason
    except Exception as reason:
        told = str(reason).strip().splitlines() or [""]  # of a worker's traceback the last line
        raise InputError(
            f"What X yields cannot be read after {number} batches or items: "
            f"{type(reason).__name__}: {told[-1].removeprefix(f'{type(reason).__name__}: ')}"
            f"{more}"
        ) from reason


def _is_batch(images: Any) -> bool:
    """Whether what a DataLoader without batches yields is a batch that the data set made."""
    if isinstance(images, (np.ndarray, Tensor)):
        return images.ndim == 4
    return isinstance(images, (list, tuple))


def _is_list_of_items(batch: Any) -> bool:
    """Whether a batch is a list of items, or of images, instead of images and targets."""
    if not isinstance(batch, (list, tuple)) or len(batch) == 0:
        return False
    first = batch[0]
    if isinstance(first, Mapping):
        return all(isinstance(item, Mapping) for item in batch)
    if isinstance(first, tuple) and len(first) == 1:
        return all(
            isinstance(item, tuple) and len(item) == 1 and is_single(item[0]) for item in batch
        )
    if isinstance(first, (list, tuple)):
        return len(first) > 1 and is_single(first[0]) and not is_single(first[1])
    several = len(batch) > 1 and isinstance(batch, list)
    return several and isinstance(first, (Path, Image.Image)) and is_single(batch[1])


def _is_list_of_images(batch: Any) -> bool:
    """Whether a batch is a list of single images, as ``collate_fn=list`` gives them."""
    if not isinstance(batch, (list, tuple)) or not batch or not all(map(is_single, batch)):
        return False
    if len({getattr(image, "ndim", None) for image in batch}) > 1:  # images (n, H, W) and targets
        return False
    shape: Any = getattr(batch[0], "shape", ())
    # An array alone may also be the images (n, H, W) of a batch.
    return len(batch) > 1 or len(shape) < 3 or shape[0] in CHANNELS or shape[2] in CHANNELS
