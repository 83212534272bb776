"""Training loop of both stages: epochs of steps, validation, and the best state kept."""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel
from tqdm.auto import tqdm

from ..errors import TrainingDivergedError
from ..random import LocalRNG
from .precision import MixedPrecision

History = list[dict[str, Any]]
State = dict[str, Tensor]


@dataclass
class LoopState:
    """Mutable state of a training loop; its ``state_dict`` suffices to resume training.

    Attributes
    ----------
    stage : str
        Name of the stage in the history and the progress bar.
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

    def __post_init__(self) -> None:
        self.best = self.best or copied(self.kept)

    @property
    def kept(self) -> nn.Module:
        """Module that is evaluated and kept: the moving average, or the learner itself."""
        return self.learner if self.average is None else self.average.module

    def step(self, loss: Tensor) -> None:
        """Backward pass and optimizer step."""
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        if self.scaler.get_scale() >= scale:  # else gradients overflowed and the step was skipped
            self.scheduler.step()
            if self.average is not None:
                self.average.update_parameters(self.learner)

    def restore_best(self) -> None:
        """Load the best state into the learner."""
        self.learner.load_state_dict(self.best)

    def state_dict(self) -> dict[str, Any]:
        """State as tensors and plain values."""
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
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a saved state."""
        for name in ("learner", "optimizer", "scheduler", "rng", "scaler"):
            getattr(self, name).load_state_dict(state[name])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.epoch, self.best_score = state["epoch"], state["best_score"]
        self.best_epoch, self.best = state["best_epoch"], dict(state["best"])
        self.history[:] = state["history"]


def train(
    state: LoopState,
    objective: nn.Module,
    batches: Callable[[int], Iterable[tuple[Any, ...]]],
    *,
    evaluate: Callable[[], dict[str, float]] | None,
    precision: MixedPrecision,
    max_epochs: int,
    patience: int | None,
    verbose: int,
) -> None:
    """Minimise an objective, starting from ``state``; the learner ends in its best state.

    Parameters
    ----------
    state : LoopState
        Initial state; its ``history`` gets one row per epoch.
    objective : nn.Module
        Training objective: ``objective(*batch)`` is the loss.
    batches : callable
        Function from an epoch number to the batches of the epoch.
    evaluate : callable or None
        Function that returns validation metrics, including a ``"score"`` (higher is better). None:
        the last state is the best.
    precision : MixedPrecision
        Numerical precision of the forward passes.
    max_epochs : int
        Maximum number of epochs.
    patience : int or None
        Early stopping: number of epochs without a better score after which to stop; None: never
        stop early, and keep the last state.
    verbose : int
        Verbosity; 0: no progress bar.

    Raises
    ------
    TrainingDivergedError
        The loss or a weight is not finite. As after any other error or interruption, the learner is
        in its best state.
    """
    try:
        with tqdm(
            total=max_epochs,
            initial=state.epoch,
            desc=state.stage,
            unit="epoch",
            disable=not verbose,
        ) as bar:
            for epoch in range(state.epoch + 1, max_epochs + 1):
                row = _epoch(state, objective, batches(epoch), evaluate, precision, epoch)
                bar.set_postfix({name: f"{value:.3f}" for name, value in _shown(row).items()})
                bar.update()
                score = row.get("validation_score", math.inf)
                if score > state.best_score or patience is None or evaluate is None:
                    state.best, state.best_score, state.best_epoch = (
                        copied(state.kept),
                        score,
                        epoch,
                    )
                state.epoch = epoch
                if patience is not None and epoch - state.best_epoch >= patience:
                    break
    finally:
        state.restore_best()


def _epoch(
    state: LoopState,
    objective: nn.Module,
    batches: Iterable[tuple[Any, ...]],
    evaluate: Callable[[], dict[str, float]] | None,
    precision: MixedPrecision,
    epoch: int,
) -> dict[str, Any]:
    """Train on the batches of an epoch and evaluate; returns the row of the history."""
    started = time.perf_counter()
    objective.train()
    losses = []
    for batch in batches:
        with state.rng, precision.autocast():
            loss = objective(*batch)
        state.step(loss)
        losses.append(loss.detach())
    train_loss = float(torch.stack(losses).mean())
    if not math.isfinite(train_loss) or not _finite(state.kept, state.best):
        raise TrainingDivergedError(_diverged(state.stage, epoch, train_loss))
    row: dict[str, Any] = {"stage": state.stage, "epoch": epoch, "train_loss": train_loss}
    metrics = evaluate() if evaluate is not None else {}
    row |= {f"validation_{name}": value for name, value in metrics.items()}
    row["seconds"] = round(time.perf_counter() - started, 3)
    state.history.append(row)
    return row


def copied(module: nn.Module) -> State:
    """A copy of a module's state."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def _finite(module: nn.Module, before: State) -> bool:
    """Whether all tensors are finite, except where they never were, as in an infinite mask."""
    return all(
        bool(torch.isfinite(tensor).all())
        or bool((torch.isfinite(tensor) >= torch.isfinite(before[name])).all())
        for name, tensor in module.state_dict().items()
    )


def _shown(row: dict[str, Any]) -> dict[str, float]:
    hidden = {"stage", "epoch", "seconds", "validation_score"}
    return {name.replace("validation_", "val_"): row[name] for name in row if name not in hidden}


def _diverged(stage: str, epoch: int, loss: float) -> str:
    kept = "the initial state" if epoch == 1 else f"the best state of epochs 1 to {epoch - 1}"
    what = f"weights of the {stage} stage became NaN or infinite"
    if not math.isfinite(loss):
        what = f"loss of the {stage} stage became {loss}"
    return (
        f"The {what} in epoch {epoch}; training stopped and "
        f"{kept} was kept. Lower learning_rate, set precision='fp32', or look for unusual images "
        "or weights."
    )
