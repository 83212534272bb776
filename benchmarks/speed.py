"""Speed: what a prediction and a fit cost, beside plain models of the same backbone.

    python benchmarks/speed.py run --json FILE      all of it, 15 minutes on 2 cores
    python benchmarks/speed.py run --no-fit         predictions alone
    python benchmarks/speed.py table FILE           the tables again
    python benchmarks/speed.py plot FILE --output docs/speed.png

What is compared is measured in one process, in turns: the floor, the candidate, the candidate, the
floor and so on, after a warm-up. A ratio is the median over the rounds of that of each round, so
that the noise of a shared machine is in both. Nothing else should run meanwhile.
"""

import datetime
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from speed_bench.fit import fitting
from speed_bench.memory import memory_of
from speed_bench.models import QUICK, Settings
from speed_bench.picture import draw
from speed_bench.predict import factors, paper, predictions, stages
from speed_bench.report import tables
from speed_bench.shards import shards
from speed_bench.targets import verdicts

app = typer.Typer(add_completion=False, help=__doc__)
File = Annotated[Path, typer.Argument(help="JSON file that `run` wrote.")]


@app.command()
def run(
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Keep everything in this file.")
    ] = None,
    rounds: Annotated[int, typer.Option(help="Turns of each candidate.", min=1)] = 7,
    fit: Annotated[bool, typer.Option(help="Measure training, too: some 6 minutes.")] = True,
    fit_images: Annotated[int, typer.Option(help="Images to train on.", min=10)] = 300,
    fit_epochs: Annotated[int, typer.Option(min=1)] = 10,
    memory: Annotated[bool, typer.Option(help="Measure peaks of memory, too.")] = True,
    compiled: Annotated[
        bool, typer.Option("--compile", help="torch.compile of encode, too: minutes.")
    ] = False,
    quick: Annotated[
        bool, typer.Option(help="Tiny networks, to see that all runs; figures mean nothing.")
    ] = False,
) -> None:
    """Measure, and print tables of ratios."""
    settings = QUICK if quick else Settings()
    report = circumstances() | {"rounds": rounds, "settings": asdict(settings), "seconds": {}}
    parts: dict[str, Callable[[], Any]] = {
        "predict": lambda: predictions(settings, rounds),
        "stages": lambda: stages(settings, rounds),
        "factors": lambda: factors(settings, rounds, compiled=compiled),
        "paper": lambda: paper(settings, rounds),
        "shards": lambda: shards(settings),
        "memory": lambda: memory_of(settings),
        "fit": lambda: fitting(settings, fit_images, fit_epochs),
    }
    left_out = {name for name, wanted in (("memory", memory), ("fit", fit)) if not wanted}
    parts = {name: measure for name, measure in parts.items() if name not in left_out}
    for name, measure in parts.items():
        started = time.perf_counter()
        report[name] = measure()
        report["seconds"][name] = round(time.perf_counter() - started, 1)
        print(f"{name}: {report['seconds'][name]:.0f} s", file=sys.stderr)
        report["targets"] = verdicts(report)
        if json_file is not None:  # after each part: what was interrupted is not lost
            json_file.parent.mkdir(parents=True, exist_ok=True)
            json_file.write_text(json.dumps(report, indent=1))
    print(tables(report))


def circumstances() -> dict[str, Any]:
    """What figures depend on."""
    names = ("diffmic", "torch", "torchvision", "timm", "numpy")
    return {
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "versions": {"python": platform.python_version()} | {n: version(n) for n in names},
    }


def processor() -> str:
    """Its name, where the system tells."""
    file = Path("/proc/cpuinfo")
    if file.is_file():
        for line in file.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@app.command()
def table(file: File) -> None:
    """Print the tables of an earlier run."""
    print(tables(json.loads(file.read_text())))


@app.command()
def plot(
    file: File,
    output: Annotated[Path, typer.Option(help="Picture to write: .png, .svg or .pdf.")],
) -> None:
    """Draw cost against steps, batch and classes."""
    draw(json.loads(file.read_text()), output)


if __name__ == "__main__":
    app()
