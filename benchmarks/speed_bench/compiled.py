"""What ``torch.compile`` gains, in a process of its own that is given up when it takes too long.

``python -m speed_bench.compiled '{"rounds": …}'`` is such a process; it prints JSON.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any
from unittest.mock import patch

import torch

from .models import Settings, float_batch, pictures
from .processes import in_a_process
from .timing import Run, race


def has_compiler() -> bool:
    """Whether there is the C++ compiler that torch would call."""
    usual = "clang++" if sys.platform == "darwin" else "g++"
    return shutil.which(os.environ.get("CXX", usual)) is not None


def compiled(settings: Settings, rounds: int, *, backend: str = "inductor") -> dict[str, Any]:
    """Encoding, and the whole of sampling, as they are and compiled: default model, one batch."""
    task = {"rounds": min(rounds, settings.few_rounds), "backend": backend}
    with tempfile.TemporaryDirectory() as cache:  # what was compiled before does not count
        try:
            with patch.dict(os.environ, TORCHINDUCTOR_CACHE_DIR=cache):
                return in_a_process("compiled", task, settings, at_most=settings.compile_seconds)
        except subprocess.TimeoutExpired:
            return {"given_up_after_seconds": settings.compile_seconds}


def main(task: dict[str, Any]) -> None:
    """Compile, then race; print what came of it."""
    settings = Settings(**task["settings"])
    torch.set_num_threads(task["threads"])
    clf = settings.estimator("default")
    network = clf.model_.engine.network
    pixels = float_batch(pictures(settings.batch, settings.image_size))
    noise = network.noise(clf.n_draws, torch.Generator().manual_seed(clf.seed_))
    with torch.inference_mode():
        conditions = network.encode(pixels)
        encode, sample = (
            torch.compile(function, fullgraph=True, backend=task["backend"])
            for function in (network.encode, network.sample)
        )
        runs: dict[str, Run] = {
            "encode": lambda: network.encode(pixels),
            "encode, compiled": lambda: encode(pixels),
            "sample": lambda: network.sample(conditions, noise, num_steps=clf.num_steps),
            "sample, compiled": lambda: sample(conditions, noise, num_steps=clf.num_steps),
        }
        first = {name: _seconds(runs[f"{name}, compiled"]) for name in ("encode", "sample")}
        seconds = race(runs, task["rounds"], at_least=settings.seconds)
    record = {"model": "default", "images": settings.batch, "threads": task["threads"]}
    print(json.dumps(record | {"seconds_to_compile": first, "seconds": seconds}))


def _seconds(run: Run) -> float:
    started = time.perf_counter()
    run()
    return round(time.perf_counter() - started, 1)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
