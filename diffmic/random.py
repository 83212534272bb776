"""Reproducible random numbers, independent of the global generators of the process."""

import os
import random
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .errors import InputError
from .rows import Rows

Seed = int | np.random.RandomState | None


def draw_seed(random_state: Seed) -> int:
    """Integer seed derived from a scikit-learn ``random_state``; None gives a fresh seed.

    Raises
    ------
    InputError
        ``random_state`` is of another type, or out of range.
    """
    if random_state is None:
        # Unlike scikit-learn, this does not draw from numpy's global generator.
        return int(np.random.default_rng().integers(2**31))
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31 - 1))
    if isinstance(random_state, (int, np.integer)) and 0 <= random_state < 2**32:
        return int(random_state)
    raise InputError(
        f"random_state is {random_state!r}; give None, an integer from 0 to 2**32 - 1 or a "
        "numpy.random.RandomState."
    )


def derived_seed(*numbers: int) -> int:
    """63-bit seed that depends on all the numbers and on their order."""
    # The count comes first, because a SeedSequence ignores trailing zeros.
    words = np.random.SeedSequence((len(numbers), *numbers)).generate_state(1, np.uint64)
    return int(words[0]) % 2**63


class LocalRNG(TorchFunctionMode):
    """Context manager in which torch's random functions draw from local generators.

    It is local to the thread that enters it, so it neither affects nor is affected by other threads
    and torch's global generators. It covers the functions that accept a ``generator`` (weight
    initialisation, ``torch.rand`` and similar, torchvision's transforms) and dropout. A few rare
    functions that accept none use the global generator, whose state is restored after the call.

    Parameters
    ----------
    seed : int
        Seed of the generators, one per device.

    References
    ----------
    ``torch.overrides.TorchFunctionMode``.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self.generators: dict[str, torch.Generator] = {}
        self.rows: Rows | None = None

    @contextmanager
    def of_rows(self, rows: Rows | None) -> Iterator[None]:
        """Context of a forward pass on some rows of a batch, whose others are elsewhere."""
        self.rows = rows
        try:
            with self:
                yield
        finally:
            self.rows = None

    def generator(self, device: torch.device | str = "cpu") -> torch.Generator:
        """The generator of a device, created on first use."""
        name = str(device)
        if name not in self.generators:
            self.generators[name] = torch.Generator(device).manual_seed(self.seed % 2**63)
        return self.generators[name]

    @property
    def has_drawn(self) -> bool:
        """Whether random numbers have been drawn."""
        fresh = {d: torch.Generator(d).manual_seed(self.seed % 2**63) for d in self.generators}
        return any(
            not torch.equal(generator.get_state(), fresh[name].get_state())
            for name, generator in self.generators.items()
        )

    def state_dict(self) -> dict[str, Tensor]:
        """The state of each generator, by device."""
        return {name: generator.get_state() for name, generator in self.generators.items()}

    def load_state_dict(self, states: dict[str, Tensor]) -> None:
        """Restore saved generator states."""
        for name, state in states.items():  # of a GPU: that which is used now
            used = f"cuda:{torch.cuda.current_device()}" if "cuda" in name else name
            self.generator(used).set_state(state)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _WITH_GENERATOR:
            if kwargs.get("generator") is None:
                device = _device_of(args, kwargs)
                if device.type != "meta":  # meta tensors hold no values
                    kwargs = {**kwargs, "generator": self.generator(device)}
                    if self.rows is not None:
                        return self.rows.drawn(func, args, kwargs)
        elif func in _DROPOUTS:
            return self._dropout(_DROPOUTS[func], *args, **kwargs)
        elif func in _WITHOUT_GENERATOR and not _draws_nothing(func, kwargs):
            return self._borrowed(func, args, kwargs)
        return func(*args, **kwargs)

    def _dropout(
        self,
        whole_channels: bool,
        input: Tensor,
        p: float = 0.5,
        training: bool = True,
        inplace: bool = False,
        **other: Any,
    ) -> Tensor:
        """Dropout of single elements, or of whole channels of (B, C, ...)."""
        training = other.get("train", training)
        if not training or p == 0:
            return input
        shape = input.shape[:2] + (1,) * (input.ndim - 2) if whole_channels else input.shape
        generator = self.generator(input.device)
        if self.rows is not None:
            kept = self.rows.kept(shape, input, 1 - p, generator)
        else:
            kept = torch.empty(shape, dtype=input.dtype, device=input.device)
            kept.bernoulli_(1 - p, generator=generator)
        scaled = kept.div_(1 - p) if p < 1 else kept
        return input.mul_(scaled) if inplace else input * scaled

    def _borrowed(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        device = _device_of(args, kwargs)
        owner: Any = torch.cuda if device.type == "cuda" else torch
        where = (device,) if device.type == "cuda" else ()
        own = self.generator(device if device.type == "cuda" else "cpu")
        if self.rows is not None:  # other processes draw for other rows, as many as they have
            drawn = torch.randint(2**62, (), generator=own, device=own.device)
            seed = derived_seed(int(drawn), self.rows.index[0])
            own = torch.Generator(own.device).manual_seed(seed)
        with global_generators():
            before = owner.get_rng_state(*where)
            owner.set_rng_state(own.get_state(), *where)
            try:
                return func(*args, **kwargs)
            finally:
                own.set_state(owner.get_rng_state(*where))
                owner.set_rng_state(before, *where)


_locks = [threading.RLock()]  # one, or in a forked process its own


def _renew_lock() -> None:
    """Give a forked process a lock of its own: the thread that held the old one is not in it."""
    _locks[:] = [threading.RLock()]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


@contextmanager
def global_generators() -> Iterator[None]:
    """Context in which no other thread may lend itself the global generators of the process."""
    with _locks[0]:
        yield


def imported(name: str) -> Any:
    """A library that is imported on first use; Python's random generator is as it was.

    Some draw from it while they are imported, such as rich, which scikit-learn imports.
    """
    if sys.modules.get(name) is None:
        with global_generators():
            state = random.getstate()
            try:
                import_module(name)
            finally:
                random.setstate(state)
    return sys.modules[name]


def _functions(owner: Any, *names: str) -> set[Callable[..., Any]]:
    """Those of the named functions that this version of torch has."""
    return {getattr(owner, name) for name in names if hasattr(owner, name)}


def _accepts_generator(func: Callable[..., Any]) -> bool:
    """Whether a function accepts a ``generator`` argument in this version of torch."""
    try:
        func(torch.empty(0), generator=torch.Generator())
    except TypeError:
        return False
    return True


_LIKE = {f for f in (torch.rand_like, torch.randn_like) if _accepts_generator(f)}
_WITH_GENERATOR = (
    _functions(torch, "rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial")
    | _functions(torch, "poisson", "binomial")
    | _LIKE
    | _functions(Tensor, "bernoulli", "bernoulli_", "cauchy_", "exponential_", "geometric_")
    | _functions(Tensor, "log_normal_", "multinomial", "normal_", "random_", "uniform_")
    | _functions(nn.init, "kaiming_normal_", "kaiming_uniform_", "normal_", "uniform_")
    | _functions(nn.init, "xavier_normal_", "xavier_uniform_", "trunc_normal_", "orthogonal_")
)
_DROPOUTS: dict[Callable[..., Any], bool] = {  # whether whole channels are dropped
    F.dropout: False,
    torch.dropout: False,
    torch.dropout_: False,
    **dict.fromkeys((F.dropout1d, F.dropout2d, F.dropout3d), True),
}
_WITHOUT_GENERATOR = (
    _functions(F, "alpha_dropout", "feature_alpha_dropout", "rrelu", "gumbel_softmax")
    | _functions(F, "fractional_max_pool2d", "multi_head_attention_forward")
    | _functions(F, "scaled_dot_product_attention")
    | _functions(torch, "lstm", "gru", "rnn_tanh", "rnn_relu", "native_dropout")
    | ({torch.rand_like, torch.randn_like, torch.randint_like} - _LIKE)
)


def _draws_nothing(func: Callable[..., Any], kwargs: dict[str, Any]) -> bool:
    """Whether attention is asked for without dropout, as transformers do in every block."""
    return func is F.scaled_dot_product_attention and not kwargs.get("dropout_p")


def _device_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.device:
    """Device on which a random function draws."""
    if kwargs.get("device") is not None:
        return torch.device(kwargs["device"])
    tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
    return tensors[0].device if tensors else torch.get_default_device()
