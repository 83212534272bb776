"""Streams: images read one after another, which need not fit into memory together."""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from ..errors import InputError

IMAGE_KEYS = ("image", "images")
LABEL_KEYS = ("label", "labels", "target")


class Stream:
    """Images (C, H, W) of an IterableDataset, in its order; each iteration reads them again.

    Parameters
    ----------
    loader : DataLoader
        DataLoader of an IterableDataset; its workers read the images, diffmic adds none.
    """

    num_workers: int | None = 0

    def __init__(self, loader: "DataLoader[Any]") -> None:
        self.loader = loader

    @staticmethod
    def of(X: Any) -> "Stream | None":
        """Stream of an IterableDataset, or of a DataLoader of one; None for any other X."""
        if isinstance(X, IterableDataset):
            # Without an explicit generator, a DataLoader draws from torch's global one.
            return Stream(DataLoader(X, batch_size=None, generator=torch.Generator()))
        if isinstance(X, DataLoader) and isinstance(X.dataset, IterableDataset):
            return Stream(X)
        return None

    def batches(self) -> Iterator[tuple[Sequence[Any], Sequence[Any] | None]]:
        """Batches of images with their targets, which are None if there are none."""
        for batch in self.loader:
            images, targets = split_item(batch)
            if self.loader.batch_size is None:  # a single item
                images, targets = [images], None if targets is None else [targets]
            yield images, targets

    def __iter__(self) -> Iterator[Any]:
        """Images as they come, of any kind that ``as_image`` reads."""
        number = 0
        for image in chain.from_iterable(images for images, _ in self.batches()):
            yield image
            number += 1
        if number == 0:
            raise InputError("X holds no images.")


def split_item(item: Any) -> tuple[Any, Any]:
    """Image and target of an item or batch; the target is None if there is none.

    Raises
    ------
    InputError
        A dict without images.
    """
    if isinstance(item, dict):
        image = next((item[key] for key in IMAGE_KEYS if key in item), None)
        if image is None:
            raise InputError(
                f"A batch is a dict with the keys {sorted(map(str, item))}; one of {IMAGE_KEYS} "
                f"must hold the images (and one of {LABEL_KEYS} the targets)."
            )
        return image, next((item[key] for key in LABEL_KEYS if key in item), None)
    if isinstance(item, (tuple, list)):
        return item[0], item[1] if len(item) > 1 else None
    return item, None
