"""Reading images one after another, whatever they are given as; those that cannot be read, too."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader

from ..data.images import as_image
from ..data.inputs import is_dataset, read_inputs
from ..data.items import USUAL_KEYS, Keys, as_mapping, split_item
from ..data.loaders import items_of
from ..data.ranges import ValueRange
from ..data.reading import Reading
from ..data.sources import is_path
from ..data.streams import Stream
from ..data.workers import Workers, unchanged
from ..errors import InputError
from ..generators import seeded
from ..logs import bar
from ..random import derived_seed


@dataclass(frozen=True)
class Found:
    """An image that was read, or why it could not be; and the label that came with it."""

    name: str
    image: Tensor | None  # (C, H, W), uint8, float in 0–1, or integers of more than 8 bits
    label: Any = None  # None: none came with the image
    fault: str = ""  # why the image cannot be used; empty if it can


def each_image(
    X: Any,
    *,
    what: str = "image",
    value_range: ValueRange | None = None,
    keys: Keys = USUAL_KEYS,
    progress: str | None = None,
) -> Iterator[Found]:
    """Read each image of X, in order.

    Parameters
    ----------
    X : as in ``DiffMICClassifier.fit``
        Of a DataLoader the items of its Dataset are read, in the Dataset's order.
    what : str
        What an image is called if it has no file name; its number follows.
    value_range : ValueRange or None
        Range of pixel values; None: integers of more than 8 bits keep their values.
    keys : Keys
        Keys of images and labels in items that are dicts.
    progress : str or None
        Label of a progress bar; None: no progress bar.
    """
    found: Iterator[Found]
    total: int | None = None
    if (stream := Stream.of(X, keys)) is not None:
        items = _Items(None, True, what, value_range, keys)
        pairs = enumerate(stream.labelled(optional=True))
        found = (items.found(number, partial(unchanged, pair)) for number, pair in pairs)
    else:
        workers = Workers.of(X) if isinstance(X, DataLoader) else Workers()
        items = _Items(*_items(X, keys), what, value_range, keys)
        total = len(items)
        if workers.num_workers:  # they alone read the items, and inherit no open files
            found = iter(workers.open(items, None, unchanged))  # type: ignore[arg-type]
        else:
            found = (items[number] for number in range(len(items)))
    yield from bar(found, desc=progress, total=total, disable=progress is None, leave=False)


@dataclass(frozen=True)
class _Items:
    """What is found in each item; ``labelled``: it may be an (image, label) pair or a dict."""

    items: Any
    labelled: bool
    what: str
    value_range: ValueRange | None
    keys: Keys

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, number: int) -> Found:
        return self.found(number, partial(self._item, number))

    def found(self, number: int, item: Callable[[], Any]) -> Found:
        """What is found where an item is read."""
        name, label = f"{self.what} {number}", None
        try:
            value = item()
            if self.labelled:
                value, label = split_item(value, self.keys, with_target=True, optional=True)
            if is_path(value):
                name = os.fspath(value)
            image = as_image(value, name=name, reading=Reading(self.value_range, raw=True))
            return Found(name, image, label)
        except InputError as reason:
            return Found(name, None, label, str(reason))
        except Exception as reason:  # whatever a Dataset raises for one of its items
            return Found(name, None, label, f"{type(reason).__name__}: {reason}")

    def _item(self, number: int) -> Any:
        if not self.labelled:  # a sequence of images, no code of the user
            return self.items[number]
        with seeded(self.items, derived_seed(0, number)):
            return self.items[number]


def _items(X: Any, keys: Keys) -> tuple[Any, bool]:
    """Items to be read, and whether each may be an (image, label) pair or a dict."""
    if isinstance(X, DataLoader):
        X = items_of(X, fitting=True)
    if is_dataset(X):
        labelled, items = True, X
    elif isinstance(X, (list, tuple)) or (hasattr(X, "to_numpy") and getattr(X, "ndim", 1) == 1):
        labelled, items = False, X if isinstance(X, (list, tuple)) else X.to_numpy()
    elif isinstance(X, (np.ndarray, Tensor)) and X.ndim > 0:
        labelled, items = False, X
        if X.ndim not in (1, 3, 4) or getattr(X, "is_nested", False):
            read_inputs(X)  # raises an error that says what is needed
    else:
        inputs = read_inputs(X, with_targets=as_mapping(X) is not None, keys=keys)
        labelled = inputs.targets is not None
        items = inputs.images
        if labelled:
            items = [(items[number], target) for number, target in enumerate(inputs.targets)]
    if len(items) == 0:
        raise InputError("X holds no images.")
    return items, labelled
