"""What is aimed at: each ratio with its limit."""

from collections.abc import Callable
from typing import Any, NamedTuple

from .timing import ratio

Report = dict[str, Any]


class Target(NamedTuple):
    """A figure of a report, and what it is to be."""

    what: str
    found: Callable[[Report], float]
    limit: float
    at_least: bool = False


def times(record: Report, name: str, floor: str) -> float:
    """How many times as long a candidate takes as another of the same race."""
    return ratio(record["seconds"][name], record["seconds"][floor])


def _prediction(model: str, batch: int, name: str, floor: str) -> Callable[[Report], float]:
    def found(report: Report) -> float:
        records = {(r["model"], r["images"]): r for r in report["predict"]}
        return times(records[model, batch], name, floor)

    return found


def _factor(name: str, value: str, usual: str) -> Callable[[Report], float]:
    return lambda report: times(report["factors"][name][0], value, usual)


def _exported(batch: int) -> Callable[[Report], float]:
    def found(report: Report) -> float:
        records = {record["images"]: record for record in report["factors"]["exported"]}
        return times(records[batch], "exported file", "encoder by ONNX Runtime")

    return found


def _sampling(precision: str) -> Callable[[Report], float]:
    return lambda report: times(report["paper"]["sampling"], precision, f"reading in {precision}")


def _importing(name: str) -> Callable[[Report], float]:
    return lambda report: times(report["imports"], name, "torch and scikit-learn")


def _growth(kind: str) -> Callable[[Report], float]:
    """MB by which the fit on most images is above that on fewest."""

    def found(report: Report) -> float:
        records = [r for r in report["fit_memory"]["records"] if r["kind"] == kind]
        few, *_, many = sorted(records, key=lambda record: int(record["images"]))
        return float(many["above_mb"] - few["above_mb"])

    return found


def _value(part: str, name: str) -> Callable[[Report], float]:
    return lambda report: float(report[part][name])


TARGETS = [
    Target("default, batch 1 / its encoder", _prediction("default", 1, "auto", "encoder"), 0.6),
    Target("default, batch 32 / its encoder", _prediction("default", 32, "auto", "encoder"), 0.45),
    Target("plain engine, batch 1 / encoder", _prediction("default", 1, "plain", "encoder"), 1.15),
    Target("plain engine, batch 32 / encoder", _prediction("default", 32, "plain", "encoder"), 1.1),
    Target("default, 50 steps / 10 steps", _factor("steps", "50", "10"), 1.5),
    Target("default, 16 draws / 1 draw", _factor("draws", "16", "1"), 1.3),
    Target("exported, batch 1 / encoder by ONNX Runtime", _exported(1), 1.6),
    Target("exported, batch 32 / encoder by ONNX Runtime", _exported(32), 1.2),
    Target("paper, fp32, batch 8 / resnet18", _prediction("paper-v2", 8, "fp32", "resnet18"), 8),
    Target("paper, fp32, batch 1 / resnet18", _prediction("paper-v2", 1, "fp32", "resnet18"), 11),
    Target("or its sampling / reading the wide weights as often", _sampling("fp32"), 1.1),
    Target("paper, bf16, batch 8 / resnet18", _prediction("paper-v2", 8, "bf16", "resnet18"), 5),
    Target("paper, bf16, batch 1 / resnet18", _prediction("paper-v2", 1, "bf16", "resnet18"), 7.4),
    Target("or its sampling / reading the wide weights as often", _sampling("bf16"), 1.1),
    Target("paper, scores: difference to the plain form", _value("paper", "scores_differ"), 1e-5),
    Target("paper, probabilities: bf16 to fp32", _value("paper", "probabilities_differ"), 0.01),
    Target("default fit / plain fine-tuning", _value("fit", "ratio_to_plain"), 1.3),
    Target("encoding / stage two, an image", _value("fit", "encoding_to_stage_two"), 50, True),
    Target("import diffmic / import torch, sklearn", _importing("diffmic"), 1.1),
    Target("import of its estimator / import torch, sklearn", _importing("its estimator"), 1.1),
    Target("memory of a fit, most images above fewest: JPEG, MB", _growth("JPEG files"), 50),
    Target("memory of a fit, most images above fewest: array, MB", _growth("array"), 50),
]


def verdicts(report: Report) -> list[dict[str, Any]]:
    """Each target with what was found and whether that is met, as far as it was measured."""
    if "device" in report:
        return []  # they are of a CPU
    rows = []
    for target in TARGETS:
        try:
            found = target.found(report)
        except KeyError:
            continue  # that part was left out
        met = found >= target.limit if target.at_least else found <= target.limit
        kind = "at least" if target.at_least else "at most"
        rows.append({"what": target.what, "found": found, kind: target.limit, "met": met})
    return rows
