"""Many attempts with damaged files: what may come of each, and what it may cost."""

import random
import resource
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from diffmic.errors import DiffMICError

SECONDS = 5  # of a processor, for one file
MEGABYTES = 400  # by which all files together may raise the memory in use


def attempt_all(
    seeds: Iterable[int], attempt: Callable[[random.Random], object]
) -> tuple[Counter[str], dict[str, list[int]]]:
    """How many files were refused or used, and seeds of those that did what none may do."""
    found: Counter[str] = Counter()
    faults: dict[str, list[int]] = {}
    before = _peak()
    for seed in seeds:
        start = time.process_time()
        try:
            attempt(random.Random(seed))
            found["used"] += 1
        except DiffMICError:
            found["refused"] += 1
        except Exception as reason:
            where = [
                f"{Path(f.filename).name}:{f.lineno}"
                for f in traceback.extract_tb(reason.__traceback__)
            ]
            told = f"{type(reason).__name__}: {str(reason)[:100]} ({' < '.join(where[:-5:-1])})"
            faults.setdefault(told, []).append(seed)
        if time.process_time() - start > SECONDS:
            faults.setdefault("took too long", []).append(seed)
        if _peak() > before + MEGABYTES:
            faults.setdefault("took too much memory", []).append(seed)
            before = _peak()
    return found, faults


def _peak() -> float:
    """Largest memory of the process so far, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
