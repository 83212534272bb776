"""The model card: ``README.md`` beside the weights, made from what was measured."""

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

Measures = Mapping[Any, Mapping[str, float]]  # stage → measure → value

WORDS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "auc": "macro AUC",
    "kappa": "quadratic kappa",
    "nll": "negative log-likelihood",
    "brier": "Brier score",
    "ece": "expected calibration error",
}
# The Hub knows measures by the names of its evaluate library.
HUB_METRICS = {"macro_f1": "f1", "auc": "roc_auc", "kappa": "cohen_kappa"}

NOT_SAID = "Not said by whoever saved the model."
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

Images go in as they are, as files, arrays or tensors: the model resizes them to
$size × $size pixels and normalises them.

## Results

$results

Prior: the network's answer before the diffusion stage. $calibration

## Data

- **Data set**: $dataset
- **Split**: $split
- **Licence**: $license_note

## Intended use

$intended_use

## Limits

$limits

## Model

[DiffMIC-v2](https://doi.org/10.1109/TMI.2025.3530399) as `diffmic` implements it: backbone
`$backbone`, $n_classes $kind, a label map of $n_regions × $n_regions, $num_steps steps and
$n_samples draws a prediction unless told otherwise. Trained with $versions.
"""
)


@dataclass(frozen=True)
class ModelCard:
    """What people should know of a model that the model itself does not know.

    Attributes
    ----------
    summary : str
        A sentence: what it tells from what.
    dataset, dataset_url : str
        Name, and address.
    license : str or None
        Identifier of the Hugging Face Hub, such as ``"apache-2.0"`` or ``"other"``.
    license_note : str
        Terms of weights and images, in words.
    split : str
        How training, validation and test part were separated.
    intended_use, limits : str
    test_scores : dict of str to dict of str to float
        Measures of both stages on the test part, as ``DiffMICClassifier.evaluate`` gives them.
        They are kept as they are: give new ones where steps or draws were changed.
    n_test : int or None
        Images of the test part.
    base_model : str
        Repository of the Hub with the weights on which the training began; filled in when a model
        that began with timm's is saved.
    """

    summary: str = ""
    dataset: str = ""
    dataset_url: str = ""
    license: str | None = None
    license_note: str = ""
    split: str = ""
    intended_use: str = ""
    limits: str = ""
    test_scores: Measures = field(default_factory=dict)
    n_test: int | None = None
    base_model: str = ""


def card_text(
    card: ModelCard,
    *,
    name: str,
    config: Mapping[str, Any],
    n_regions: int,
    validation_scores: Measures,
) -> str:
    """The card as Markdown, with the Hub's metadata at its head.

    Parameters
    ----------
    name : str
        What ``from_pretrained`` takes.
    config : dict
        Of the saved model.
    n_regions : int
        K.
    validation_scores : dict
        Measures of both stages on the validation part.
    """
    parameters, classes = config["parameters"], config["classes"]
    names = [_in_a_line(name) for name in parameters["class_names"] or classes]
    backbone = parameters["backbone"]
    dataset = f"[{card.dataset}]({card.dataset_url})" if card.dataset_url else card.dataset
    text = _TEXT.substitute(
        title=name.rpartition("/")[2],
        quoted_name=json.dumps(name, ensure_ascii=False),
        code=(_CODE if config["diffusion_trained"] else _PRIOR_CODE).format(
            n_classes=len(classes), columns=", ".join(names)
        ),
        calibration=_calibration(config),
        summary=card.summary or "A classifier of images.",
        n_classes=len(classes),
        kind="labels" if config["multilabel"] else "classes",
        size=config["preprocessing"]["image_size"],
        results=_results(card, validation_scores),
        dataset=dataset or NOT_SAID,
        split=card.split or NOT_SAID,
        license_note=card.license_note or card.license or NOT_SAID,
        intended_use=card.intended_use or NOT_SAID,
        limits=card.limits or NOT_SAID,
        backbone=backbone if isinstance(backbone, str) else backbone["module"],
        n_regions=n_regions,
        num_steps=parameters["num_steps"],
        n_samples=parameters["n_samples"],
        versions=", ".join(f"{package} {number}" for package, number in config["versions"].items()),
    )
    return sealed(f"---\n{_metadata(card, name)}---\n{text}")


def _in_a_line(name: object) -> str:
    """A name that can stand in a comment of the card's code."""
    return " ".join(str(name).split()).replace("`", "'")


def _calibration(config: Mapping[str, Any]) -> str:
    """How scores become probabilities."""
    if not config["diffusion_trained"]:
        return "The diffusion stage was not trained."
    if not config["validation_scores"]:
        return "Probabilities are not calibrated."
    found = config["calibrations"]
    return (
        "Probabilities of both are calibrated on the validation part: the prior's by a temperature "
        f"of {found['prior']['temperature']:.2f}, the diffusion's by one of "
        f"{found['diffusion']['temperature']:.2f} and {found['diffusion']['prior_weight']:.2f} "
        "times the prior's logits beside them."
    )


def sealed(text: str) -> str:
    """A text with a mark of its own content, so that changes by hand can be told."""
    return text + "\n" + _MARK.format(_seal(text))


def is_generated(text: str) -> bool:
    """Whether a card is as it was made: nobody has written in it."""
    body, found, mark = text.rpartition("\n<!-- ")
    return bool(found) and found[1:] + mark == _MARK.format(_seal(body))


def _seal(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _results(card: ModelCard, validation_scores: Measures) -> str:
    """Tables of the measures, test part first."""
    images = "" if card.n_test is None else f", {card.n_test} images"
    parts = [(f"Test part{images}:", card.test_scores), ("Validation part:", validation_scores)]
    tables = [f"{words}\n\n{_table(scores)}" for words, scores in parts if scores]
    return "\n\n".join(tables) or "Nothing was measured: there was no validation part."


def _table(scores: Measures) -> str:
    lines = ["| | prior | diffusion |", "|---|---|---|"]
    lines += [
        f"| {words} | {scores['prior'][name]:.3f} | {scores['diffusion'][name]:.3f} |"
        for name, words in WORDS.items()
        if name in scores.get("diffusion", {})
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
            metric_type=HUB_METRICS.get(measure, measure),
            metric_name=f"{WORDS[measure]} ({stage})",
            metric_value=round(float(card.test_scores[stage][measure]), 4),
        )
        for stage in ("prior", "diffusion")
        for measure in WORDS
        if math.isfinite(card.test_scores.get(stage, {}).get(measure, math.nan))
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
    """The card, which is known to be one, with numbers as JSON holds them.

    Raises
    ------
    InputError
    """
    if not isinstance(card, ModelCard):
        raise InputError(f"card is {type(card).__name__}; give a diffmic.ModelCard.")
    for name, value in vars(card).items():
        if name not in ("test_scores", "n_test", "license") and not isinstance(value, str):
            raise InputError(f"{name} of the card is {value!r}; give words.")
    if not isinstance(card.license, (str, type(None))):
        raise InputError(f"license of the card is {card.license!r}; give an identifier, or None.")
    if not isinstance(card.n_test, (Integral, type(None))):
        raise InputError(f"n_test of the card is {card.n_test!r}; give a whole number, or None.")
    scores = card.test_scores
    complete = isinstance(scores, Mapping) and (not scores or set(scores) == {"prior", "diffusion"})
    if not complete or not all(
        isinstance(measures, Mapping)
        and all(isinstance(value, Real) and not math.isinf(value) for value in measures.values())
        for measures in scores.values()
    ):
        raise InputError(
            f"test_scores of the card is {str(scores)[:80]}; give the measures of both stages, as "
            "evaluate(X, y) returns them."
        )

    return replace(
        card,
        test_scores={
            stage: {name: float(value) for name, value in measures.items()}
            for stage, measures in card.test_scores.items()
        },
        n_test=None if card.n_test is None else int(card.n_test),
    )
