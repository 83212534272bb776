"""Training loop of both stages: epochs of steps, validation, and the best state kept."""

import math
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import BackboneError, TrainingDivergedError
from ..random import LocalRNG
from .batches import Batch, ImageBatches, rows_of
from .checkpoint import Checkpoints
from .distributed import Processes
from .precision import MixedPrecision
from .state import Begun, LoopState, State
from .watch import Watch


def train(
    state: LoopState,
    objective: nn.Module,
    batches: Callable[[int], Iterable[Batch]] | ImageBatches,
    *,
    evaluate: Callable[[], dict[str, float]] | None,
    precision: MixedPrecision,
    max_epochs: int,
    patience: int | None,
    n_steps: int | None = None,
    watch: Watch | None = None,
    checkpoints: Checkpoints | None = None,
) -> None:
    """Minimise an objective, starting from ``state``; the learner ends in its best state.

    Parameters
    ----------
    state : LoopState
        Initial state; its ``history`` gets one row per epoch.
    objective : nn.Module
        Training objective: ``objective(*batch)`` is the loss.
    batches : callable
        Function from an epoch number to the batches of the epoch. Of :class:`ImageBatches` there
        are checkpoints within long epochs, too.
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
    n_steps : int or None
        Number of batches of an epoch, for the progress; None: not known.
    watch : Watch or None
        Is told of each step and epoch, and can stop the stage: the epoch under way then ends with
        the step, is validated and counts.
    checkpoints : Checkpoints or None
        Where the state is written; if a fit goes on in this stage, it starts from what is there.

    Raises
    ------
    CheckpointError
        The checkpoint to go on from does not fit.
    TrainingDivergedError
        The loss, a weight or the outputs in evaluation mode are not finite. As after any other
        error or interruption, the learner is in its best state; an epoch whose validation was
        interrupted counts as learnt.
    """
    watch, processes = watch or Watch(), state.processes
    if checkpoints is not None:
        processes.each(partial(checkpoints.restore, state))
    try:
        watch.stage_starts(state.stage, state.epoch, max_epochs, n_steps)
        for epoch in range(state.epoch + 1, max_epochs + 1):
            if patience is not None and state.epoch - state.best_epoch >= patience:
                break
            row, batch, stop = _trained(
                state, objective, batches, precision, epoch, watch, checkpoints
            )
            assert state.begun is not None
            started = state.begun.started
            state.unjudged = row  # from here on the epoch is kept, whatever happens
            try:
                row |= _validated(objective, evaluate, batch, processes)
            except BackboneError as reason:
                state.unjudged = None
                what = (
                    f"outputs of the {state.stage} stage in evaluation mode became NaN or infinite"
                )
                raise _diverged(state.stage, epoch, what) from reason
            row["seconds"] = round(time.perf_counter() - started, 3)
            state.keep(row, last=patience is None or evaluate is None)
            if checkpoints is not None:
                checkpoints.write(state)
            if processes.from_main(partial(watch.epoch_ends, row)) or stop:
                break
        state.best = processes.alike(state.best)
    finally:
        if state.unjudged is not None:
            state.keep(state.unjudged, last=patience is None or evaluate is None)
        try:
            state.restore_best()
        except BaseException:  # interrupted among its tensors
            state.restore_best()
            raise
    processes.each(lambda: watch.stage_ends(state.best_epoch))


def _trained(
    state: LoopState,
    objective: nn.Module,
    batches: Callable[[int], Iterable[Batch]] | ImageBatches,
    precision: MixedPrecision,
    epoch: int,
    watch: Watch,
    checkpoints: Checkpoints | None,
) -> tuple[dict[str, Any], Batch, bool]:
    """Train on the batches of an epoch.

    Returns the row of the history, the last batch, and whether to stop the stage.
    """
    objective.train()
    batch: Batch = ()
    processes, stop = state.processes, False
    asks = processes.from_main(lambda: watch.asks_at_steps)
    source: Iterable[Batch]
    if state.begun is not None and isinstance(batches, ImageBatches):  # goes on in its middle
        losses, now = state.begun.losses, state.rng.state_dict()
        state.rng.load_state_dict(state.begun.rng)
        source = batches.rest(epoch, len(losses), now)
    else:
        state.begun = Begun(state.rng.state_dict())
        losses, source = state.begun.losses, batches(epoch)
    watch.epoch_starts(len(losses))
    try:
        for batch in source:
            rows = rows_of(batch)
            with processes.forward(rows, state.rng), precision.autocast():
                loss = objective(*batch)
            if rows is not None:
                loss = rows.weight * loss
            state.step(loss)
            losses.append(processes.reduce(loss.detach()))
            stop = watch.step_ends(losses[-1])
            if asks and (stop := processes.from_main(partial(bool, stop))):
                break
            if checkpoints is None or not isinstance(batches, ImageBatches):
                continue
            if len(losses) < len(batches):
                checkpoints.write_in_time(state)
    except (ArithmeticError, LookupError, RuntimeError, ValueError) as reason:
        # Weights that are not finite make the next batch end in an error about something else.
        if what := _what_is_not_finite(state, losses):
            raise _diverged(state.stage, epoch, what) from reason
        raise
    processes.check_alike(state.rng)
    processes.each(lambda: _check_finite(state, losses, epoch))
    train_loss = float(torch.stack(losses).mean())
    return {"stage": state.stage, "epoch": epoch, "train_loss": train_loss}, batch, stop


def _validated(
    objective: nn.Module,
    evaluate: Callable[[], dict[str, float]] | None,
    batch: Batch,
    processes: Processes,
) -> dict[str, float]:
    """Validation metrics; without a validation part, at least a look at the last batch.

    In evaluation mode a network may overflow whose training was finite: a BackboneError.
    """
    if evaluate is not None:
        metrics = {f"validation_{name}": value for name, value in evaluate().items()}
        finite = math.isfinite(metrics["validation_score"])
    else:
        objective.eval()

        def is_finite() -> bool:
            with torch.no_grad(), LocalRNG(0):
                return bool(torch.isfinite(objective(*batch)).all())

        metrics, finite = {}, all(processes.together(is_finite))
    if not finite:
        raise BackboneError("The loss in evaluation mode is not finite.")
    return metrics


def _finite(module: nn.Module, before: State) -> bool:
    """Whether all tensors are finite, except where they never were, as in an infinite mask."""
    return all(
        bool(torch.isfinite(tensor).all())
        or bool((torch.isfinite(tensor) >= torch.isfinite(before[name])).all())
        for name, tensor in module.state_dict().items()
    )


def _check_finite(state: LoopState, losses: list[Tensor], epoch: int) -> None:
    if what := _what_is_not_finite(state, losses):
        raise _diverged(state.stage, epoch, what)


def _what_is_not_finite(state: LoopState, losses: list[Tensor]) -> str:
    """What became NaN or infinite, loss or weights, as the subject of a sentence; else empty."""
    try:
        loss = float(torch.stack(losses).mean()) if losses else 0.0
        if not math.isfinite(loss):
            return f"loss of the {state.stage} stage became {loss}"
        weights = f"weights of the {state.stage} stage became NaN or infinite"
        return "" if _finite(state.kept, state.best) else weights
    except RuntimeError:  # of a device that no longer answers
        return ""


def _diverged(stage: str, epoch: int, what: str) -> TrainingDivergedError:
    kept = "the initial state" if epoch == 1 else f"the best state of epochs 1 to {epoch - 1}"
    rate = "the recipe's denoiser_learning_rate" if stage == "diffusion" else "learning_rate"
    return TrainingDivergedError(
        f"The {what} in epoch {epoch}; training stopped and "
        f"{kept} was kept. Lower {rate}, set precision='fp32', or look for unusual images "
        "or weights."
    )
