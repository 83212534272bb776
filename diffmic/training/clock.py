"""Time limit of a fit: when each of its parts must end, so that the others have their share."""

import time

from .progress import Phase, Progress

_SAFE = 0.95  # of the limit; estimates may be wrong
_SHARES = 0.3, 0.8  # least and largest share of the limit that stage one gets


class Clock:
    """Time of a fit, from the call of ``fit`` on, against its limit.

    Stage one gets the share of the limit that its planned work has in that of the whole fit, but
    leaves time for one round of all that follows. Estimates are those of the progress.

    Parameters
    ----------
    limit : float or None
        In seconds; None: there is none.

    Attributes
    ----------
    cut : dict of str to (int, int)
        Rounds that were done and planned, of each phase that was ended by the limit.
    """

    def __init__(self, limit: float | None = None) -> None:
        self.limit = limit
        self.started = time.monotonic()
        self.cut: dict[str, tuple[int, int]] = {}

    @property
    def seconds(self) -> float:
        """Time since the start of the fit."""
        return time.monotonic() - self.started

    def is_late(self, progress: Progress, done: int, planned: int) -> bool:
        """Whether the epochs of a stage must end now, for its validation and what follows."""
        phase = progress.current
        if self.limit is None or phase is None or done >= planned:
            return False
        cost = {p.name: progress.seconds_of_round(p) or 0.0 for p in progress.phases.values()}
        after = _after(phase, progress)
        until = _SAFE * self.limit - sum(cost[p.name] for p in after)
        if phase.name == "prior":
            own, rest = phase.rounds * cost["prior"], sum(p.rounds * cost[p.name] for p in after)
            share = own / (own + rest) if own else 0.0
            until = min(until, self.limit * min(max(share, _SHARES[0]), _SHARES[1]))
        late = self.seconds + cost[phase.name] * phase.validation / phase.work >= until
        if late:
            self.cut[phase.name] = done, planned
        return late

    def leaves_another(self, progress: Progress, done: int, planned: int) -> bool:
        """Whether one more round of encoding leaves as much time for the stage that follows."""
        phase = progress.current
        if self.limit is None or phase is None:
            return True
        cost = progress.seconds_of_round(phase) or 0.0
        last = _after(phase, progress)[1:]  # without the stage that gets the other half
        reserve = sum(progress.seconds_of_round(p) or 0.0 for p in last)
        fits = 2 * cost <= _SAFE * self.limit - reserve - self.seconds
        if not fits:
            self.cut[phase.name] = done, planned
        return fits

    @property
    def told(self) -> str:
        """What the limit ended early, as a sentence; empty: nothing."""
        if not self.cut:
            return ""
        names = {"encoding": "views of the cache"}
        parts = [
            f"{done} of {planned} {names.get(name, f'epochs of the {name}')}"
            for name, (done, planned) in self.cut.items()
        ]
        return (
            f"time_limit={self.limit:g} ended the fit early, after {', '.join(parts)}. The best "
            f"state of each stage is kept and calibrated; the fit took {self.seconds:.0f} seconds. "
            "Give it more time, or a smaller backbone or image_size."
        )


def _after(phase: Phase, progress: Progress) -> list[Phase]:
    """Phases that follow one."""
    phases = [*progress.phases.values()]
    return phases[phases.index(phase) + 1 :]
