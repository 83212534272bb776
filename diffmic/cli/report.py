"""Report of a training as one HTML file: metrics, figures, and the worst mistakes."""

import base64
import html
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..tasks import METRIC_WORDS

if TYPE_CHECKING:
    from ..classifier import DiffMICClassifier
    from ..inference import EvaluationReport
    from .training import Plan

_MISTAKES = 12  # that are shown
_STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --back: #fff; --line: #d0d7de; --faint: #4b545e;
  --box: #f3f5f7; --note: #fdf6ef }
@media (prefers-color-scheme: dark) { :root { --text: #e6e9ec; --back: #15181c; --line: #3a424b;
  --faint: #a9b2bc; --box: #21262c; --note: #2c2218 } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem;
  color: var(--text); background: var(--back); overflow-wrap: break-word }
h1, h2 { line-height: 1.2 } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line) }
.wide { overflow-x: auto } table { border-collapse: collapse; font-size: .9rem }
th, td { text-align: left; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top } td { font-variant-numeric: tabular-nums } td span { white-space: nowrap }
.note { border-left: 4px solid #c25e00; padding: .3rem .8rem; background: var(--note) }
figure { margin: 0 1rem 1.2rem 0; display: inline-block; vertical-align: top; max-width: 100% }
figure img { max-width: 100%; background: #fff }
figcaption { font-size: .85rem; color: var(--faint) }
.mistakes { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)) }
.mistakes figure { margin: 0 } .mistakes img { width: 100% }
.mistakes figcaption { overflow-wrap: anywhere }
pre { overflow-x: auto; background: var(--box); padding: .8rem; white-space: pre-wrap }
"""


def write_report(
    file: Path,
    clf: "DiffMICClassifier",
    plan: "Plan",
    report: "EvaluationReport | None",
    name: str,
) -> bool:
    """Write the report; returns whether it has pictures, which need matplotlib.

    ``report`` holds the metrics on the test part, if there is one; ``name`` is that of the data.
    """
    try:
        import matplotlib
    except ImportError:
        pictures = False
    else:
        matplotlib.use("Agg")
        pictures = True
    parts = [
        f"<h1>Report: {html.escape(name)}</h1>",
        '<p class="note"><strong>Not a medical device.</strong> One training, one split. Nothing '
        "here has been tested for diagnosis.</p>",
        "<h2>Plan</h2>",
        _table([], plan.rows()),
    ]
    if plan.found.problems:
        items = "".join(f"<li>{html.escape(problem)}</li>" for problem in plan.found.problems)
        parts.append(f"<p>The inspection of the images found:</p><ul>{items}</ul>")
    if report is None:
        parts += [
            "<h2>Validation part</h2><p>There was no test part. Training was stopped and "
            "probabilities were calibrated on these images, so that the figures flatter.</p>",
            _scores(clf.validation_scores_),
        ]
    else:
        parts += _measured(report)
    if pictures:
        parts += _figures(clf, report)
        if report is not None and plan.parts.test is not None:
            parts += _mistakes(clf, report, plan.parts.test)
    versions = ", ".join(f"{package} {number}" for package, number in clf.versions_.items())
    parts += ["<h2>Again</h2>", f"<pre>{html.escape(plan.command)}</pre>"]
    parts += [f"<p>{html.escape(versions)}</p>"]
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>diffmic: {html.escape(name)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )
    file.write_text(page, encoding="utf-8", errors="backslashreplace")
    return pictures


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of texts; the first cell of a row is its heading."""
    top = "".join(f"<th>{html.escape(cell)}</th>" for cell in heading)
    body = "".join(
        f"<tr><th>{html.escape(first)}</th>"
        + "".join(f"<td>{_cell(cell)}</td>" for cell in rest)
        + "</tr>"
        for first, *rest in rows
    )
    head = f"<tr>{top}</tr>" if top else ""
    return f'<div class="wide"><table>{head}{body}</table></div>'


def _cell(text: str) -> str:
    """A cell in which an interval, as of ``0.8 (0.7 to 0.9)``, is not broken over lines."""
    return re.sub(r" (\(\S+ to \S+\))$", r" <span>\1</span>", html.escape(text))


def _measured(report: "EvaluationReport") -> Iterator[str]:
    """Tables of a report: all metrics of each stage, then those of each class."""
    heading, rows = report.overall_table()
    if {"prior", "diffusion"} <= set(report):
        heading.append("diffusion less prior")
        for row, metric in zip(rows, report["prior"], strict=True):
            row.append(str(report.difference(metric)))
    units = "images" if report.groups is None else "groups of images"
    yield f"<h2>Test part: {report.n_images} images</h2>"
    yield f"<p>In brackets: 95 % intervals over {report.n_bootstrap} resamples of the {units}.</p>"
    yield _table(heading, rows)
    yield f"<p>Each class against all others, {_stage(report)}:</p>"
    yield _table(*report.class_table(_stage(report)))


def _scores(scores: Any) -> str:
    stages = list(scores)
    if not stages:
        return "<p>There was no validation part either.</p>"
    rows = [
        [METRIC_WORDS.get(m, m), *(f"{scores[s].get(m, float('nan')):.3f}" for s in stages)]
        for m in scores[stages[0]]
    ]
    return _table(["", *(stage.replace("_", " ") for stage in stages)], rows)


def _figures(clf: "DiffMICClassifier", report: "EvaluationReport | None") -> Iterator[str]:
    from ..plots import ConfusionDisplay, HistoryDisplay, ReliabilityDisplay, RiskCoverageDisplay

    yield "<h2>Figures</h2>"
    if report is not None:
        truth, classes = report.truth, report.classes
        shown = {s: report.proba[s] for s in ("diffusion", "prior") if s in report.proba}
        ReliabilityDisplay.from_predictions(truth, shown, classes=classes)
        yield _figure("Reliability: how often predictions of a probability are right.")
        if report.task.exclusive:
            ConfusionDisplay.from_predictions(
                truth, _decided(report), classes=classes, class_names=report.class_names
            )
            yield _figure("Confusion: share of each true class (rows) that is given each class.")
            RiskCoverageDisplay.from_predictions(truth, shown, classes=classes)
            yield _figure("Errors among the images that are most certain.")
    if clf.history_:
        HistoryDisplay.from_estimator(clf)
        yield _figure("History of the training.")


def _stage(report: "EvaluationReport") -> str:
    return "diffusion" if "diffusion" in report else "prior"


def _decided(report: "EvaluationReport") -> NDArray[Any]:
    stage = _stage(report)
    return report.task.decide(report.proba[stage], report.classes, report.thresholds.get(stage))


def _figure(caption: str, *, dpi: int = 110) -> str:
    """The present figure of matplotlib, embedded; it is closed."""
    import matplotlib.pyplot as plt

    stream = io.BytesIO()
    plt.savefig(stream, format="png", dpi=dpi, bbox_inches="tight")
    plt.close("all")
    picture = base64.b64encode(stream.getvalue()).decode()
    told = html.escape(caption)
    return (
        f'<figure><img alt="{told}" src="data:image/png;base64,{picture}">'
        f"<figcaption>{told}</figcaption></figure>"
    )


def _mistakes(clf: "DiffMICClassifier", report: "EvaluationReport", part: Any) -> Iterator[str]:
    """The test images of which the model was most sure and wrong, with the regions it read."""
    from ..plots import plot_regions

    proba, decided, names = report.proba[_stage(report)], _decided(report), report.class_names
    if report.task.exclusive:
        wrong = np.flatnonzero(decided != report.truth)
        doubt = proba.max(axis=1)
    else:
        truth = report.truth.astype(float)
        wrong = np.flatnonzero(((decided != truth) & ~np.isnan(truth)).any(axis=1))
        doubt = np.nanmax(np.where(decided == truth, 0, np.abs(proba - truth)), axis=1)
    worst = wrong[np.argsort(-doubt[wrong], kind="stable")][:_MISTAKES]
    yield "<h2>Worst mistakes</h2>"
    if not len(worst):
        yield "<p>There is none on the test part.</p>"
        return
    shown = "class that it was called" if report.task.exclusive else "most probable label"
    yield (
        f"<p>{len(wrong)} of {report.n_images} test images were decided wrongly. Here are those of "
        "which the model was most sure. Frames: regions it read, thicker with more attention; "
        f"colour: evidence for the {shown}.</p>"
        '<div class="mistakes">'
    )
    known = report.classes.tolist()
    for index in worst.tolist():
        image = part.images[index]
        explanation = clf.explain([image])
        chosen = int(proba[index].argmax())
        if report.task.exclusive:
            true, chosen = known.index(report.truth[index]), known.index(decided[index])
            told = f"{names[true]} ({proba[index, true]:.2f}) was called {names[chosen]} "
            told += f"({proba[index, chosen]:.2f})"
        else:
            told = f"true: {_listed(names, report.truth[index])}; "
            told += f"predicted: {_listed(names, decided[index])}"
        plot_regions(image, explanation, saliency=chosen)
        what = image.name if isinstance(image, Path) else f"test image {index}"
        yield _figure(f"{what}: {told}", dpi=80)
    yield "</div>"


def _listed(names: Sequence[str], row: NDArray[Any]) -> str:
    return ", ".join(n for n, present in zip(names, row, strict=True) if present == 1) or "none"
