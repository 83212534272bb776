"""DataLoaders: what they would yield, read item by item where that is the same, else as it comes.

A DataLoader over a map-style Dataset whose ``collate_fn`` only stacks items is read by item, in the
Dataset's own order if it shuffles. Any other is walked as it is, batch by batch: its ``collate_fn``
gets the batches that it was written for. What cannot be had in a known order is refused.
"""

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
    default_collate,
    default_convert,
)

from ..errors import InputError, warn_user
from .skipping import Guarded, GuardedCollate
from .workers import Start

_STACKING = (  # stack items as default_collate does
    "monai.data.utils.list_data_collate",
    "transformers.data.data_collator.default_data_collator",
    "transformers.data.data_collator.DefaultDataCollator",
)


class ConvertedItems(Dataset[Any]):
    """Items of a Dataset, passed through the ``collate_fn`` of a DataLoader without batches."""

    def __init__(self, dataset: Any, collate_fn: Callable[[Any], Any]) -> None:
        self.dataset, self.collate_fn = dataset, collate_fn

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self.collate_fn(self.dataset[index])


def is_walked(loader: "DataLoader[Any]") -> bool:
    """Whether a DataLoader can only be walked as it is, batch by batch."""
    if isinstance(loader.dataset, IterableDataset) or iterates_itself(loader):
        return True
    return makes_batches(loader) and not _only_stacks(loader.collate_fn)


def items_of(loader: "DataLoader[Any]", *, fitting: bool = False) -> Any:
    """Dataset of the items that a DataLoader yields in an epoch, in the Dataset's order.

    It must not be one that is walked; see :func:`is_walked`. ``fitting``: whether the items are for
    training, where a last batch that is dropped after shuffling is another one in each epoch. An
    InputError says that the sampler repeats items, or is of an unknown type.
    """
    order = _order(loader)
    dataset: Any = loader.dataset
    indices = order.indices
    if order.n_dropped and not order.shuffled:
        chosen = range(len(dataset)) if indices is None else indices
        indices = chosen[: -order.n_dropped]
        _warn_dropped(order)
    elif order.n_dropped and not fitting:
        warn_user(
            f"The DataLoader shuffles and would drop its last {order.n_dropped} images: all "
            f"{order.n_images} are read, in the order of its Dataset."
        )
    if indices is not None:
        dataset = Subset(dataset, indices)
    if loader.batch_sampler is None and not _only_stacks(loader.collate_fn):
        return ConvertedItems(dataset, loader.collate_fn)
    return dataset


def in_order(loader: "DataLoader[Any]", *, skip: bool = False) -> "DataLoader[Any]":
    """A DataLoader that yields what a walked one does, without shuffling.

    ``skip``: whether items that cannot be read are left out of their batches, which are
    :class:`~diffmic.data.skipping.Remaining` then. A Dataset or DataLoader that iterates by itself
    does not go on after an error, so that none of its items can be. An InputError says that the
    order is unknown: the sampler repeats items or is of an unknown type, or the DataLoader shuffles
    and iterates in a way of its own.
    """
    if isinstance(loader.dataset, IterableDataset):
        if iterates_itself(loader):
            return _with_new_workers(loader)
        return _anew(
            loader, loader.dataset, batch_size=loader.batch_size, drop_last=loader.drop_last
        )
    order = _order(loader)
    if order.n_dropped and (not order.shuffled or iterates_itself(loader)):
        _warn_dropped(order)
    if iterates_itself(loader):
        if order.shuffled:
            raise InputError(
                f"The DataLoader is a {type(loader).__name__} that shuffles and iterates in a way "
                "of its own, so the order of its images is unknown. Give it shuffle=False: fit "
                "shuffles by itself."
            )
        return _with_new_workers(loader)
    dataset: Any = loader.dataset
    indices: Any = SequentialSampler(dataset) if order.indices is None else order.indices
    batches: dict[str, Any] = {"batch_sampler": loader.batch_sampler}
    if type(loader.sampler) is BatchSampler:
        batches = {"sampler": _grouped(loader.sampler, indices, order), "batch_size": None}
    elif type(loader.batch_sampler) is BatchSampler:
        batches = {"batch_sampler": _grouped(loader.batch_sampler, indices, order)}
    return _anew(loader, Guarded(dataset, any_error=True) if skip else dataset, **batches)


def _with_new_workers(loader: "DataLoader[Any]") -> "DataLoader[Any]":
    """The DataLoader, or a copy whose workers do not go on with what earlier ones have drawn."""
    if not loader.num_workers or not loader.persistent_workers:
        return loader
    own = copy(loader)
    vars(own)["persistent_workers"] = False  # its __setattr__ refuses
    return own


def _anew(loader: "DataLoader[Any]", dataset: Any, **batches: Any) -> "DataLoader[Any]":
    """A DataLoader like another, with new workers for each iteration, which start alike."""
    own, guarded = loader.worker_init_fn, isinstance(dataset, Guarded)
    return DataLoader(
        dataset,
        **batches,
        collate_fn=GuardedCollate(loader.collate_fn) if guarded else loader.collate_fn,
        num_workers=loader.num_workers,
        worker_init_fn=Start(own, loader.dataset) if guarded else own,
        multiprocessing_context=loader.multiprocessing_context,
        prefetch_factor=loader.prefetch_factor if loader.num_workers else None,
        timeout=loader.timeout,
        generator=torch.Generator(),  # without one, it draws from torch's global one
    )


def makes_batches(loader: "DataLoader[Any]") -> bool:
    """Whether a DataLoader makes batches, so that its ``collate_fn`` takes whole ones."""
    return loader.batch_sampler is not None or type(loader.sampler) is BatchSampler


def shuffles(loader: "DataLoader[Any]") -> bool:
    """Whether a DataLoader shuffles, so that no y can be in its order."""
    return not isinstance(loader.dataset, IterableDataset) and _order(loader).shuffled


def batch_size_of(loader: "DataLoader[Any]") -> int | None:
    """Batch size of a DataLoader, also if it was set through a BatchSampler."""
    for sampler in (loader.batch_sampler, loader.sampler):
        if type(sampler) is BatchSampler:
            return sampler.batch_size
    return loader.batch_size


@dataclass(frozen=True)
class _Order:
    """Items that a DataLoader yields in an epoch, before the last batch is dropped."""

    n_images: int
    indices: Sequence[Any] | None  # None: all of the Dataset, in its order
    shuffled: bool
    n_dropped: int  # images in the last batch, if it is dropped


def _order(loader: "DataLoader[Any]") -> _Order:
    dataset: Any = loader.dataset
    sampler: Any = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
    batch_size, drop_last = 1, False
    if type(sampler) is BatchSampler:
        batch_size, drop_last, sampler = sampler.batch_size, sampler.drop_last, sampler.sampler
    elif isinstance(sampler, (list, tuple, np.ndarray)) and loader.batch_sampler is not None:
        sampler = [index for batch in sampler for index in batch]
    indices, shuffled = _chosen(sampler, dataset)
    n_images = len(dataset) if indices is None else len(indices)
    return _Order(n_images, indices, shuffled, n_images % batch_size if drop_last else 0)


def _chosen(sampler: Any, dataset: Any) -> tuple[Sequence[Any] | None, bool]:
    """Indices that a sampler of single items yields, None for all, and whether it shuffles."""
    n_items = len(dataset) if hasattr(dataset, "__len__") else None
    # Exact types, since a subclass may choose items in any way.
    if type(sampler) is SequentialSampler:
        return (None if len(sampler) == n_items else range(len(sampler))), False
    if type(sampler) is RandomSampler and not sampler.replacement and len(sampler) == n_items:
        return None, True
    if type(sampler) is SubsetRandomSampler:
        return _indices(sampler.indices, n_items), True
    if isinstance(sampler, (list, tuple, range, np.ndarray, Tensor)):
        return _indices(sampler, n_items), False
    name = type(sampler).__name__
    if type(sampler) is RandomSampler and sampler.replacement:
        name += " with replacement, which repeats items"
    elif type(sampler) is RandomSampler:
        name += f" of {len(sampler)} items for a Dataset of {n_items}"
    way_out = (
        "Leave it out: the default recipe draws rare classes more often by itself, and "
        "class_weight and sample_weight give images more weight."
        if type(sampler) is WeightedRandomSampler
        else "Pass torch.utils.data.Subset(dataset, indices) to use some of the images, such as "
        "indices=list(sampler), and sample_weight or class_weight to give some more weight."
    )
    raise InputError(
        f"The DataLoader has a {name}; diffmic reads each item of the Dataset once. {way_out}"
    )


def _indices(values: Any, n_items: int | None) -> list[Any]:
    indices = values.tolist() if isinstance(values, (np.ndarray, Tensor)) else list(values)
    indices = [
        int(index) if isinstance(index, (np.integer, Tensor)) else index for index in indices
    ]
    # Negative indices count from the end; keys of a Dataset need not be integers.
    items = {
        i % n_items if n_items and isinstance(i, int) and -n_items <= i < 0 else i for i in indices
    }
    if len(items) < len(indices):
        raise InputError(
            f"The DataLoader has a sampler that repeats items: {len(indices)} indices, of which "
            f"{len(items)} differ. diffmic reads each item once: give each index once, and "
            "sample_weight or class_weight to give some images more weight."
        )
    return indices


def iterates_itself(loader: "DataLoader[Any]") -> bool:
    """Whether a DataLoader is of a kind that iterates in a way of its own."""
    kind = type(loader)
    return any(
        getattr(kind, name) is not getattr(DataLoader, name)
        for name in ("__iter__", "_get_iterator")
    )


def _only_stacks(collate_fn: Any) -> bool:
    if collate_fn in (default_collate, default_convert):
        return True
    named = collate_fn if hasattr(collate_fn, "__qualname__") else type(collate_fn)
    return f"{named.__module__}.{named.__qualname__}" in _STACKING


def _grouped(sampler: BatchSampler, indices: Any, order: _Order) -> BatchSampler:
    """Batches in order; if they were shuffled, each epoch would drop other images, so none is."""
    return BatchSampler(indices, sampler.batch_size, sampler.drop_last and not order.shuffled)


def _warn_dropped(order: _Order) -> None:
    warn_user(
        f"The DataLoader drops its last batch (drop_last=True): the last {order.n_dropped} of "
        f"{order.n_images} images are not read."
    )
