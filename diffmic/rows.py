"""Rows of a batch that one of several processes has, and random numbers for them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Size, Tensor


@dataclass(frozen=True)
class Rows:
    """Rows of a batch that one of several processes has.

    Random numbers are drawn for the whole batch, of which each process takes its rows: together
    they are those that one process draws.

    Attributes
    ----------
    total : int
        Number of rows of the whole batch.
    index : tuple of int
        Positions of this process's rows in it, m of them; one that does not count if it has none.
    counts : bool
        Whether they count: a process without rows has a copy of one, with no weight.
    """

    total: int
    index: tuple[int, ...]
    counts: bool = True

    @property
    def weight(self) -> float:
        """Share of these rows in a mean over the whole batch."""
        return len(self.index) / self.total if self.counts else 0.0

    def drawn(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a random function of torch for the whole batch; returns what is of these rows.

        Tensors and sizes whose first dimension is a multiple of m hold rows of the batch, or
        several adjacent ones for each, as those of regions do. Others are drawn as they are.
        """
        if func.__name__.endswith("_"):  # in place
            target = args[0]
            if not self._hold(target.shape):
                return func(*args, **kwargs)
            return target.copy_(self._mine(func(self._whole_like(target), *args[1:], **kwargs)))
        like = func.__name__.endswith("_like")
        sizes = func.__name__ in ("rand", "randn")
        if sizes and args and isinstance(args[0], int):  # torch.rand(2, 3) is torch.rand((2, 3))
            args = (args,)
        enlarged = False

        def enlarge(value: Any, name: str = "") -> Any:
            nonlocal enlarged
            if isinstance(value, Tensor) and self._hold(value.shape):
                enlarged = True
                return self._whole_like(value) if like else self._spread(value)
            sized = isinstance(value, (list, tuple, Size)) and name in ("", "size")
            if sized and self._hold(value):
                enlarged = True
                return (self.total * (value[0] // len(self.index)), *value[1:])
            return value

        args = tuple(enlarge(value) for value in args)
        kwargs = {name: enlarge(value, name) for name, value in kwargs.items()}
        found = func(*args, **kwargs)
        return self._mine(found) if enlarged else found

    def kept(self, shape: Sequence[int], like: Tensor, p: float, generator: Any) -> Tensor:
        """Ones with probability p, else zeros, of a shape whose first dimension is of rows."""
        if not self._hold(shape):
            kept = torch.empty(tuple(shape), dtype=like.dtype, device=like.device)
            return kept.bernoulli_(p, generator=generator)
        whole = (self.total * (shape[0] // len(self.index)), *shape[1:])
        kept = torch.empty(whole, dtype=like.dtype, device=like.device)
        return self._mine(kept.bernoulli_(p, generator=generator))

    def _hold(self, shape: Sequence[int]) -> bool:
        """Whether the first dimension is of rows of the batch."""
        return len(shape) > 0 and shape[0] > 0 and shape[0] % len(self.index) == 0

    def _mine(self, whole: Tensor) -> Tensor:
        """These rows of a tensor of the whole batch."""
        index = torch.tensor(self.index, device=whole.device)
        return whole.reshape(self.total, -1, *whole.shape[1:])[index].flatten(0, 1)

    def _spread(self, mine: Tensor) -> Tensor:
        """A tensor of the whole batch with these rows in their places, and copies elsewhere."""
        places = torch.zeros(self.total, dtype=torch.long)
        places[list(self.index)] = torch.arange(len(self.index))
        grouped = mine.reshape(len(self.index), -1, *mine.shape[1:])
        return grouped[places.to(mine.device)].flatten(0, 1)

    def _whole_like(self, mine: Tensor) -> Tensor:
        """Uninitialised tensor of the whole batch, with the memory layout of these rows."""
        shape = (self.total * (mine.shape[0] // len(self.index)), *mine.shape[1:])
        # Random functions fill the memory in its order, which need not be that of the dimensions.
        order = sorted(range(mine.ndim), key=mine.stride, reverse=True)
        laid = torch.empty([shape[d] for d in order], dtype=mine.dtype, device=mine.device)
        return laid.permute(*(order.index(d) for d in range(mine.ndim)))
