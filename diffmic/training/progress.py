"""Progress of a fit, with an estimate of the time that remains until it is calibrated."""

import math
import time
from dataclasses import dataclass
from typing import Any

from tqdm.auto import tqdm

from ..logs import bar

_EVERY = 0.2  # seconds between two drawings of the bar
_BAR, _NARROWEST = "{desc} {percentage:3.0f}%|{bar}| ", 10  # columns of the bar itself


@dataclass
class Phase:
    """A part of a fit: rounds of training (or encoding) and validation.

    Attributes
    ----------
    name : str
    rounds : float
        Number of rounds, such as epochs.
    learning, validation : float
        Work of a round, in passes of an image through the encoders.
    done : float
        Rounds done.
    measured, seconds : float
        Rounds that were done in this process, and their time.
    """

    name: str
    rounds: float
    learning: float
    validation: float = 0.0
    done: float = 0.0
    measured: float = 0.0
    seconds: float = 0.0

    @property
    def work(self) -> float:
        """Work of a round."""
        return self.learning + self.validation


class Progress:
    """Measures phases and, if ``shown``, draws one bar for the whole fit."""

    def __init__(self, *, shown: bool = False) -> None:
        self.shown = shown
        self.start([])

    def start(self, phases: list[Phase]) -> None:
        """Begin a fit that consists of these phases."""
        self.phases = {phase.name: phase for phase in phases}
        self.started = time.perf_counter()
        self.current: Phase | None = None
        self.bar: Any = None
        self._drawn = 0.0
        self._values: dict[str, str] = {}

    @property
    def seconds(self) -> float:
        """Time since the start of the fit."""
        return time.perf_counter() - self.started

    @property
    def remaining(self) -> float | None:
        """Estimated time until the end of the fit; None: nothing was measured yet."""
        phases = self.phases.values()
        if not any(phase.measured for phase in phases):
            return None
        return sum((p.rounds - p.done) * (self.seconds_of_round(p) or 0.0) for p in phases)

    def seconds_of_round(self, phase: Phase) -> float | None:
        """Time of a round of a phase, estimated by others if it was not measured yet."""
        if phase.measured:
            return phase.seconds / phase.measured
        phases = self.phases.values()
        work = sum(other.measured * other.work for other in phases)
        return phase.work * sum(other.seconds for other in phases) / work if work else None

    def enter(self, name: str, rounds: int, done: int = 0) -> None:
        """Begin a phase, of which some rounds may have been done before."""
        self.leave()
        self.current = self.phases.setdefault(name, Phase(name, rounds, 1.0))
        for earlier in self.phases.values():
            if earlier is self.current:
                break
            earlier.rounds = earlier.done  # it was left out
        self.current.rounds, self.current.done = rounds, done
        self._entered, self._before = time.perf_counter(), done
        self.draw({}, done + 1)

    def leave(self) -> None:
        """End a phase, after however many rounds."""
        if self.current is not None:
            self.current.rounds = self.current.done
        self.current = None

    def within(self, rounds: float, share: float) -> None:
        """A share of the training of the next round is done."""
        phase = self.current
        if phase is not None:
            self._reached(rounds + share * phase.learning / phase.work)
            if time.perf_counter() - self._drawn > _EVERY:
                self.draw(None, int(rounds) + 1)

    def reached(self, rounds: float, shown: dict[str, float]) -> None:
        """So many rounds of the phase are done; values to show beside the bar."""
        self._reached(rounds)
        self.draw(shown, int(rounds))

    def _reached(self, rounds: float) -> None:
        if self.current is not None:
            self.current.done = rounds
            self.current.measured = rounds - self._before
            self.current.seconds = time.perf_counter() - self._entered

    def draw(self, values: dict[str, float] | None, number: int) -> None:
        """Draw the bar with the number of a round, and values; None: those shown before."""
        if not self.shown or self.current is None:
            return
        if self.bar is None:
            self.bar = bar(total=100, bar_format="{desc}")
        remaining = self.remaining
        if remaining is not None:
            share = self.seconds / (self.seconds + remaining)
            self.bar.n = max(self.bar.n, min(99.9, round(100 * share, 1)))
        phase = self.current
        name = phase.name
        if phase.rounds > 1:
            name += f" {min(number, round(phase.rounds))}/{phase.rounds:.0f}"
        self.bar.set_description_str(name, refresh=False)
        if values is not None:
            self._values = {name: f"{name}={value:.3f}" for name, value in values.items()}
        left = "?" if remaining is None else tqdm.format_interval(remaining)
        self._beside(left=f"{left} left", **self._values)
        self.bar.refresh()
        self._drawn = time.perf_counter()

    def _beside(self, **told: str) -> None:
        """Tell the time and more beside the bar, of which the least needed goes where it is narrow.

        tqdm would cut off what is last.
        """
        told = {"elapsed": tqdm.format_interval(self.seconds), **told}
        width = self.bar.ncols  # a text, or None, where there is no terminal
        room = width - _NARROWEST if isinstance(width, int) else math.inf
        room -= len(_BAR.format(desc=self.bar.desc, percentage=100, bar=""))
        for name in ["train_loss", "elapsed", *self._values]:
            if len(", ".join(told.values())) > room and len(told) > 1:
                told.pop(name, None)
        self.bar.bar_format = _BAR + ", ".join(told.values())

    def close(self, *, whole: bool) -> None:
        """End the fit; ``whole``: nothing interrupted it."""
        self.leave()
        drawn = self.bar
        if drawn is not None:
            if whole:
                drawn.n = drawn.total
                drawn.set_description_str("fitted", refresh=False)
                self._beside()
            self.bar = None
            drawn.close()
