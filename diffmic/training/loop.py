"""One loop for both stages: epochs of steps, a validation score, the best state kept."""

import math
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from tqdm.auto import tqdm

from ..errors import TrainingDivergedError

if TYPE_CHECKING:
    from accelerate import Accelerator

History = list[dict[str, Any]]
State = dict[str, Tensor]


def train(
    objective: nn.Module,
    batches: Callable[[int], Iterable[tuple[Any, ...]]],
    *,
    learner: nn.Module,
    evaluate: Callable[[], dict[str, float]] | None,
    accelerator: "Accelerator",
    optimizer: Optimizer,
    scheduler: LRScheduler,
    max_epochs: int,
    patience: int | None,
    stage: str,
    history: History,
    verbose: int,
    after_step: Callable[[], None] | None = None,
) -> None:
    """Minimise an objective; ``learner`` ends with the best state that was seen.

    Parameters
    ----------
    objective : nn.Module
        ``objective(*batch)`` is the loss; it is put into training mode by the caller's ``batches``
        or here, and changes ``learner``.
    batches : callable
        Epoch number → batches on the accelerator's device.
    learner : nn.Module
        What learns; its state is kept and restored.
    evaluate : callable or None
        Measures of the validation part; ``"score"`` among them, larger is better. None: the last
        state is the best.
    patience : int or None
        Epochs without a better score after which to stop; None: never, and the last state stays.
    stage : str
        Name for the history and the progress bar.
    history : list of dict
        Gets a row per epoch.
    after_step : callable or None
        Called after each optimizer step.

    Raises
    ------
    TrainingDivergedError
        The loss or a weight is not finite; ``learner`` holds the last good state.
    KeyboardInterrupt
        The same holds.
    """
    good = _state(learner)
    best_score, best_epoch = -math.inf, 0
    try:
        with tqdm(total=max_epochs, desc=stage, unit="epoch", disable=not verbose) as bar:
            for epoch in range(1, max_epochs + 1):
                started = time.perf_counter()
                objective.train()
                losses = []
                for batch in batches(epoch):
                    loss = objective(*batch)
                    accelerator.backward(loss)
                    optimizer.step()
                    scheduler.step()
                    optimizer.zero_grad()
                    if after_step is not None:
                        after_step()
                    losses.append(loss.detach())
                train_loss = float(torch.stack(losses).mean())
                if not math.isfinite(train_loss) or not _finite(learner):
                    raise TrainingDivergedError(_diverged(stage, epoch, train_loss))
                row: dict[str, Any] = {"stage": stage, "epoch": epoch, "train_loss": train_loss}
                measures = evaluate() if evaluate is not None else {}
                row |= {f"validation_{name}": value for name, value in measures.items()}
                row["seconds"] = round(time.perf_counter() - started, 3)
                history.append(row)
                bar.set_postfix({k: f"{v:.3f}" for k, v in _shown(row).items()})
                bar.update()
                score = measures.get("score", math.inf)
                if score > best_score or patience is None or evaluate is None:
                    good, best_score, best_epoch = _state(learner), score, epoch
                elif epoch - best_epoch >= patience:
                    break
    finally:
        learner.load_state_dict(good)


def _state(module: nn.Module) -> State:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def _finite(module: nn.Module) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in module.state_dict().values())


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
        f"{kept} was kept. Lower learning_rate, set precision='fp32', or look for images or "
        "weights that are out of the ordinary."
    )
