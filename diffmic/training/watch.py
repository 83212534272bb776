"""What is told of a fit while it runs: a progress bar, log lines, and the moments of callbacks."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ..logs import bars_shown, tell
from .callbacks import Callback, Moment, StopTraining, asked
from .clock import Clock
from .progress import Phase, Progress

_NAME = "diffmic.training"
_HIDDEN = {"stage", "epoch", "seconds"}


class Watch:
    """Watches a fit; the loops of the stages tell it where they are, and ask whether to stop.

    Parameters
    ----------
    callbacks : sequence of Callback
    verbose : int
        0: silent; 1: a progress bar; 2: also a line per epoch, through ``logging``.
    clock : Clock or None
        Ends stages when it is time; None: they have all the time they need.

    Attributes
    ----------
    ended : StopTraining or None
        Set once a callback has ended the whole fit.
    """

    def __init__(
        self, callbacks: Sequence[Callback] = (), verbose: int = 0, clock: Clock | None = None
    ) -> None:
        self.callbacks = tuple(callbacks)
        self.verbose = int(verbose)
        self.progress = Progress(shown=bars_shown(self.verbose))
        self.asks_at_steps = any(
            getattr(callback.on_step_end, "__func__", None) is not Callback.on_step_end
            for callback in self.callbacks
        )
        self.clock = clock or Clock()
        self.idle = not self.callbacks and not self.verbose and self.clock.limit is None
        self._reset([])

    def _reset(self, history: list[dict[str, Any]]) -> None:
        self.ended: StopTraining | None = None
        self._started: tuple[Callback, ...] = ()
        self._history, self._rows = history, tuple(dict(row) for row in history)
        self._stage, self._epoch, self._max_epochs = "", 0, 0
        self._step = 0
        self._n_steps: int | None = None

    # --- the fit -----------------------------------------------------------------------------

    def fit_starts(self, history: list[dict[str, Any]], phases: list[Phase]) -> None:
        """Before the first stage; ``history`` is the list to which the stages add rows."""
        self._reset(history)
        self.progress.start(phases)
        for callback in self.callbacks:
            self._started += (callback,)
            self._ask("on_fit_start", Moment(history=self._rows), (callback,), ends_fit=True)

    def fit_ends(
        self, scores: Mapping[str, Mapping[str, float]], stopped: BaseException | None
    ) -> BaseException | None:
        """After calibration, or an interruption; the first exception of all."""
        reason = stopped or self.ended
        metrics = {f"{k}_{name}": v for k, m in scores.items() for name, v in m.items()}
        found = stopped
        try:
            self.progress.close(whole=reason is None)
            why = "" if reason is None else f" by {type(reason).__name__}"
            self._say(f"fit ended after {self.progress.seconds:.0f} s{why}")
        except BaseException as raised:
            found = found or raised
        moment = Moment(
            metrics=metrics,
            history=tuple(dict(row) for row in self._history),
            seconds=self.progress.seconds,
            remaining=0.0,
            ended_by=None if reason is None else type(reason).__name__,
        )
        for callback in self._started:  # each can close what it opened
            try:
                self._ask("on_fit_end", moment, (callback,))
            except BaseException as raised:
                found = found or raised
        return found

    # --- a stage -----------------------------------------------------------------------------

    def stage_starts(self, stage: str, epoch: int, max_epochs: int, n_steps: int | None) -> None:
        """Before the epochs of a stage, of which ``epoch`` may have been done before."""
        self._stage, self._epoch, self._max_epochs = stage, epoch, max_epochs
        self._step, self._n_steps = 0, n_steps
        self.progress.enter(stage, max_epochs, epoch)

    def epoch_starts(self, n_done: int) -> None:
        """Before the steps of an epoch, of which some may have been done before."""
        self._step = n_done

    def step_ends(self, loss: Tensor) -> bool:
        """After a step, with the loss (a scalar); whether to stop the stage."""
        if self.idle:
            return False
        self._step += 1
        if self._n_steps:
            self.progress.within(self._epoch, min(1.0, self._step / self._n_steps))
        late = self.clock.is_late(self.progress, self._epoch, self._max_epochs)
        if not self.asks_at_steps:
            return late
        metrics = {"train_loss": float(loss)}
        return self._ask("on_step_end", self._moment(metrics, self._epoch + 1)) or late

    def epoch_ends(self, row: Mapping[str, Any]) -> bool:
        """After an epoch has been kept, with its row of the history; whether to stop the stage."""
        self._epoch = row["epoch"]
        metrics = _metrics(row)
        shown = {name.replace("validation_", "val_"): value for name, value in metrics.items()}
        shown.pop("val_score", None)
        self.progress.reached(self._epoch, shown)
        self._say(self._line(row, metrics))
        stop = False
        if self.callbacks:
            self._rows = tuple(dict(row) for row in self._history)
            stop = self._ask("on_epoch_end", self._moment(metrics, self._epoch))
        return self.clock.is_late(self.progress, self._epoch, self._max_epochs) or stop

    def stage_ends(self, best_epoch: int) -> None:
        """After a stage, whose best state has been restored."""
        self._step = 0
        self.progress.leave()
        self._say(f"{self._stage} ended with the state of epoch {best_epoch} of {self._epoch}")
        if self.callbacks:
            rows = [row for row in self._history if row["stage"] == self._stage]
            best = [row for row in rows if row["epoch"] == best_epoch]
            moment = self._moment(_metrics(best[-1]) if best else {}, self._epoch)
            self._ask("on_stage_end", moment, ends_fit=True)

    # --- what lies between and after the stages ------------------------------------------------

    def phase_starts(self, name: str, rounds: int = 1) -> None:
        """Before work that is no stage: encoding, calibration."""
        self.progress.enter(name, rounds)
        self._say(f"{name} starts after {self.progress.seconds:.0f} s")

    # --- callbacks -----------------------------------------------------------------------------

    def _moment(self, metrics: dict[str, float], epoch: int) -> Moment:
        return Moment(
            self._stage,
            epoch,
            self._max_epochs,
            self._step,
            self._n_steps,
            metrics,
            self._rows,
            self.progress.seconds,
            self.progress.remaining,
        )

    def _ask(
        self,
        name: str,
        moment: Moment,
        callbacks: Sequence[Callback] | None = None,
        *,
        ends_fit: bool = False,
    ) -> bool:
        """Call the callbacks, here and nowhere else; whether to stop what goes on."""
        stop, reason = asked(self.callbacks if callbacks is None else callbacks, name, moment)
        if reason is not None or (stop and ends_fit):
            self.ended = reason or StopTraining(f"A callback returned True in {name}.")
        return stop

    # --- log lines -----------------------------------------------------------------------------

    def _say(self, text: str) -> None:
        tell(_NAME, text, shown=self.verbose > 1)

    def _line(self, row: Mapping[str, Any], metrics: Mapping[str, float]) -> str:
        values = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        line = f"{row['stage']}, epoch {row['epoch']} of {self._max_epochs}: {values}"
        if "seconds" in row:
            line += f"; {row['seconds']:.1f} s"
        left = self.progress.remaining
        return line if left is None else f"{line}, {left:.0f} s left"


def _metrics(row: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in row.items() if name not in _HIDDEN}
