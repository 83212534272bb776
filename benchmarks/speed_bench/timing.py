"""Timings on a machine that is never quite quiet: candidates take turns, ratios are of one turn."""

import math
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

Run = Callable[[], object]
Seconds = dict[str, list[float]]  # of one call, in every round


def race(runs: Mapping[str, Run], rounds: int, *, at_least: float = 0.1) -> Seconds:
    """Seconds of a call of each candidate in each round, after a warm-up.

    In every other round the order is reversed, so that a machine that slows down or is disturbed
    is so for all candidates alike.

    Parameters
    ----------
    runs : dict of str to callable
    rounds : int
    at_least : float
        Seconds of one timing; what is faster is called several times. 0: once.
    """
    n_calls = {name: _calls_needed(run, at_least) for name, run in runs.items()}
    seconds: Seconds = {name: [] for name in runs}
    for number in range(rounds):
        for name in list(runs) if number % 2 == 0 else reversed(list(runs)):
            started = time.perf_counter()
            for _ in range(n_calls[name]):
                runs[name]()
            seconds[name].append((time.perf_counter() - started) / n_calls[name])
    return {name: [round(value, 7) for value in values] for name, values in seconds.items()}


def _calls_needed(run: Run, at_least: float) -> int:
    run()  # folds batch norms, packs weights, lets oneDNN choose its kernels
    if at_least == 0:
        return 1
    started = time.perf_counter()
    run()
    return max(1, math.ceil(at_least / max(time.perf_counter() - started, 1e-9)))


def ratio(candidate: Sequence[float], floor: Sequence[float]) -> float:
    """Median over the rounds of one time to the other of the same round."""
    return float(np.median(np.divide(candidate, floor)))
