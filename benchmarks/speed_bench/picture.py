"""Cost of a prediction against steps, batch and classes."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .report import ms_per_image
from .targets import Report

OURS = {"color": "#1f5f9f", "marker": "o", "linestyle": "-", "label": "diffmic, the whole call"}
FLOOR = {
    "color": "#8a8a8a",
    "marker": "s",
    "markerfacecolor": "white",
    "linestyle": "--",
    "label": "its backbone, one forward pass",
}


def draw(report: Report, file: Path) -> None:
    """Milliseconds an image of the default model, and of its backbone alone, in three panels."""
    figure = Figure(figsize=(9.5, 3.2), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    by_factor = {"steps": "steps of the sampler", "classes": "classes"}
    for panel, (factor, label) in zip(panels[::2], by_factor.items(), strict=True):
        record = report["factors"][factor][0]
        values = [name for name in record["seconds"] if name.isdigit()]
        ours = [ms_per_image(record, name) for name in values]
        floor = [ms_per_image(record, "encoder")] * len(values)
        _draw(panel, [int(value) for value in values], ours, floor, label)
    batches = [record for record in report["predict"] if record["model"] == "default"]
    way = "auto" if "auto" in batches[0]["seconds"] else "fp32"  # as earlier files have it
    ours, floor = ([ms_per_image(r, name) for r in batches] for name in (way, "encoder"))
    _draw(panels[1], [record["images"] for record in batches], ours, floor, "images a batch")
    panels[0].set_ylabel("milliseconds an image")
    panels[0].set_ylim(0, 1.06 * panels[0].dataLim.union([p.dataLim for p in panels]).ymax)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=200)


def _draw(
    panel: Axes, x: Sequence[int], ours: Sequence[float], floor: Sequence[float], label: str
) -> None:
    panel.plot(x, ours, **OURS)
    panel.plot(x, floor, **FLOOR, zorder=1)
    panel.set_xscale("log")
    panel.set_xticks(x, [f"{value:,}" for value in x])
    panel.minorticks_off()
    panel.margins(x=0.08)
    panel.set_xlabel(f"{label} (log scale)")
    panel.grid(axis="y", color="#dddddd", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
