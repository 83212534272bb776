"""Items of a walked DataLoader that cannot be read, left out of their batches and told."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.data import Dataset

from ..errors import InputError


@dataclass(frozen=True)
class _Failed:
    """An item that could not be read, in its place in a batch."""

    reason: str


@dataclass(frozen=True)
class Remaining:
    """A batch without the items that could not be read.

    Attributes
    ----------
    batch : object or None
        What the ``collate_fn`` makes of the others; None: there are none.
    failed : dict of int to str
        Why an item could not be read, by its place.
    """

    batch: Any
    failed: dict[int, str]

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


class Forgiving(Dataset[Any]):
    """Items of a Dataset, or in the place of one that cannot be read the reason."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Any) -> Any:
        from .sources import item_errors

        try:
            with item_errors(self.dataset, index):
                return self.dataset[index]
        except InputError as reason:
            return _Failed(str(reason))


@dataclass(frozen=True)
class ForgivingCollate:
    """A ``collate_fn`` that gets the items which could be read."""

    collate_fn: Callable[[Any], Any]

    def __call__(self, items: Any) -> Any:
        several = items if isinstance(items, list) else [items]
        failed = {n: item.reason for n, item in enumerate(several) if isinstance(item, _Failed)}
        if not failed:
            return self.collate_fn(items)
        kept = [item for n, item in enumerate(several) if n not in failed]
        return Remaining(self.collate_fn(kept) if kept else None, failed)
