"""Images an hour: one process with all threads, against as many processes as there are cores.

``python -m speed_bench.shards '{"threads": …}'`` is such a process; it waits for a line before it
begins, and prints what it did as JSON.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from .models import Settings
from .predict import image_files


def shards(settings: Settings) -> list[dict[str, Any]]:
    """Images an hour of the default model, decoding JPEG files included."""
    n_cores = os.cpu_count() or 1
    return [
        {"processes": n, "threads": n_cores // n} | _together(settings, n, n_cores // n)
        for n in sorted({1, n_cores})
    ]


def _together(settings: Settings, n_processes: int, threads: int) -> dict[str, Any]:
    task = json.dumps({"settings": asdict(settings), "threads": threads})
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "speed_bench.shards", task],
            cwd=Path(__file__).parents[1],
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(n_processes)
    ]
    for process in started:  # all are ready before the first begins
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
    for process in started:
        process.stdin.write("go\n")
        process.stdin.flush()
    found = [json.loads(process.communicate()[0]) for process in started]
    return {"images_an_hour": round(3600 * sum(each["images_a_second"] for each in found))}


def main(task: dict[str, Any]) -> None:
    """Predict batches of files until the time is over."""
    settings = Settings(**task["settings"])
    torch.set_num_threads(task["threads"])
    clf = settings.estimator("default").set_params(batch_size=settings.batch)
    with image_files(settings) as files:
        clf.predict_proba(files)
        print("ready", flush=True)
        sys.stdin.readline()
        n_images, started = 0, time.perf_counter()
        while time.perf_counter() < started + settings.shard_seconds:
            clf.predict_proba(files)
            n_images += len(files)
        print(json.dumps({"images_a_second": n_images / (time.perf_counter() - started)}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
