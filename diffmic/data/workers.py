"""Worker processes that read images, with the options of the DataLoader that was passed."""

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from ..errors import InputError
from .skipping import Guarded, GuardedCollate, Remaining


@dataclass(frozen=True)
class Workers:
    """Options of worker processes, named as in :class:`torch.utils.data.DataLoader`.

    ``dataset``: that which the workers shall find in ``get_worker_info()``; None: what they read.
    """

    num_workers: int = 0
    dataset: Any = None
    worker_init_fn: Callable[[int], Any] | None = None
    multiprocessing_context: Any = None
    prefetch_factor: int | None = None
    timeout: float = 0

    @classmethod
    def of(cls, loader: "DataLoader[Any]") -> "Workers":
        """Options of a DataLoader, whose workers know its own ``dataset``."""
        names = ("worker_init_fn", "multiprocessing_context", "prefetch_factor", "timeout")
        options = {name: getattr(loader, name, getattr(cls, name)) for name in names}
        return cls(loader.num_workers, loader.dataset, **options)

    def open(
        self,
        data: "Dataset[Any]",
        batch_size: int | None,
        collate_fn: Callable[[Any], Any],
        **options: Any,
    ) -> "DataLoader[Any]":
        """DataLoader of ``data`` that is read by these workers.

        An InputError in a worker is raised as it is, without the traceback of the worker.
        """
        # Without an explicit generator, a DataLoader draws from torch's global one.
        options.setdefault("generator", torch.Generator())
        if self.num_workers == 0 or isinstance(data, IterableDataset):
            options["num_workers"] = self.num_workers
            return DataLoader(data, batch_size=batch_size, collate_fn=collate_fn, **options)
        return _Loader(
            Guarded(data),
            batch_size=batch_size,
            collate_fn=GuardedCollate(collate_fn),
            num_workers=min(self.num_workers, max(1, len(data))),  # type: ignore[arg-type]
            worker_init_fn=Start(self.worker_init_fn, self.dataset),
            multiprocessing_context=self.multiprocessing_context,
            prefetch_factor=self.prefetch_factor,
            timeout=self.timeout,
            **options,
        )


def workers_of(images: Any, num_workers: int) -> Workers:
    """Workers that read a source: those of its DataLoader, else ``num_workers`` of ours."""
    own: Workers | None = getattr(images, "workers", None)
    return Workers(num_workers) if own is None else own


def unchanged(item: Any) -> Any:
    """The item itself: a ``collate_fn`` for what is read one at a time."""
    return item


@dataclass(frozen=True)
class Start:
    """Start of a worker: the user's data set takes the place of ours around it."""

    worker_init_fn: Callable[[int], Any] | None
    dataset: Any

    def __call__(self, worker: int) -> None:
        if self.dataset is not None:
            # The only way to change it: a worker's information is frozen.
            object.__setattr__(get_worker_info(), "dataset", self.dataset)
        if self.worker_init_fn is not None:
            self.worker_init_fn(worker)


_END = object()


class _Loader(DataLoader[Any]):
    """DataLoader that raises the errors that its workers found."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        with _explained(self):
            batches = super().__iter__()
        return self._checked(batches)

    def _checked(self, batches: Iterator[Any]) -> Iterator[Any]:
        while True:
            with _explained(self):
                batch = next(batches, _END)
            if batch is _END:
                return
            if isinstance(batch, Remaining):
                raise InputError(next(iter(batch.failed.values())))
            yield batch


@contextmanager
def _explained(loader: "DataLoader[Any]") -> Iterator[None]:
    """Why workers cannot be started, ended or do not answer, as an InputError with advice."""
    try:
        yield
    except (ConnectionError, EOFError, RuntimeError) as reason:
        if not isinstance(reason, (ConnectionError, EOFError)) and "DataLoader" not in str(reason):
            raise
        late = "timed out" in str(reason)
        found = (
            f"did not answer for {loader.timeout:g} seconds, the timeout of the DataLoader"
            if late
            else "ended, as when the system kills it for lack of memory"
        )
        raise InputError(
            f"A worker process that reads images {found} ({type(reason).__name__}: {reason}). "
            "Use fewer workers, or num_workers=0, with which the error shows where it arises."
        ) from reason
    except (pickle.PicklingError, AttributeError, TypeError) as reason:
        if "pickle" not in str(reason).lower() and "local object" not in str(reason):
            raise
        raise InputError(
            f"The Dataset cannot be sent to worker processes: {reason}. Open files and make locks "
            "when an item is first read, not before; define functions at the top of a module; or "
            "use num_workers=0."
        ) from reason
