"""Batches of training images, epoch by epoch; an epoch can go on in its middle."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from torch import Tensor
from torch.utils.data import BatchSampler, Sampler

from ..data import LabelledImages, PreparedImages
from ..random import LocalRNG
from ..rows import Rows
from .distributed import Processes
from .options import TrainingOptions, originals, pixels

Batch = tuple[Any, ...]


class _Rest(Sampler[int]):
    """Order of the images, without the first ones of an epoch that were trained on before."""

    def __init__(self, order: Sampler[int]) -> None:
        self.order, self.n_done = order, 0
        self.when_done: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        return len(self.order)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[int]:
        indices = iter(self.order)
        if self.n_done:
            for _ in islice(indices, self.n_done):
                pass
            self.n_done = 0
            self.when_done()
        yield from indices


class Part(Batch):
    """What one of several processes has of a batch.

    Attributes
    ----------
    rows : Rows or None
        Which rows it has; None: all.
    """

    rows: Rows | None = None

    @classmethod
    def of(cls, batch: Batch, rows: Rows | None) -> "Part":
        """A batch of which only some rows are here."""
        part = cls(batch)
        part.rows = rows
        return part


def rows_of(batch: Batch) -> Rows | None:
    """Which rows of a batch this process has; None: all."""
    return batch.rows if isinstance(batch, Part) else None


class _Shares(Sampler[list[int]]):
    """Of each batch what this process has of it, so that no other reads the same images."""

    def __init__(self, batches: BatchSampler, processes: Processes) -> None:
        self.batches, self.processes = batches, processes

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.batches:
            rows = self.processes.rows(len(batch))
            yield batch if rows is None else [batch[position] for position in rows.index]


def learnt_from(
    training: LabelledImages, options: TrainingOptions
) -> Callable[[dict[str, Any], Rows | None], Batch]:
    """Function from a batch of the images to what a prior learns from: images, targets, weights."""

    def convert(batch: dict[str, Any], rows: Rows | None) -> Batch:
        labels = training.labels(batch["index"], options.device)
        return pixels(batch["image"], options.device), *labels, *originals(batch, options)

    return convert


class ImageBatches:
    """Batches of training images by the number of the epoch.

    Parameters
    ----------
    images : PreparedImages
    order : Sampler
        Order of the images in an epoch, drawn from the generator of ``rng``.
    convert : callable
        Function from a batch of the images, and the rows that it has of the whole one, to one of
        the objective.
    options : TrainingOptions
    rng : LocalRNG
        Source of the order, and of whatever else is random in the loop.
    batch_size : int
        Of all processes together.
    drop_last : bool
    first : int
        Number of the epoch before the first, for augmentations that differ from those of others.
    """

    def __init__(
        self,
        images: PreparedImages,
        order: Sampler[int],
        convert: Callable[[dict[str, Any], Rows | None], Batch],
        options: TrainingOptions,
        rng: LocalRNG,
        *,
        batch_size: int,
        drop_last: bool,
        first: int = 0,
    ) -> None:
        self.images, self.convert, self.rng, self.first = images, convert, rng, first
        self.batch_size, self.order = batch_size, _Rest(order)
        self.processes = options.processes
        whole = BatchSampler(self.order, batch_size, drop_last)
        self.loader = images.loader(
            1,  # the default, beside a sampler of batches
            batch_sampler=_Shares(whole, options.processes),
            num_workers=options.num_workers,
            pin_memory=options.device.type == "cuda",
            generator=rng.generator(),
        )

    def __len__(self) -> int:
        return len(self.loader)

    def __call__(self, epoch: int) -> Iterator[Batch]:
        self.images.epoch = self.first + epoch
        yield from self._converted(iter(self.loader), 0)

    def rest(self, epoch: int, n_done: int, then: dict[str, Tensor]) -> Iterator[Batch]:
        """Batches of an epoch after the first ``n_done``, whose images are not read.

        Parameters
        ----------
        epoch : int
        n_done : int
            Fewer than there are in an epoch.
        then : dict
            State of ``rng`` after these batches; now it must be that at the start of the epoch.
        """
        self.images.epoch = self.first + epoch
        # From the last index on, the sampler draws again: where it stood, it goes on.
        self.order.n_done = n_done * self.batch_size
        self.order.when_done = lambda: self.rng.load_state_dict(then)
        batches = iter(self.loader)
        if self.loader.num_workers:  # which were asked for as many batches ahead as there were then
            self.rng.load_state_dict(then)
        yield from self._converted(batches, n_done)

    def _converted(self, batches: Iterator[dict[str, Any]], n_done: int) -> Iterator[Batch]:
        for number, batch in enumerate(batches, n_done):
            total = min(self.batch_size, len(self.order) - number * self.batch_size)
            rows = self.processes.rows(total)
            yield Part.of(self.convert(batch, rows), rows)
