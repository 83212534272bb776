"""State of a training loop: all that is needed to go on with it."""

import math
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

from ..random import LocalRNG
from .distributed import ALONE, Processes

History = list[dict[str, Any]]
State = dict[str, Tensor]


@dataclass
class Begun:
    """An epoch that has begun.

    Attributes
    ----------
    rng : dict
        State of the source of randomness at the start of the epoch, which gives the order.
    losses : list of Tensor
        Losses of the batches that were trained on.
    seconds : float
        Duration before the fit went on from a checkpoint.
    """

    rng: State
    losses: list[Tensor] = field(default_factory=list)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.started = time.perf_counter() - self.seconds


@dataclass
class LoopState:
    """Mutable state of a training loop; its ``state_dict`` suffices to resume training.

    Attributes
    ----------
    stage : str
        Name of the stage in the history.
    learner : nn.Module
        Module that is trained.
    optimizer, scheduler : Optimizer, LRScheduler
        Optimizer of the learner, and its learning-rate schedule.
    rng : LocalRNG
        Source of all randomness in the loop; forward passes run inside it.
    scaler : GradScaler
        Loss scaling for fp16.
    average : AveragedModel or None
        Moving average of the weights of the learner; if present, it is evaluated and kept.
    epoch : int
        Last completed epoch.
    best_score, best_epoch, best
        Score, epoch and tensors of the best state so far; at first, of the initial state.
    history : list of dict
        One row per epoch.
    unjudged : dict or None
        Row of an epoch that has been trained, but not yet validated and kept.
    begun : Begun or None
        Epoch that has begun and is not complete.
    processes : Processes
        Processes that take part; each has a state of its own, all of them alike.
    """

    stage: str
    learner: nn.Module
    optimizer: Optimizer
    scheduler: LRScheduler
    rng: LocalRNG
    scaler: GradScaler
    average: AveragedModel | None = None
    epoch: int = 0
    best_score: float = -math.inf
    best_epoch: int = 0
    best: State = field(default_factory=dict)
    history: History = field(default_factory=list)
    unjudged: dict[str, Any] | None = None
    begun: Begun | None = None
    processes: Processes = ALONE

    def __post_init__(self) -> None:
        self.best = self.best or copied(self.kept)

    @property
    def kept(self) -> nn.Module:
        """Module that is evaluated and kept: the moving average, or the learner itself."""
        return self.learner if self.average is None else self.average.module

    def step(self, loss: Tensor) -> None:
        """Backward pass and optimizer step."""
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.processes.sum_gradients(self.optimizer)
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        if self.scaler.get_scale() >= scale:  # else gradients overflowed and the step was skipped
            self.scheduler.step()
            if self.average is not None:
                self.average.update_parameters(self.learner)

    def keep(self, row: dict[str, Any], *, last: bool) -> None:
        """Add an epoch to the history, and keep its state if it is the best, or the first.

        If interrupted it can be called again.

        Parameters
        ----------
        row : dict
            Row of the history; without a score if validation was interrupted.
        last : bool
            Whether the last state is kept, whatever its score.
        """
        score = row.get("validation_score", -math.inf)
        if last or not self.best_epoch or score > self.best_score:
            self.best = copied(self.kept)
            self.best_score, self.best_epoch = score, row["epoch"]
        if not self.history or self.history[-1] is not row:
            self.history.append(row)
        self.epoch, self.unjudged, self.begun = row["epoch"], None, None

    def restore_best(self) -> None:
        """Load the best state into the learner."""
        self.learner.load_state_dict(self.best)

    def state_dict(self) -> dict[str, Any]:
        """State as tensors and plain values."""
        begun = self.begun if self.begun is not None and self.begun.losses else None
        return {
            "learner": self.learner.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "rng": self.rng.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "epoch": self.epoch,
            "best_score": self.best_score,
            "best_epoch": self.best_epoch,
            "best": self.best,
            "history": [dict(row) for row in self.history],
            "begun": begun
            and {
                "rng": begun.rng,
                "losses": torch.stack(begun.losses),
                "seconds": time.perf_counter() - begun.started,
            },
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a saved state."""
        for name in ("learner", "optimizer", "scheduler", "rng", "scaler"):
            getattr(self, name).load_state_dict(state[name])
        for weight, moments in self.optimizer.state.items():
            for name, moment in moments.items():
                if moment.ndim:  # in the weight's memory layout, as steps need it
                    if moment.shape != weight.shape:
                        raise ValueError(f"{name} of the optimizer is {tuple(moment.shape)}")
                    moments[name] = torch.empty_like(weight, requires_grad=False).copy_(moment)
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        begun = state["begun"]
        self.begun = begun and Begun(begun["rng"], [*begun["losses"]], begun["seconds"])
        self.epoch, self.best_score = state["epoch"], state["best_score"]
        self.best_epoch, self.best = state["best_epoch"], dict(state["best"])
        self.history[:] = state["history"]


def copied(module: nn.Module) -> State:
    """A copy of a module's state."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
