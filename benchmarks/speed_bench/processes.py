"""Measurements in a process of their own."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from .models import Settings

STATUS = Path("/proc/self/status")


def in_a_process(
    module: str, task: dict[str, Any], settings: Settings, *, at_most: float | None = None
) -> dict[str, Any]:
    """What ``python -m speed_bench.MODULE TASK`` prints in its last line, as JSON.

    Raises
    ------
    subprocess.TimeoutExpired
        It took more than ``at_most`` seconds.
    """
    task = task | {"settings": asdict(settings), "threads": torch.get_num_threads()}
    done = subprocess.run(
        [sys.executable, "-m", f"speed_bench.{module}", json.dumps(task)],
        cwd=Path(__file__).parents[1],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=at_most,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def own_megabytes(entry: str) -> float:
    """An entry of this process's status file in MB, such as VmHWM or RssAnon."""
    for line in STATUS.read_text().splitlines():
        if line.startswith(f"{entry}:"):
            return float(line.split()[1]) / 1024
    raise KeyError(entry)
