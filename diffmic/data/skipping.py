"""Items that cannot be read: an error in the place of each, to be raised or left out."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

from torch.utils.data import Dataset, Subset

from ..errors import InputError


@contextmanager
def item_errors(dataset: Any, index: int) -> Iterator[None]:
    """Whatever a Dataset raises for an item, as an InputError that names the item."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as reason:
        file = file_of(dataset, index)
        told = f"{type(reason).__name__}: {reason}".removeprefix("InputError: ").rstrip(". :")
        first = None if isinstance(reason, InputError) else _first_cause(reason)
        if first is not None:  # transforms tell their own name, not what went wrong in them
            line = f"{type(first).__name__}: {first}".splitlines()[0].rstrip(". :")
            told = f"{told} (from {line})"
        raise InputError(
            f"Item {index} of the Dataset{f', {file},' if file else ''} cannot be read: {told}."
        ) from reason


def _first_cause(reason: BaseException) -> BaseException | None:
    """Exception that an exception was raised from, and that one in turn, to the first."""
    chain = [reason]
    while (cause := chain[-1].__cause__) is not None and cause not in chain:
        chain.append(cause)
    return chain[-1] if len(chain) > 1 else None


def file_of(dataset: Any, index: int) -> str:
    """File of an item of an image folder, as torchvision's Datasets list them; empty: unknown."""
    with suppress(Exception):
        while isinstance(dataset, Subset):
            dataset, index = dataset.dataset, dataset.indices[index]
        for name in ("samples", "imgs"):
            entry = getattr(dataset, name)[index]
            file = entry[0] if isinstance(entry, (tuple, list)) else entry
            if isinstance(file, (str, os.PathLike)):
                return repr(os.fspath(file))
    return ""


@dataclass(frozen=True)
class Failed:
    """An item that cannot be used, in its place in a batch."""

    reason: str


@dataclass(frozen=True)
class Remaining:
    """A batch without the items that cannot be used."""

    batch: Any  # what the ``collate_fn`` makes of the others; None: there are none
    failed: dict[int, str]  # why an item cannot be used, by its place

    def filled(
        self, images: Sequence[Any], targets: Sequence[Any] | None
    ) -> tuple[list[Any], list[Any] | None]:
        """Images and targets of the batch, with an error and None in the place of each item."""
        all_images, all_targets = list(images), None if targets is None else list(targets)
        for place, reason in sorted(self.failed.items()):
            all_images.insert(place, InputError(reason))
            if all_targets is not None:
                all_targets.insert(place, None)
        return all_images, all_targets


class Guarded(Dataset[Any]):
    """Items of a data set, or :class:`Failed` in the place of one that cannot be used.

    ``any_error``: whether that is so after any error of the data set, or after InputErrors alone.
    """

    def __init__(self, data: Any, *, any_error: bool = False) -> None:
        self.data, self.any_error = data, any_error

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: Any) -> Any:
        try:
            with item_errors(self.data, index) if self.any_error else nullcontext():
                return self.data[index]
        except InputError as reason:
            return Failed(str(reason))


@dataclass(frozen=True)
class GuardedCollate:
    """A ``collate_fn`` that gets the items which can be used; the batch says which cannot."""

    collate_fn: Callable[[Any], Any]

    def __call__(self, items: Any) -> Any:
        several = items if isinstance(items, list) else [items]
        failed = {n: item.reason for n, item in enumerate(several) if isinstance(item, Failed)}
        if not failed:
            return self.collate_fn(items)
        kept = [item for n, item in enumerate(several) if n not in failed]
        return Remaining(self.collate_fn(kept) if kept else None, failed)
