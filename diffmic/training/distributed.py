"""Training by several processes at once: what each has, and what they tell one another.

Every process runs the same fit and draws the same random numbers. Of each batch it has some rows:
it computes their part of the loss, sums the gradients with the others', and so ends with the
weights that one process would have. What it evaluates or encodes is shared out likewise.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeVar

import torch
import torch.distributed
from torch import Tensor
from torch.distributed.rendezvous import rendezvous
from torch.optim import Optimizer

from ..errors import DiffMICError, InputError, ProcessesError, quiet
from ..random import LocalRNG
from ..rows import Rows
from .synchronised_norm import SynchronisedNorms

T = TypeVar("T")
LONGEST_WAIT = timedelta(minutes=10)  # for the others, before they are taken for dead


class Processes:
    """The processes of a fit: here a single one, which has all rows and nobody to talk to.

    Attributes
    ----------
    count, rank : int
        Number of processes, and which of them this one is.
    device : torch.device or None
        Device of this process; None: whatever the fit chooses.
    """

    count: int = 1
    rank: int = 0
    device: torch.device | None = None

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes, shows progress and warns."""
        return self.rank == 0

    def share(self, n: int) -> range:
        """Which of n images, or rows, this process has: every ``count``-th."""
        return range(self.rank, n, self.count)

    def rows(self, total: int) -> Rows | None:
        """Rows of a batch of ``total`` that this process has; None: all."""
        return None

    def quiet(self) -> AbstractContextManager[None]:
        """Context without warnings in all processes but the main one."""
        return nullcontext() if self.is_main else quiet()

    def forward(self, rows: Rows | None, rng: LocalRNG) -> AbstractContextManager[Any]:
        """Context of a forward pass on the rows of a batch that this process has."""
        return rng

    def reduce(self, tensor: Tensor) -> Tensor:
        """Sum of a tensor over all processes."""
        return tensor

    def sum_gradients(self, optimizer: Optimizer) -> None:
        """Replace all gradients by their sums over all processes."""

    def together(self, function: Callable[[], T]) -> list[T]:
        """What a function gives in each process; if it fails in one, it fails in all.

        The function must not talk to other processes.
        """
        return [function()]

    def each(self, function: Callable[[], T]) -> T:
        """What a function gives in this process; if it fails in one, it fails in all."""
        found: list[T] = []
        self.together(lambda: found.append(function()))
        return found[0]

    def from_main(self, function: Callable[[], T]) -> T:
        """What a function gives in the main process, the only one that calls it."""
        return function()

    def alike(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of the main process."""
        return dict(tensors)

    def check_alike(self, rng: LocalRNG) -> None:
        """Check that all processes have drawn the same random numbers."""

    def ended_by(self, reason: BaseException) -> None:
        """End the work with the others, unless they all ended it for the same reason."""


ALONE = Processes()


class Several(Processes):
    """Several processes, which talk through Accelerate.

    Parameters
    ----------
    state : accelerate.PartialState
    """

    def __init__(self, state: Any) -> None:
        self.state, self.device = state, state.device
        self.count, self.rank = state.num_processes, state.process_index
        self.agreed: BaseException | None = None

    def rows(self, total: int) -> Rows | None:
        mine = tuple(self.share(total))
        return Rows(total, mine or (0,), counts=bool(mine))

    @contextmanager
    def forward(self, rows: Rows | None, rng: LocalRNG) -> Iterator[None]:
        assert rows is not None  # of every batch
        with rng.of_rows(rows), SynchronisedNorms(self.reduce, counts=rows.counts):
            yield

    def reduce(self, tensor: Tensor) -> Tensor:
        from accelerate.utils import reduce

        with self._talking():
            summed: Tensor = reduce(tensor.to(self.device), "sum")
        return summed.to(tensor.device)

    def sum_gradients(self, optimizer: Optimizer) -> None:
        weights = [
            weight
            for group in optimizer.param_groups
            for weight in group["params"]
            if weight.requires_grad
        ]
        # A weight that no row of this process has used may have a gradient in another process.
        parts = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
        used = parts[0].new_tensor([weight.grad is not None for weight in weights])
        summed = self.reduce(torch.cat([used, *(part.reshape(-1) for part in parts)]))
        start = len(used)
        for i, (weight, part) in enumerate(zip(weights, parts, strict=True)):
            found = summed[start : start + part.numel()].view_as(part)
            start += part.numel()
            if weight.grad is not None:
                weight.grad.copy_(found)
            elif summed[i]:
                weight.grad = part.copy_(found)

    def together(self, function: Callable[[], T]) -> list[T]:
        from accelerate.utils import gather_object

        found: Any = None
        failed: BaseException | None = None
        try:
            found = function()
        except Exception as reason:
            failed = reason
        told = None if failed is None else _told(failed)
        with self._talking():
            everyone = gather_object([(found, told)])
        if failed is not None:
            self.agreed = failed
            raise failed
        for rank, (_, told) in enumerate(everyone):
            if told is not None:
                kind, message = told
                self.agreed = kind(f"Process {rank} of {self.count} failed: {message}")
                raise self.agreed
        return [found for found, _ in everyone]

    def from_main(self, function: Callable[[], T]) -> T:
        from accelerate.utils import broadcast_object_list

        found: list[Any] = [self.each(lambda: function() if self.is_main else None)]
        with self._talking():
            return broadcast_object_list(found)[0]  # type: ignore[no-any-return]

    def alike(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        from accelerate.utils import broadcast

        with self._talking():
            return {
                name: broadcast(tensor.to(self.device).contiguous()).to(tensor.device)
                for name, tensor in tensors.items()
            }

    def check_alike(self, rng: LocalRNG) -> None:
        states = (state.numpy().tobytes() for _, state in sorted(rng.state_dict().items()))
        mine = hashlib.sha256(b"".join(states)).hexdigest()
        if len(set(self.together(lambda: mine))) > 1:
            self.agreed = ProcessesError(
                "The processes no longer draw the same random numbers, so that their batches would "
                "differ: a module or a loss of your own draws another number of them in each. Draw "
                "one row of them for each row of its input, or a number that is always the same."
            )
            raise self.agreed

    def ended_by(self, reason: BaseException) -> None:
        if self.agreed is not None and self.agreed in (reason, reason.__cause__):
            return
        if torch.distributed.is_initialized():
            # Others that wait for this process are told so by the end of its connections.
            torch.distributed.destroy_process_group()

    @contextmanager
    def _talking(self) -> Iterator[None]:
        """Why others do not answer, as an error of ours."""
        try:
            yield
        except (RuntimeError, ValueError) as reason:  # the latter: there is no group any more
            raise ProcessesError(
                f"Another process of this fit failed, or did not answer (this one is number "
                f"{self.rank} of 0 to {self.count - 1}): the first error among the messages of all "
                f"processes says why. Here: {str(reason).strip().splitlines()[0]}"
            ) from reason


def _told(reason: BaseException) -> tuple[type[DiffMICError], str]:
    """Kind and message of an error, as the other processes raise it."""
    if isinstance(reason, DiffMICError):
        return type(reason), str(reason)
    return ProcessesError, f"{type(reason).__name__}: {reason}"


def joined(distributed: bool, device: str | torch.device) -> Processes:
    """The processes that take part in a fit.

    Parameters
    ----------
    distributed : bool
        Whether those that ``torchrun`` or ``accelerate launch`` started together fit one model
        together. Without them, this one is alone.
    device : str or torch.device
        Device that the estimator is given; each process has its own GPU.

    Raises
    ------
    InputError
        Accelerate is not installed; the processes cannot reach one another; the device is not one
        that every process has; or an earlier fit of the processes ended in an error.
    """
    if not isinstance(distributed, bool):
        raise InputError(f"distributed is {distributed!r}; give True or False.")
    if not distributed or _n_launched() == 1:
        return ALONE
    if find_spec("accelerate") is None:
        raise InputError(
            'distributed=True needs Accelerate: pip install "diffmic[accelerate]", or leave out '
            "distributed."
        )
    from accelerate import PartialState
    from accelerate.utils import InitProcessGroupKwargs

    on_cpu = str(device) == "cpu" or not torch.cuda.is_available()
    options = InitProcessGroupKwargs(timeout=LONGEST_WAIT).to_kwargs()
    if not torch.distributed.is_initialized() and "LOCAL_RANK" not in os.environ:
        raise InputError(
            f"WORLD_SIZE is {_n_launched()}, but no launcher started these processes: start the "
            "script by torchrun or accelerate launch, or remove WORLD_SIZE from the environment."
        )
    # Imported after the group is made, its functions would hold it for good (as defaults), and
    # the others would not be told of its end.
    import_module("torch.distributed.nn")
    try:
        state = PartialState(cpu=on_cpu, **options, **_after_restart())
    except (RuntimeError, ValueError) as reason:
        raise InputError(
            f"The {_n_launched()} processes cannot reach one another: {reason} Start all of them "
            "by torchrun or accelerate launch, with an address that each can reach."
        ) from reason
    if not torch.distributed.is_initialized():
        raise InputError(
            "The processes of torchrun can fit nothing together any more, since an earlier fit of "
            "theirs ended in an error in one of them: start the script anew."
        )
    if str(device) != "auto" and torch.device(device) not in (
        state.device,
        torch.device(state.device.type),
    ):
        raise InputError(
            f"device is {str(device)!r}, but distributed=True gives this process "
            f"{str(state.device)!r}: leave out device, or give 'cpu' or 'cuda' before any other "
            "use of Accelerate in the script."
        )
    return Several(state)


def _after_restart() -> dict[str, Any]:
    """Options of the process group after torchrun has restarted the processes, else none.

    torchrun keeps its store of addresses, in which a process would find those of the dead.
    """
    restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if restart == "0" or torch.distributed.is_initialized():
        return {}
    store, rank, world_size = next(rendezvous("env://", timeout=LONGEST_WAIT))
    prefixed = torch.distributed.PrefixStore(  # type: ignore[attr-defined]
        f"restart_{restart}", store
    )
    return {"store": prefixed, "rank": rank, "world_size": world_size}


def _n_launched() -> int:
    """Number of processes that were started together with this one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_world_size()
    return int(os.environ.get("WORLD_SIZE", 1))
