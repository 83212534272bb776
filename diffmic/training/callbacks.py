"""Callbacks: code of one's own at documented moments of a fit, which can stop it."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import DiffMICError, InputError


class StopTraining(DiffMICError):
    """Raised by a callback to end the fit: the estimator is fitted with the best state so far.

    The epoch under way ends here and counts; no other stage follows; calibration does. ``fit``
    raises it only if nothing was learnt yet, be it by the fit of a checkpoint.
    """


@dataclass(frozen=True)
class Moment:
    """State of a fit when a callback is called; all values are copies.

    Attributes
    ----------
    stage : str or None
        Stage that is trained: ``"prior"``, then ``"diffusion"``; None at the start and the end of
        the fit.
    epoch, max_epochs : int
        Number of the epoch in the stage, from 1, and the largest; 0 at the start of the fit.
    step : int
        Number of steps taken in this epoch.
    n_steps : int or None
        Number of steps of an epoch; None: not known.
    metrics : dict of str to float
        After a step: ``train_loss`` of its batch. After an epoch: mean ``train_loss`` and, with a
        validation part, ``validation_score`` (by which the best epoch is chosen; higher is better),
        ``validation_nll``, ``validation_accuracy``. After a stage: those of its best epoch. After
        the fit: the cross-fitted metrics of ``validation_scores_``, such as ``diffusion_auc``.
    history : tuple of dict
        Rows of ``history_`` up to the last epoch.
    seconds : float
        Time since the start of the fit.
    remaining : float or None
        Estimated time in seconds until the end of the fit, if no stage stops early; None: nothing
        was measured yet.
    ended_by : str or None
        At the end of the fit: what ended it early, such as ``"KeyboardInterrupt"``; else None.
    """

    stage: str | None = None
    epoch: int = 0
    max_epochs: int = 0
    step: int = 0
    n_steps: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    history: tuple[dict[str, Any], ...] = ()
    seconds: float = 0.0
    remaining: float | None = None
    ended_by: str | None = None


class Callback:
    """Base class of callbacks; override the moments that matter, each of which gets a `Moment`.

    A callback watches: results are the same with and without it, unless it stops the fit. It can do
    so in three ways. Returning True after a step or an epoch ends the stage, which keeps its best
    state; the next stage follows. Returning True after a stage, or raising :class:`StopTraining`
    anywhere, ends the fit; the estimator is then fitted and calibrated. Any other exception
    interrupts the fit: it goes on to the caller of ``fit``, and what was learnt is kept.
    """

    def on_fit_start(self, moment: Moment) -> bool | None:
        """Before the first stage, when data and parameters have been checked."""

    def on_step_end(self, moment: Moment) -> bool | None:
        """After each step of the optimizer; on a GPU, the CPU waits for the loss."""

    def on_epoch_end(self, moment: Moment) -> bool | None:
        """After each epoch, which has been validated and, if it is the best, kept."""

    def on_stage_end(self, moment: Moment) -> bool | None:
        """After each stage that was not interrupted, with its best state restored."""

    def on_fit_end(self, moment: Moment) -> bool | None:
        """After calibration; also after an interruption, if the fit had started."""


MOMENTS = ("on_fit_start", "on_step_end", "on_epoch_end", "on_stage_end", "on_fit_end")


def checked_callbacks(callbacks: Any) -> tuple[Callback, ...]:
    """Callbacks of an estimator (None, one, or a list of them) as a tuple; else an InputError."""
    if callbacks is None:
        return ()
    if isinstance(callbacks, Callback):
        callbacks = [callbacks]
    if not isinstance(callbacks, (list, tuple)):
        raise InputError(_no_callback("callbacks", callbacks))
    for number, callback in enumerate(callbacks):
        if not isinstance(callback, Callback):
            raise InputError(_no_callback(f"callbacks[{number}]", callback))
        _check_moments(callback)
    return tuple(callbacks)


def asked(callbacks: Sequence[Callback], name: str, moment: Moment) -> tuple[bool, Any]:
    """Call one method of all callbacks; whether one wants to stop, and a `StopTraining`, if any."""
    stop, reason = False, None
    for callback in callbacks:
        try:
            answer = getattr(callback, name)(moment)
        except StopTraining as raised:
            stop, reason = True, raised
            continue
        if answer is not None and not isinstance(answer, (bool, np.bool_)):
            raise InputError(
                f"{type(callback).__name__}.{name} returned {answer!r}; return None to go on, or "
                "True to stop."
            )
        stop |= bool(answer)
    return stop, reason


def _no_callback(name: str, found: Any) -> str:
    what = f"{name} is {found!r}"
    if isinstance(found, type) and issubclass(found, Callback):
        return f"{what}, a class; give an instance of it: {found.__name__}(...)."
    return (
        f"{what}; give an instance of a class that is derived from diffmic.callbacks.Callback, or "
        "a list of such."
    )


def _check_moments(callback: Callback) -> None:
    for name in dir(callback):
        if name.startswith("on_") and name not in MOMENTS and callable(getattr(callback, name)):
            alike = difflib.get_close_matches(name, MOMENTS, 1) or [", ".join(MOMENTS)]
            raise InputError(
                f"{type(callback).__name__} has a method {name}, but there is no such moment: it "
                f"would never be called. Did you mean {alike[0]}? Begin names of other methods "
                "with something else than 'on_'."
            )
