"""The model card: a ``README.md`` next to the weights, generated from the measured metrics."""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from string import Template
from typing import Any

from ..errors import InputError
from ..inference import EvaluationReport
from ..tasks import METRIC_WORDS as WORDS
from .card_calibration import calibration_told, in_a_line

Scores = Mapping[Any, Mapping[str, float]]  # stage → metric → value

# Names of metrics in the Hub's evaluate library.
HUB_METRICS = {"macro_f1": "f1", "auc": "roc_auc", "kappa": "cohen_kappa"}

NOT_SPECIFIED = "Not specified."
_MARK = "<!-- Made by diffmic; a card that was changed is kept. {} -->\n"

_CODE = """\
proba = clf.predict_proba(["image.png"])  # (1, {n_classes}): {columns}
prior = clf.predict_proba(["image.png"], stage="prior")  # without the diffusion stage"""
_PRIOR_CODE = """\
proba = clf.predict_proba(["image.png"], stage="prior")  # (1, {n_classes}): {columns}
# The diffusion stage was not trained."""
_TEXT = Template(
    """\
# $title

$summary

**Not a medical device.** Nothing here has been tested for diagnosis, and no person should be
treated by what it says.

## Use

```python
from diffmic import DiffMICClassifier

clf = DiffMICClassifier.from_pretrained($quoted_name)
$code
```

Images go in as they are, as files, arrays or tensors: the model resizes $what to
$size × $size pixels and normalises them.$zoom

## Results

$results

Prior: the probabilities before the diffusion stage. $calibration

## Data

- **Data set**: $dataset
- **Split**: $split
- **Licence**: $license_note
$labels
## Intended use

$intended_use

## Limits

$limits

## Model

$method as implemented in `diffmic`: backbone
`$backbone`, $n_classes $kind, $denoised; by default $num_steps steps
and $n_draws draws a prediction. Trained with $versions.
"""
)

_METHODS = {
    "label-map": "[DiffMIC-v2](https://doi.org/10.1109/TMI.2025.3530399)",
    "drift": "[DiffMIC](https://arxiv.org/abs/2303.10610) (v1)",
}
_DENOISED = {
    "label-map": "a label map of {0} × {0}",
    "drift": "a vector of class probabilities that drifts to the prior",
}
_ZOOM = """ It also reads {n_regions} regions of the original
image, each as {region_size} × {region_size} pixels: the share that such a crop has of an image
whose sides are its `zoom_size`, {zoom_size} pixels."""


@dataclass(frozen=True)
class ModelCard:
    """Contents of a model card that are not in the model: data, licence, use, test results.

    Attributes
    ----------
    summary : str
        Sentence that says what the model classifies.
    dataset, dataset_url : str
        Name and URL of the data set.
    license : str or None
        Licence identifier of the Hugging Face Hub, such as ``"apache-2.0"`` or ``"other"``.
    license_note : str
        Licence terms of weights and images, as text.
    split : str
        How the data were split into training, validation and test parts.
    intended_use, limits : str
        Intended use, and limitations.
    test_scores : EvaluationReport, or dict of str to dict of str to float
        Metrics on the test part: what ``DiffMICClassifier.evaluate`` returns, whose tables are then
        the card's block of results; or plain metrics of the stages. They are not updated: pass new
        ones after changing the numbers of steps or draws.
    n_test : int or None
        Number of images in the test part; None: that of the report.
    test_report : str
        Tables of the report, in Markdown; set automatically when a model is saved with one.
    base_model : str
        Repository on the Hub with the weights from which training started; set automatically when
        a model that started from timm's pretrained weights is saved, or from a loaded model.
    started_from : str
        Sentences on the loaded model from which training started (warm start); set automatically.
    """

    summary: str = ""
    dataset: str = ""
    dataset_url: str = ""
    license: str | None = None
    license_note: str = ""
    split: str = ""
    intended_use: str = ""
    limits: str = ""
    test_scores: Scores = field(default_factory=dict)
    n_test: int | None = None
    test_report: str = ""
    base_model: str = ""
    started_from: str = ""


def card_of_finetuned(name: str, card: ModelCard, *, base_model: str) -> ModelCard:
    """Card of a model whose training starts from a loaded one, of this name and card.

    ``base_model`` is the repository on the Hub of its weights, or another name for them; empty:
    there is none.
    """
    told = [f"Fine-tuned from `{in_a_line(name)}`, a model of diffmic."]
    if card.dataset:
        told.append(f"That model was trained on {in_a_line(card.dataset).rstrip('.')}.")
    if licence := card.license_note or card.license:
        told.append(f"Licence of that model: {in_a_line(licence).rstrip('.')}.")
    return ModelCard(base_model=base_model, started_from=" ".join(told))


def card_text(
    card: ModelCard, *, name: str, config: Mapping[str, Any], validation_scores: Scores
) -> str:
    """Text of the card in Markdown, with the metadata of the Hub as its header.

    ``name`` is that by which ``from_pretrained`` loads the model; ``config`` is its configuration,
    and ``validation_scores`` are the cross-fitted metrics on the validation part.
    """
    name = _utf_8(name)
    classes, network, sampling = config["classes"], config["network"], config["sampling"]
    names = [in_a_line(name) for name in config["parameters"]["class_names"] or classes]
    backbone, architecture = network["backbone"], network["architecture"]
    if own_prior := architecture.get("prior"):
        backbone = in_a_line(own_prior["own"])
    elif not isinstance(backbone, str):
        backbone = backbone["module"]
    process = network["diffusion"].get("process", "label-map")
    own_process = "" if isinstance(process, str) else f", with the process `{process['own']}`,"
    process = "label-map" if own_process else process
    summary = card.summary or "A classifier of images."
    dataset = f"[{card.dataset}]({card.dataset_url})" if card.dataset_url else card.dataset
    text = _TEXT.substitute(
        title=name.rpartition("/")[2],
        quoted_name=json.dumps(name, ensure_ascii=False),
        code=(_CODE if "diffusion" in config["calibrations"] else _PRIOR_CODE).format(
            n_classes=len(classes), columns=", ".join(names)
        ),
        calibration=calibration_told(config),
        summary="\n\n".join(filter(None, (summary, card.started_from))),
        n_classes=len(classes),
        kind="labels" if config["task"] == "multilabel" else "classes",
        what="their central square" if config["preprocessing"].get("crop") else "them",
        size=config["preprocessing"]["image_size"],
        zoom=_ZOOM.format(**architecture) if architecture.get("regions") == "zoom" else "",
        results=_results(card, validation_scores),
        dataset=dataset or NOT_SPECIFIED,
        split=card.split or NOT_SPECIFIED,
        license_note=card.license_note or card.license or NOT_SPECIFIED,
        labels=_labels(config, names),
        intended_use=card.intended_use or NOT_SPECIFIED,
        limits=card.limits or NOT_SPECIFIED,
        backbone=backbone,
        method=_METHODS[process] + in_a_line(own_process),
        denoised=_DENOISED[process].format(architecture["n_regions"]),
        num_steps=sampling["num_steps"],
        n_draws=sampling["n_draws"],
        versions=", ".join(f"{package} {number}" for package, number in config["versions"].items()),
    )
    return sealed(f"---\n{_metadata(card, name)}---\n{_utf_8(text)}")


def _labels(config: Mapping[str, Any], names: list[str]) -> str:
    """Table of the training labels, if some are unknown."""
    counts = (config.get("label_counts") or {}).get("training", {})
    if not any(counts.get("unknown", ())):
        return ""
    columns = [counts[name] for name in ("positive", "negative", "unknown")]
    lines = [
        "",
        "Not every label is known of every image. Numbers of training images:",
        "",
        "| | present | absent | unknown |",
        "|---|---|---|---|",
    ]
    for name, *row in zip(names, *columns, strict=False):
        lines.append(f"| {name.replace('|', '/')} | {' | '.join(map(str, row))} |")
    return "\n".join([*lines, ""])


def _utf_8(text: str) -> str:
    """Text with a question mark for what is not UTF-8, as in the names of some files."""
    return text.encode(errors="replace").decode()


def sealed(text: str) -> str:
    """Text followed by a hash of its content, which reveals edits by hand."""
    return text + "\n" + _MARK.format(_seal(text))


def is_generated(text: str) -> bool:
    """Whether a card was generated by diffmic and not edited since."""
    body, found, mark = text.rpartition("\n<!-- ")
    return bool(found) and found[1:] + mark == _MARK.format(_seal(body))


def _seal(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _results(card: ModelCard, validation_scores: Scores) -> str:
    """Tables of the metrics, first on the test part."""
    images = "" if card.n_test is None else f", {card.n_test} images"
    test = "No metrics on a test part were given."
    if card.test_scores:
        block = card.test_report if _is_of(card) else _table(card.test_scores)
        test = f"Test part{images}:\n\n{block}"
    if not validation_scores:
        validation = "There are no cross-fitted metrics on a validation part."
    else:
        validation = (
            "Validation part, on which training was stopped and probabilities were calibrated. "
            "Cross-fitted: no image is measured by a calibration or threshold that was fitted on "
            f"it.\n\n{_table(validation_scores)}"
        )
        if "diffusion_alone" in validation_scores:
            validation += "\n\nDiffusion alone: without the prior's logits in its calibration."
    return f"{test}\n\n{validation}"


def _is_of(card: ModelCard) -> bool:
    """Whether the tables of a card's report are those of its metrics, which may be newer."""
    values = [value for of in card.test_scores.values() for value in of.values()]
    return all(f"{value:.3f}" in card.test_report for value in values if not math.isnan(value))


def _table(scores: Scores) -> str:
    stages = [stage for stage in ("prior", "diffusion", "diffusion_alone") if stage in scores]
    rule = "|---" * (len(stages) + 1) + "|"
    lines = [f"| | {' | '.join(stages).replace('_', ' ')} |", rule]
    lines += [
        f"| {words} | {' | '.join(f'{scores[stage][name]:.3f}' for stage in stages)} |"
        for name, words in WORDS.items()
        if name in scores["prior"]
    ]
    return "\n".join(lines)


def _metadata(card: ModelCard, name: str) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="image-classification",
            dataset_type=re.sub(r"\W+", "-", card.dataset.lower()).strip("-") or "unknown",
            dataset_name=card.dataset or "unknown",
            dataset_split="test",
            metric_type=HUB_METRICS.get(metric, metric),
            metric_name=f"{WORDS[metric]} ({stage})",
            metric_value=round(float(card.test_scores[stage][metric]), 4),
        )
        for stage in ("prior", "diffusion")
        for metric in WORDS
        if math.isfinite(card.test_scores.get(stage, {}).get(metric, math.nan))
    ]
    data = ModelCardData(
        library_name="diffmic",
        pipeline_tag="image-classification",
        license=card.license,
        license_name="see-the-card" if card.license == "other" else None,
        base_model=card.base_model or None,
        tags=["medical", "diffusion", "timm", "calibration"],
        model_name=name.rpartition("/")[2] if results else None,
        eval_results=results or None,
    )
    return data.to_yaml() + "\n"


def checked_card(card: Any) -> ModelCard:
    """Card with numbers as plain Python types; an InputError names a field of a wrong type."""
    if not isinstance(card, ModelCard):
        raise InputError(f"card is {type(card).__name__}; give a diffmic.ModelCard.")
    for name, value in vars(card).items():
        if name not in ("test_scores", "n_test", "license") and not isinstance(value, str):
            raise InputError(f"{name} of the card is {value!r}; give a string.")
    if not isinstance(card.license, (str, type(None))):
        raise InputError(f"license of the card is {card.license!r}; give an identifier, or None.")
    if not isinstance(card.n_test, (Integral, type(None))):
        raise InputError(f"n_test of the card is {card.n_test!r}; give a whole number, or None.")
    scores = card.test_scores
    stages = set(scores) if isinstance(scores, Mapping) else {None}
    known = {"prior", "diffusion", "diffusion_alone"}
    complete = not stages or ("prior" in stages and stages <= known)
    if not complete or not all(
        isinstance(metrics, Mapping)
        and all(isinstance(value, Real) and not math.isinf(value) for value in metrics.values())
        for metrics in scores.values()
    ):
        raise InputError(
            f"test_scores of the card is {str(scores)[:80]}; give what evaluate(X, y) returns, "
            "or the metrics of its stages."
        )
    if isinstance(scores, EvaluationReport):
        n_test = scores.n_images if card.n_test is None else card.n_test
        card = replace(card, test_report=scores.to_markdown(), n_test=n_test)
    checked: ModelCard = replace(
        card,
        test_scores={
            stage: {name: float(value) for name, value in metrics.items()}
            for stage, metrics in card.test_scores.items()
        },
        n_test=None if card.n_test is None else int(card.n_test),
    )
    return checked
