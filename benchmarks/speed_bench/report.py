"""What the records say, as Markdown tables."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from .targets import Report, times

FLOORS = ("encoder", "resnet18")


def tables(report: Report) -> str:
    """All that was measured; ratios are medians over the rounds of those of each round."""
    versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    commit = f"; commit {report['commit']}" if report.get("commit") else ""
    rounds = f"; {report['rounds']} rounds" if "rounds" in report else ""
    memory_by = "".join(f"; {n}={value}" for n, value in report.get("allocator", {}).items())
    device = f"{report['device']}, " if "device" in report else ""
    parts = [
        f"{report['date']}, {device}{report['processor']} ({report['instructions']}), "
        f"{report['threads']} of {report['cores']} cores; {versions}{commit}{memory_by}{rounds}."
    ]
    makers: dict[str, Callable[[Any], str]] = {
        "targets": targets,
        "engine": engines,
        "stages": stages,
        "compile": compiled,
        "imports": imports,
        "shards": shards,
        "fit": fit,
        "pipeline": pipeline,
        "memory": memory,
        "fit_memory": fit_memory,
    }
    if any(report.get(name) for name in ("predict", "factors", "paper_factors", "v1_factors")):
        parts.append(predictions(report))
    parts += [make(report[name]) for name, make in makers.items() if report.get(name)]
    return "\n\n".join(parts) + "\n"


def predictions(report: Report) -> str:
    """Every way to predict against the floors: one forward pass of timm's models."""
    records = [("", record) for record in report.get("predict", [])]
    records += [
        (factor, record)
        for part in ("factors", "paper_factors", "v1_factors")
        for factor, found in report.get(part, {}).items()
        for record in found
    ]
    rows = [
        [
            f"{record['model']}, batch {record['images']}",
            f"{name} {factor}" if name.isdigit() else name,
            f"{ms_per_image(record, name):.2f}",
            f"{ms_per_image(record, 'encoder'):.2f}",
            *(f"{times(record, name, floor):.2f}" for floor in FLOORS),
        ]
        for factor, record in records
        for name in record["seconds"]
        if name not in FLOORS
    ]
    headers = ["arrangement", "how", "ms an image", "encoder, ms", "× encoder", "× resnet18"]
    return table("Predictions", headers, rows)


def engines(records: list[Report]) -> str:
    """How long making an engine takes."""
    rows = [
        [record["model"], kind, f"{np.median(seconds):.2f} s"]
        for record in records
        for kind, seconds in record["seconds"].items()
    ]
    return table("Making an engine", ["arrangement", "engine", "found"], rows)


def ms_per_image(record: Report, name: str) -> float:
    """Median over the rounds."""
    return 1000 * float(np.median(record["seconds"][name])) / int(record["images"])


def targets(found: list[Report]) -> str:
    """What was aimed at."""
    rows = [
        [
            row["what"],
            f"{row['found']:.4g}",
            next(f"{kind} {row[kind]:g}" for kind in ("at most", "at least") if kind in row),
            "yes" if row["met"] else "**no**",
        ]
        for row in found
    ]
    return table("Targets", ["ratio", "found", "wanted", "met"], rows)


def shares(record: Report) -> dict[str, float]:
    """Parts of a prediction, as shares of the whole."""
    of = {name: times(record, name, "whole") for name in record["seconds"]}
    found = {
        "reading and preprocessing": of["reading"],
        "backbone of the prior": of["backbone"],
        "rest of encoding": of["encode"] - of["backbone"],
        "sampling": of["sampling"],
        "calibration": of["calibration"],
    }
    return found | {"rest": 1 - sum(found.values())}


def stages(records: list[Report]) -> str:
    """Where the time of a prediction goes."""
    found = [shares(record) for record in records]
    rows = [[part, *(f"{100 * of[part]:.1f} %" for of in found)] for part in found[0]]
    headers = ["part", *(f"{r['model']}, batch {r['images']}" for r in records)]
    return table("Parts of a prediction", headers, rows)


def compiled(record: Report) -> str:
    """What compiling gains."""
    if "seconds" not in record:
        return f"## torch.compile\n\nGiven up after {record['given_up_after_seconds']:g} s."
    rows = [
        [
            name,
            f"{ms_per_image(record, name):.2f}",
            f"{ms_per_image(record, f'{name}, compiled'):.2f}",
            f"{times(record, f'{name}, compiled', name):.2f}",
            f"{seconds:.0f} s",
        ]
        for name, seconds in record["seconds_to_compile"].items()
    ]
    headers = ["part", "as it is, ms an image", "compiled, ms", "compiled / as it is", "compiling"]
    return table(f"torch.compile, {record['model']}, batch {record['images']}", headers, rows)


def imports(record: Report) -> str:
    """Whole processes that import something and end."""
    rows = [
        [
            name,
            f"{np.median(seconds):.2f} s",
            f"{times(record, name, next(iter(record['seconds']))):.2f}",
        ]
        for name, seconds in record["seconds"].items()
    ]
    return table("Importing", ["what", "found", "× torch and scikit-learn"], rows)


def fit(record: Report) -> str:
    """Both stages beside plain fine-tuning, and where the time goes."""
    rows = [["plain fine-tuning", f"{record['plain_seconds']['whole']:.1f} s", ""]]
    rows += [
        [f"fit, {name}", f"{seconds:.1f} s", f"{100 * seconds / record['seconds']['whole']:.0f} %"]
        for name, seconds in record["seconds"].items()
    ]
    rows += [
        [f"fit / plain fine-tuning, reckoned for {int(n):,} images", f"{found:.2f}", ""]
        for n, found in record["ratio_reckoned_for"].items()
    ]
    rows += [
        ["a step of plain fine-tuning", f"{record['plain_ms_per_step']:.0f} ms", ""],
        ["encoding an image", f"{record['encoding_ms_per_image']:.3g} ms", ""],
        ["stage two, a cached image", f"{record['stage_two_ms_per_image']:.3g} ms", ""],
    ]
    title = (
        f"A fit of {record['epochs']} epochs on {record['images']['training']} images, "
        f"{record['images']['validation']} held out"
    ) + (f" ({record['date']})" if "date" in record else "")
    return table(title, ["what", "found", "share"], rows)


def shards(records: list[Report]) -> str:
    """What a machine does in an hour."""
    rows = [[str(r["processes"]), str(r["threads"]), f"{r['images_an_hour']:,}"] for r in records]
    title = "Images an hour from JPEG files, default model"
    return table(title, ["processes", "threads each", "images an hour"], rows)


def pipeline(records: list[Report]) -> str:
    """Whether the network waits for its images."""
    rows = [
        [
            r["images"],
            str(r["workers"]),
            f"{1000 * r['waiting'] / r['number']:.2f}",
            f"{100 * r['share']:.1f} %",
        ]
        for r in records
    ]
    title = f"Stage one waiting for images, an epoch of {records[0]['number']}"
    return table(title, ["images", "num_workers", "waiting, ms an image", "share"], rows)


def fit_memory(found: Report) -> str:
    """Peaks of fits on few and on many images."""
    rows = [[r["kind"], f"{r['images']:,}", f"{r['above_mb']:.0f}"] for r in found["records"]]
    title = f"Anonymous memory of a fit and a prediction, {found['date']}"
    return table(title, ["images", "number", "MB at the peak, above what was there before"], rows)


def memory(records: list[Report]) -> str:
    """Peaks above that of importing."""
    rows = [
        [f"{r['model']}, batch {r['images']}", r["what"], f"{r['above_importing_mb']:.0f}"]
        for r in records
    ]
    title = f"Peak memory above the {records[0]['importing_mb']:.0f} MB that importing takes"
    return table(title, ["arrangement", "what", "MB"], rows)


def table(title: str, headers: list[str], rows: Iterable[list[str]]) -> str:
    """A Markdown table with a heading."""
    lines = [f"| {' | '.join(headers)} |", "|---" * len(headers) + "|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return f"## {title}\n\n" + "\n".join(lines)
