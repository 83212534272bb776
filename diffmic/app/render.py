"""A finding as HTML: probabilities, doubt, the image with its regions, and the label maps."""

import base64
import html
import io
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ..diffusion.guidance import expand_distances
from ..inference import Explanation, Uncertainty
from .finding import Finding

Floats = NDArray[np.float64]
MOST_CLASSES = 8  # whose saliency and label maps are shown: the most probable
MOST_STEPS = 20  # of the sampler that are shown
UNUSUAL = 0.05  # share of held-out images farther away, below which an image is called unusual
DOUBTFUL = 0.05  # p-value above which other draws may decide otherwise


def message(text: str, kind: str = "error") -> str:
    """A message in a box: an ``error`` or a ``note``."""
    role = "alert" if kind == "error" else "note"
    return f'<p class="dm-{kind}" role="{role}">{html.escape(text)}</p>'


def probability_table(
    proba: dict[str, Floats],
    names: Sequence[str],
    chosen: Sequence[int],
    *,
    ordered: bool = False,
    population: str = "",
) -> str:
    """What is predicted, and the probabilities of each class by diffusion and prior.

    ``proba`` begins with the stage that counts; ``chosen`` are the indices of the predicted
    classes. Classes that are ``ordered`` keep their order, others are shown by probability.
    ``population`` is a sentence on class shares other than those in training.
    """
    first = next(iter(proba.values()))
    order = range(len(names)) if ordered else np.argsort(-first, kind="stable").tolist()
    told = ", ".join(names[i] for i in chosen) or "none of the labels"
    certain = f" ({_percent(first[chosen[0]])})" if len(chosen) == 1 else ""
    rows = []
    for i in order:
        bars = "".join(
            f'<div class="dm-bar dm-{stage}"><span style="width:{100 * p[i]:.2f}%"></span></div>'
            for stage, p in proba.items()
        )
        figures = "".join(f'<td class="dm-figure">{_percent(p[i])}</td>' for p in proba.values())
        mark = ' class="dm-chosen"' if i in chosen else ""
        name = html.escape(names[i])
        rows.append(f'<tr{mark}><th scope="row">{name}</th><td>{bars}</td>{figures}</tr>')
    heads = "".join(
        f'<th scope="col" class="dm-figure"><i class="dm-key dm-{stage}"></i>{stage}</th>'
        for stage in proba
    )
    note = f"<p>{html.escape(population)}</p>" if population else ""
    return (
        f'<h3>Predicted: <span class="dm-told">{html.escape(told)}</span>{certain}</h3>{note}'
        '<table class="dm-table"><thead><tr><th scope="col">class</th>'
        f"<td></td>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def doubt_table(found: Uncertainty | None, names: Sequence[str], n_draws: int) -> str:
    """How sure the prediction is, in words and figures."""
    if found is None:
        return message("The model has no diffusion stage, so its draws tell no doubt.", "note")
    rows: list[tuple[str, str]] = []
    if found.exclusive:
        most = np.log(len(names))
        chosen = html.escape(names[int(found.proba[0].argmax())])
        p = float(found.p_value[0])
        rows += [
            ("Entropy", f"{found.entropy[0]:.3f} of at most {most:.2f} nats"),
            (
                "Of it, disagreement of draws",
                f"{found.mutual_information[0]:.3f} nats (mutual information)",
            ),
            (
                "Spread of draws",
                f"95 % of {n_draws} draws lie within {_points(found.interval_width[0])} for "
                f"{chosen}",
            ),
            ("Might other draws decide otherwise?", f"{_hardly(p)} ({_p_value(p)})"),
        ]
    like = "The model cannot tell."
    if found.farther is not None:
        share = float(found.farther[0])
        like = f"of the held-out images, {_percent(share)} are less like the others than this."
        if share < UNUSUAL:
            like = f"<strong>Unusual image:</strong> {like} Its probabilities may not hold."
        else:
            like = f"Yes: {like}"
    rows.append(("Like the held-out images of the fit?", like))
    body = "".join(f'<tr><th scope="row">{a}</th><td>{b}</td></tr>' for a, b in rows)
    table = f'<table class="dm-table dm-doubt"><tbody>{body}</tbody></table>'
    if found.exclusive:
        return table
    order = np.argsort(-found.proba[0], kind="stable").tolist()
    each = "".join(
        f'<tr><th scope="row">{html.escape(names[i])}</th><td>{found.entropy[0, i]:.3f}</td>'
        f"<td>{_points(found.interval_width[0, i])}</td>"
        f"<td>{_hardly(float(found.p_value[0, i]))}</td></tr>"
        for i in order
    )
    return (
        f'{table}<div class="dm-scroll"><table class="dm-table"><thead><tr>'
        '<th scope="col">label</th>'
        '<th scope="col">entropy (nats)</th>'
        f'<th scope="col">95 % of {n_draws} draws lie within</th>'
        '<th scope="col">might other draws decide otherwise?</th></tr></thead>'
        f"<tbody>{each}</tbody></table></div>"
    )


def picture(finding: Finding, names: Sequence[str], proba: Floats) -> str:
    """The image with the saliency of a class that can be chosen, and the regions."""
    found = finding.explanation
    height, width = found.sizes[0].tolist()
    x0, y0, x1, y1 = found.frames[0].tolist()
    shown = _most_probable(proba)
    evidence = found.evidence(0)
    maps = "".join(
        f'<image class="dm-heat" data-part="saliency" data-at="{i}" x="{x0}" y="{y0}" '
        f'width="{x1 - x0}" height="{y1 - y0}" preserveAspectRatio="none" '
        f'href="{_heat(evidence[i])}"{"" if i == shown[0] else _HIDDEN}/>'
        for i in shown
    )
    attention = found.attention[0]
    stroke = max(height, width) / 160
    frames = "".join(
        f'<rect x="{a:.1f}" y="{b:.1f}" width="{c - a:.1f}" height="{d - b:.1f}" fill="none" '
        f'stroke="#ffb000" stroke-width="{stroke * (0.4 + w / attention.max()):.2f}" '
        f'stroke-opacity="{0.4 + 0.6 * w / attention.max():.2f}">'
        f"<title>attention {_percent(w)}</title></rect>"
        for (a, b, c, d), w in zip(found.boxes[0].tolist(), attention.tolist(), strict=True)
    )
    options = "".join(f'<option value="{i}">{html.escape(names[i])}</option>' for i in shown)
    told = "for one class against the mean of all" if found.exclusive else "for one label"
    return (
        f'<div class="dm-controls"><label>Saliency <select data-shows="saliency">{options}'
        '<option value="">none</option></select></label>'
        '<label><input type="checkbox" data-shows="regions" value="1" checked> Regions</label>'
        f'</div><svg class="dm-image" viewBox="0 0 {width} {height}" role="img" '
        'aria-label="The image, with saliency and regions">'
        f'<image width="{width}" height="{height}" preserveAspectRatio="none" '
        f'href="{_uri(finding.picture, "jpeg")}"/>{maps}'
        f'<g data-part="regions" data-at="1">{frames}</g></svg>'
        f"<p>Yellow to red: what speaks {told}. Frames: regions that the model read; the thicker, "
        "the more attention.</p>"
    )


def label_maps(found: Explanation, names: Sequence[str], proba: Floats) -> str:
    """The label map of the most probable classes at each step of the sampler, with a slider."""
    if found.noisy_maps is None or found.clean_maps is None:
        return ""
    shown = _most_probable(proba)
    kept = np.unique(
        np.linspace(0, len(found.noisy_maps[0]) - 1, MOST_STEPS).round().astype(int)
    ).tolist()
    heads = "".join(f'<th scope="col">{html.escape(names[i])}</th>' for i in shown)
    total = len(found.noisy_maps[0])
    steps = []
    for number, step in enumerate(kept):
        rows = ""
        for label, maps, (low, high) in (
            ("noisy map", found.noisy_maps, (-2.0, 2.0)),
            ("estimate", found.clean_maps, (0.0, 1.0)),
        ):
            full = expand_distances(torch.from_numpy(maps[0, step])).numpy()  # (K, K, C)
            cells = "".join(
                f'<td><img alt="" src="{_gray(full[..., i], low, high)}">'
                f"<span>{full[..., i].mean():.2f}</span></td>"
                for i in shown
            )
            rows += f'<tr><th scope="row">{label}</th>{cells}</tr>'
        steps.append(
            f'<div data-part="step" data-at="{number}"'
            f"{'' if number == len(kept) - 1 else _HIDDEN}>"
            f"<p>Step {step + 1} of {total}</p>"
            f'<table class="dm-maps"><thead><tr><td></td>{heads}</tr></thead>'
            f"<tbody>{rows}</tbody></table></div>"
        )
    last = len(kept) - 1
    slider = (
        f'<label class="dm-steps">Step of the sampler <input type="range" min="0" max="{last}" '
        f'value="{last}" data-shows="step"></label>'
    )
    return (
        f'{slider}<div class="dm-scroll">{"".join(steps)}</div>'
        "<p>One draw as it is denoised, and below it the estimate of the clean map in the mean of "
        "all draws, with its mean value: white is 1, black is 0 (noisy map: 2 and −2).</p>"
    )


_HIDDEN = ' style="display:none"'


def _most_probable(proba: Floats) -> list[int]:
    found: list[int] = np.argsort(-proba, kind="stable")[:MOST_CLASSES].tolist()
    return found


def _heat(evidence: NDArray[np.float32]) -> str:
    """Evidence above its mean as a small picture, the more the redder and the more opaque."""
    above = (evidence - evidence.mean()).clip(0)
    strength = above / max(float(above.max()), float(np.finfo(np.float32).tiny))
    colours = np.zeros((*strength.shape, 4))
    colours[..., 0] = 255
    colours[..., 1] = 230 * (1 - strength)
    colours[..., 3] = 165 * strength
    return _png(colours.round().astype(np.uint8))


def _gray(values: NDArray[np.float32], low: float, high: float) -> str:
    return _png((255 * ((values - low) / (high - low)).clip(0, 1)).round().astype(np.uint8))


def _png(pixels: NDArray[np.uint8]) -> str:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=1)
    return _uri(stream.getvalue(), "png")


def _uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _percent(share: float) -> str:
    """A share in percent, of which none is 0 or 100 by rounding alone."""
    percent = 100 * float(share)
    if 0 < percent < 0.1:
        return "< 0.1 %"
    if 99.9 < percent < 100:
        return "> 99.9 %"
    return f"{percent:.1f} %"


def _points(width: float) -> str:
    points = 100 * float(width)
    return "0.1 percentage points" if points < 0.1 else f"{points:.1f} percentage points"


def _hardly(p: float) -> str:
    return "perhaps" if p > DOUBTFUL else "hardly"


def _p_value(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
