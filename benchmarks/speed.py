"""Speed: what a prediction and a fit cost, beside plain models of the same backbone.

    python benchmarks/speed.py run --json FILE      all of it, 20 minutes on 2 cores
    python benchmarks/speed.py run --part predict.default --part factors.steps
                                                    some of it: the default model, 3 minutes
    python benchmarks/speed.py run --part factors.steps --part v1_factors.steps
                                                    v2 and DiffMIC (v1) by sampler steps
    python benchmarks/speed.py fit --json FILE      a fit against plain fine-tuning, anew
    python benchmarks/speed.py memory --json FILE   fits on 1,000 and 20,000 images: minutes more
    python benchmarks/speed.py gpu --json FILE      predictions on a CUDA GPU
    python benchmarks/speed.py precisions CSV       exported files in float32, float16 and int8
    python benchmarks/speed.py ray                  a worker of Ray Data beside one process
    python benchmarks/speed.py page IMAGE           what the page does with an image, without gradio
    python benchmarks/speed.py table FILE           the tables again
    python benchmarks/speed.py plot FILE --output docs/speed.png

What is compared is measured in one process, in turns: the floor, the candidate, the candidate, the
floor and so on, after a warm-up. A ratio is the median over the rounds of that of each round, so
that the noise of a shared machine is in both. Nothing else should run meanwhile. Both see the same
environment: with THP_MEM_ALLOC_ENABLE=1 torch asks Linux for huge pages.
"""

import datetime
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer
from speed_bench.compiled import compiled, has_compiler
from speed_bench.fit import fitting
from speed_bench.fit_memory import memory_of_fits
from speed_bench.imports import imports
from speed_bench.memory import memory_of
from speed_bench.models import QUICK, Settings
from speed_bench.picture import draw
from speed_bench.pipeline import pipeline
from speed_bench.precisions import precisions
from speed_bench.predict import (
    Factor,
    making_engines,
    paper,
    paper_predictions,
    predictions,
    stages,
)
from speed_bench.report import tables
from speed_bench.shards import shards
from speed_bench.targets import verdicts

from diffmic.datasets import read_csv

# Environment variables that say how torch and the C library ask for memory.
ALLOCATOR = (
    *("THP_MEM_ALLOC_ENABLE", "GLIBC_TUNABLES"),
    *("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"),
)
app = typer.Typer(add_completion=False, help=__doc__)
Json = Annotated[Path | None, typer.Option("--json", help="Keep everything in this file.")]
Quick = Annotated[
    bool, typer.Option(help="Tiny networks, to see that all runs; figures mean nothing.")
]
File = Annotated[Path, typer.Argument(help="JSON file that `run` wrote.")]


PARTS = (
    *("predict.default", "predict.paper-v2", "engine", "stages"),
    *(f"factors.{name}" for name in ("steps", "draws", "classes", "threads", "precision")),
    *("factors.images", "factors.ONNX Runtime", "factors.exported", "paper"),
    *(f"paper_factors.{name}" for name in ("steps", "draws", "classes", "threads")),
    "v1_factors.steps",
    *("compile", "imports", "shards", "memory", "fit", "pipeline"),
)


@app.command()
def run(
    json_file: Json = None,
    part: Annotated[
        list[str] | None,
        typer.Option(help=f"What to measure, instead of all: {', '.join(PARTS)}."),
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option(help="What to leave out; fit takes some 7 minutes.")
    ] = None,
    rounds: Annotated[int, typer.Option(help="Turns of each candidate.", min=1)] = 5,
    fit_images: Annotated[int, typer.Option(help="Images to train on.", min=10)] = 300,
    fit_epochs: Annotated[int, typer.Option(min=1)] = 10,
    quick: Quick = False,
) -> None:
    """Measure, and print tables of ratios; of an earlier file only the memory of fits stays."""
    settings = QUICK if quick else Settings()
    report = circumstances() | {"rounds": rounds, "settings": asdict(settings), "seconds": {}}
    if (fits := read(json_file).get("fit_memory")) is not None:
        report["fit_memory"] = fits
    factor, of_paper = Factor("default", settings, rounds), Factor.of_paper(settings, rounds)
    measures: dict[str, Callable[[], Any]] = {
        "predict.default": lambda: predictions(settings, rounds),
        "predict.paper-v2": lambda: paper_predictions(settings, rounds),
        "engine": lambda: making_engines(settings, rounds),
        "stages": lambda: stages(settings, rounds),
        "factors.steps": factor.steps,
        "factors.draws": factor.draws,
        "factors.classes": factor.classes,
        "factors.threads": factor.threads,
        "factors.precision": factor.precision,
        "factors.images": factor.images,
        "factors.ONNX Runtime": factor.onnxruntime,
        "factors.exported": factor.exported,
        "paper": lambda: paper(settings, rounds),
        "paper_factors.steps": of_paper.steps,
        "paper_factors.draws": of_paper.draws,
        "paper_factors.classes": of_paper.classes,
        "paper_factors.threads": of_paper.threads,
        "v1_factors.steps": Factor.of_v1(settings, rounds).steps,
        "compile": lambda: compiled(settings, rounds),
        "imports": lambda: imports(rounds),
        "shards": lambda: shards(settings),
        "memory": lambda: memory_of(settings),
        "fit": lambda: fitting(settings, fit_images, fit_epochs),
        "pipeline": lambda: pipeline(settings),
    }
    for name in wanted(part, without):
        started = time.perf_counter()
        put(report, name, measures[name]())
        report["seconds"][name] = round(time.perf_counter() - started, 1)
        print(f"{name}: {report['seconds'][name]:.0f} s", file=sys.stderr)
        keep(report, json_file)  # after each part: what was interrupted is not lost
    print(tables(report))


def wanted(part: list[str] | None, without: list[str] | None) -> list[str]:
    """Names of the parts to measure; a name before a dot stands for all that begin with it."""
    for name in (*(part or ()), *(without or ())):
        if not any(name in names_of(each) for each in PARTS):
            raise typer.BadParameter(f"There is no part {name!r}; there are: {', '.join(PARTS)}.")
    chosen = [each for each in PARTS if part is None or names_of(each) & set(part)]
    chosen = [each for each in chosen if not names_of(each) & set(without or ())]
    if "compile" in chosen and not has_compiler():
        print("torch.compile is left out: there is no C++ compiler.", file=sys.stderr)
        chosen.remove("compile")
    return chosen


def names_of(part: str) -> set[str]:
    """By which a part can be named: its own, and that of its group."""
    return {part, part.partition(".")[0]}


def put(report: dict[str, Any], part: str, found: Any) -> None:
    """Put what was found where the tables look for it."""
    group, _, name = part.partition(".")
    if group == "predict":
        report.setdefault(group, []).extend(found)
    elif name:
        report.setdefault(group, {})[name] = found
    else:
        report[group] = found


@app.command()
def fit(
    json_file: Json = None,
    images: Annotated[int, typer.Option(help="Images to train on.", min=10)] = 300,
    epochs: Annotated[int, typer.Option(min=1)] = 10,
    quick: Quick = False,
) -> None:
    """A fit against plain fine-tuning alone; all else in the file stays as it is."""
    now = circumstances()
    report = read(json_file) or dict(now)
    found = fitting(QUICK if quick else Settings(), images, epochs)
    report["fit"] = {"date": now["date"], "commit": now["commit"]} | found
    keep(report, json_file)
    print(tables(now | {name: report[name] for name in ("fit", "targets")}))


@app.command()
def memory(json_file: Json = None, quick: Quick = False) -> None:
    """Memory of fits on few and on many images; all else in the file stays as it is."""
    now = circumstances()
    report = read(json_file) or dict(now)
    report["fit_memory"] = now | {"records": memory_of_fits(QUICK if quick else Settings())}
    keep(report, json_file)
    print(tables(now | {name: report[name] for name in ("fit_memory", "targets")}))


@app.command()
def gpu(
    json_file: Json = None,
    rounds: Annotated[int, typer.Option(help="Turns of each candidate.", min=1)] = 5,
    device: Annotated[str, typer.Option(help="Name of a device of torch.")] = "cuda",
    quick: Quick = False,
) -> None:
    """Predictions on a GPU: batches, steps and draws, beside floors on the same device."""
    settings = replace(QUICK if quick else Settings(), device=device)
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    report = circumstances() | {"device": name, "rounds": rounds, "settings": asdict(settings)}
    report["predict"] = predictions(settings, rounds)
    report["predict"] += paper_predictions(settings, rounds)
    factor = Factor("default", settings, rounds)
    report["factors"] = {"steps": factor.steps(), "draws": factor.draws()}
    report["v1_factors"] = {"steps": Factor.of_v1(settings, rounds).steps()}
    keep(report, json_file)
    print(tables(report))


@app.command("precisions")
def of_precisions(
    csv: Annotated[Path, typer.Argument(help="CSV file with the columns file, label and split.")],
    model: Annotated[str, typer.Option(help="Name or folder.")] = "diffmic-v2-aptos",
    calibration: Annotated[int, typer.Option(help="Training images for int8.", min=1)] = 64,
) -> None:
    """Exported files in float32, float16 and int8, over the part "val" of a table; prints JSON."""
    found = precisions(model, read_csv(csv), calibration)
    print(json.dumps(circumstances() | {"precisions": found}, indent=1))


@app.command()
def ray(
    images: Annotated[int, typer.Option(help="JPEG files to predict.", min=8)] = 768,
    workers: Annotated[int, typer.Option(help="Workers of one thread each.", min=1)] = 1,
    rounds: Annotated[int, typer.Option(help="Turns of each candidate.", min=1)] = 3,
    quick: Quick = False,
) -> None:
    """Images of a CPU second: a worker of Ray Data beside one process; prints JSON."""
    from speed_bench.scale import through_ray

    found = through_ray(QUICK if quick else Settings(), images, workers, rounds)
    print(json.dumps(circumstances() | found, indent=1))


def read(file: Path | None) -> dict[str, Any]:
    """An earlier report; empty where there is none."""
    if file is None or not file.is_file():
        return {}
    report: dict[str, Any] = json.loads(file.read_text())
    return report


def keep(report: dict[str, Any], file: Path | None) -> None:
    """Judge the report, and write it where it is to be kept."""
    report["targets"] = verdicts(report)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(report, indent=1))


def circumstances() -> dict[str, Any]:
    """What figures depend on."""
    names = ("diffmic", "torch", "torchvision", "timm", "numpy")
    return {
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "processor": processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "allocator": {n: os.environ[n] for n in ALLOCATOR if n in os.environ},
        "versions": {"python": platform.python_version()} | {n: version(n) for n in names},
    }


def commit() -> str | None:
    """The checkout's, marked where files differ from it; None outside of one."""
    describe = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=, changed"]
    try:
        done = subprocess.run(
            describe, cwd=Path(__file__).parent, check=True, capture_output=True, text=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def processor() -> str:
    """Its name, where the system tells."""
    file = Path("/proc/cpuinfo")
    if file.is_file():
        for line in file.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@app.command()
def page(
    image: Annotated[Path, typer.Argument(help="Image to upload.", exists=True, dir_okay=False)],
    model: Annotated[str, typer.Option(help="Name or folder.")] = "diffmic-v2-aptos",
    calls: Annotated[int, typer.Option(help="Uploads of it, one after the other.", min=3)] = 12,
) -> None:
    """Milliseconds from a file to all that the page shows of it, without gradio and a browser."""
    from diffmic import DiffMICClassifier
    from diffmic.app.page import Page

    handler, spans = Page(DiffMICClassifier.from_pretrained(model)), []
    for _ in range(calls):
        started = time.perf_counter()
        handler.show(str(image), None, None)
        spans.append(1000 * (time.perf_counter() - started))
    later = sorted(spans[2:])  # after a warm-up
    told = f"first call {spans[0]:.0f} ms, then {later[0]:.0f}–{later[-1]:.0f} ms"
    print(f"{torch.get_num_threads()} threads: {told}, median {median(later):.0f} ms")


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
