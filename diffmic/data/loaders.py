"""DataLoaders over map-style Datasets: the items of an epoch, read one at a time."""

from collections.abc import Callable
from typing import Any

from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    default_collate,
    default_convert,
)

from ..errors import InputError
from .streams import split_item


class CollatedItems(Dataset[Any]):
    """Items of a Dataset, each passed through the ``collate_fn`` of a DataLoader.

    Parameters
    ----------
    dataset : Dataset
    collate_fn : callable
    batched : bool
        Whether ``collate_fn`` takes a list of items; in a DataLoader with ``batch_size=None`` it
        takes a single item.
    """

    def __init__(self, dataset: Any, collate_fn: Callable[[Any], Any], *, batched: bool) -> None:
        self.dataset, self.collate_fn, self.batched = dataset, collate_fn, batched

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        if not self.batched:
            return self.collate_fn(self.dataset[index])
        image, target = split_item(self.collate_fn([self.dataset[index]]))
        return image[0] if target is None else (image[0], target[0])


def items_of(loader: "DataLoader[Any]") -> Any:
    """Dataset of the items that a DataLoader yields in an epoch, in dataset order.

    Shuffling and ``drop_last`` are ignored: every image is read, in order.

    Raises
    ------
    InputError
        The sampler repeats items, leaves some out, or is of an unknown type.
    """
    dataset, sampler = loader.dataset, _sampler(loader)
    if type(sampler) is SubsetRandomSampler:
        dataset = Subset(dataset, [int(index) for index in sampler.indices])
    else:
        _check_plain(sampler, dataset)
    if loader.collate_fn in (default_collate, default_convert):
        return dataset
    if loader.batch_sampler is None and type(loader.sampler) is BatchSampler:
        raise InputError(
            "The DataLoader has a BatchSampler as sampler and a collate_fn, which then takes whole "
            "batches, but diffmic reads items one at a time. Pass batch_size and collate_fn, or "
            "the Dataset itself."
        )
    return CollatedItems(dataset, loader.collate_fn, batched=loader.batch_sampler is not None)


def batch_size_of(loader: "DataLoader[Any]") -> int | None:
    """Batch size of a DataLoader, also if it was set through a BatchSampler."""
    for sampler in (loader.batch_sampler, loader.sampler):
        if type(sampler) is BatchSampler:
            return sampler.batch_size
    return loader.batch_size


def _sampler(loader: "DataLoader[Any]") -> Any:
    """The innermost sampler, which chooses single items; BatchSamplers only group them."""
    sampler: Any = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
    while type(sampler) is BatchSampler:
        sampler = sampler.sampler
    return sampler


def _check_plain(sampler: Any, dataset: Any) -> None:
    """Check that a sampler yields every item exactly once."""
    name = type(sampler).__name__
    # Exact types, since a subclass may choose items in any way.
    if type(sampler) not in (SequentialSampler, RandomSampler):
        found = f"a {name}"
    elif type(sampler) is RandomSampler and sampler.replacement:
        found = f"a {name} with replacement, which repeats items"
    elif hasattr(dataset, "__len__") and len(sampler) != len(dataset):
        found = f"a {name} of {len(sampler)} items for a Dataset of {len(dataset)}"
    else:
        return
    raise InputError(
        f"The DataLoader has {found}; diffmic reads each item of the Dataset once. Pass "
        "torch.utils.data.Subset(dataset, indices) to use some of the images, and sample_weight "
        "or class_weight to give some more weight."
    )
