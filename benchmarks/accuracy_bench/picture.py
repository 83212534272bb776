"""Pictures of what the accuracy benchmark found."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .results import POOLED, Differences

LABELS = {
    "macro_f1": "macro F1, ours − theirs",
    "nll": "log-likelihood, ours − theirs",
}
NAMES = {
    "plain": "plain fine-tuning",
    "larger by a third: plain": "plain fine-tuning, images a third larger",
    "plain_tta": "plain fine-tuning, five views",
    "prior": "its own prior",
    "head_linear": "a re-trained linear head",
    "head_linear_stacked": "a linear head and the prior's logits",
    "head_hidden": "a re-trained head of two layers",
    "head_hidden_stacked": "a head of two layers and the prior's logits",
}
BLUE, GREY = "#1f5f9f", "#8a8a8a"


def draw_differences(
    found: Differences, opponents: Sequence[str], file: Path, *, pooled_alone: bool = False
) -> None:
    """Differences with their intervals: a row per opponent and set, the pooled one on top."""
    sets = [] if pooled_alone else sorted({name for _, name in found} - {POOLED})
    sets = [POOLED, *sets]
    rows = [(o, s) for o in opponents for s in sets if (o, s) in found]
    figure = Figure(
        figsize=(9.5, 0.8 + (0.32 if pooled_alone else 0.21) * len(rows)), layout="constrained"
    )
    panels = figure.subplots(1, 2, sharey=True)
    present = list(dict.fromkeys(o for o, _ in rows))
    heights = -np.arange(len(rows)) - [0.8 * present.index(o) for o, _ in rows]
    for panel, (metric, label) in zip(panels, LABELS.items(), strict=True):
        for height, row in zip(heights, rows, strict=True):
            values = getattr(found[row], metric)
            low, high = np.percentile(values[1:], [2.5, 97.5])
            pooled = row[1] == POOLED
            panel.plot([low, high], [height, height], color=BLUE if pooled else GREY, lw=2)
            panel.plot(values[0], height, "D" if pooled else "o", color=BLUE if pooled else GREY)
        panel.axvline(0, color="black", linewidth=0.8, zorder=1)
        panel.set_xlabel(label)
        _tidy(panel, axis="x")
    if pooled_alone:
        counts = {o: sum(other == o for other, _ in found) - 1 for o in present}
        few = {o: f" ({n} sets)" if n < max(counts.values()) else "" for o, n in counts.items()}
        names = [f"against {NAMES[o]}{few[o]}" for o, _ in rows]
    else:
        names = [f"against {o}: pooled" if s == POOLED else s for o, s in rows]
    panels[0].set_yticks(heights, names)
    _save(figure, file)


def draw_curves(
    panels_of: dict[str, dict[float, dict[str, float]]], prior: dict[str, float], file: Path
) -> None:
    """Validation metrics against one factor a column; the prior's as a dashed line.

    Parameters
    ----------
    panels_of : dict
        Name of the factor → its values → metrics, means over the data sets.
    prior : dict
        Metrics of the prior.
    """
    metrics = {"nll": "negative log-likelihood", "macro_f1": "macro F1"}
    figure = Figure(figsize=(9.5, 5), layout="constrained")
    panels = figure.subplots(
        len(metrics), len(panels_of), sharex="col", sharey="row", squeeze=False
    )
    for row, (metric, label) in zip(panels, metrics.items(), strict=True):
        for panel, points in zip(row, panels_of.values(), strict=True):
            x = sorted(points)
            panel.plot(x, [points[v][metric] for v in x], "o-", color=BLUE, label="diffusion")
            panel.axhline(prior[metric], color=GREY, linestyle="--", label="its prior")
            panel.set_xscale("log")
            panel.set_xticks(x, [f"{v:g}" for v in x])
            panel.minorticks_off()
            _tidy(panel, axis="y")
        row[0].set_ylabel(label)
    for panel, factor in zip(panels[-1], panels_of, strict=True):
        panel.set_xlabel(f"{factor} (log scale)")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False)
    _save(figure, file)


def _tidy(panel: Axes, *, axis: str) -> None:
    panel.grid(axis=axis, color="#dddddd", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


def _save(figure: Figure, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=200)
