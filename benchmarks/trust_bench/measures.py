"""Risk–coverage, images that do not belong, and coverage of prediction sets."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from accuracy_bench.beyond import risk_coverage_area
from numpy.typing import NDArray
from scipy.stats import betabinom
from sklearn.metrics import roc_auc_score

from diffmic.inference import (
    Doubt,
    EmbeddingReference,
    FittedModel,
    PredictionSets,
    Uncertainty,
    included_classes,
    true_probabilities,
    uncertainty_of,
)

from .readings import Reading

Floats = NDArray[np.float64]
N_RESAMPLES = 1000
N_HALVES = 100
COVERAGES = (0.8, 0.9, 0.95)
DISTANCE = "distance in the embeddings"
PLAIN = "confidence of the diffusion"  # its largest probability, or nearness to a threshold


@dataclass(frozen=True)
class Doubts:
    """Doubt of each decision by several measures, larger is more doubtful.

    Attributes
    ----------
    of : dict of str to ndarray of shape (n,) or (n, L)
        By measure.
    proba : dict of str to ndarray of shape (n, C)
        Probabilities of prior, diffusion and Monte Carlo dropout.
    """

    of: dict[str, Floats]
    proba: dict[str, Floats]


def doubts(model: FittedModel, reading: Reading) -> Doubts:
    """Doubt of a model's decisions on the images of a reading."""
    own = uncertainty_of(model, reading.evidence)
    dropped = uncertainty_of(model, reading.dropped)
    prior = model.probabilities(reading.evidence, "prior")
    proba = {"prior": prior, "diffusion": own.proba, "dropout": dropped.proba}
    found = {
        "confidence of the prior": _unsure(model, prior),
        PLAIN: _unsure(model, own.proba),
        "confidence, Monte Carlo dropout": _unsure(model, dropped.proba),
        **_of_draws(own, "draws"),
        **_of_draws(dropped, "Monte Carlo dropout"),
        "paired test": own.p_value,
    }
    if own.distance is not None:
        found[DISTANCE] = own.distance
    return Doubts(found, proba)


def _of_draws(of: Uncertainty, name: str) -> dict[str, Floats]:
    return {
        f"mutual information, {name}": of.mutual_information,
        f"interval width, {name}": of.interval_width,
    }


def _unsure(model: FittedModel, proba: Floats) -> Floats:
    """Doubt by the probabilities: 1 − the largest; for multi-label the entropy of each label."""
    if model.task.exclusive:
        return 1 - proba.max(axis=1)
    p = proba.clip(1e-12, 1 - 1e-12)
    return -(p * np.log(p) + (1 - p) * np.log(1 - p))


def risks(model: FittedModel, found: Doubts, labels: NDArray[Any]) -> Iterator[dict[str, Any]]:
    """Areas under risk–coverage curves, and differences from plain confidence, with intervals.

    All measures rank the diffusion's decisions, multi-label those of single labels; the first
    three rows are of each one's own decisions, ranked by its own confidence.
    """
    n, rng = len(labels), np.random.default_rng(0)
    draws = rng.integers(n, size=(N_RESAMPLES, n))

    def row(what: str, measure: str, right: Floats, doubt: Floats, than: Any) -> dict[str, Any]:
        def area(rows: Any) -> float:
            here = risk_coverage_area(right[rows].ravel() > 0, -doubt[rows].ravel())
            return (
                here
                if than is None
                else here - risk_coverage_area(than[0][rows].ravel() > 0, -than[1][rows].ravel())
            )

        resampled = [area(rows) for rows in draws]
        low, high = np.quantile(resampled, [0.025, 0.975])
        return {"what": what, "measure": measure, "value": area(slice(None))} | {
            "low": low,
            "high": high,
        }

    def right_of(proba: Floats, stage: Any) -> Floats:
        decided = model.decisions(proba, stage)
        return (decided == labels).astype(float)

    right = right_of(found.proba["diffusion"], "diffusion")
    plain = (
        right_of(found.proba["prior"], "prior"),
        found.of["confidence of the prior"],
    )
    yield row("area, own decisions", "confidence of the prior", *plain, None)
    yield row("area, own decisions", PLAIN, right, found.of[PLAIN], None)
    dropout = "confidence, Monte Carlo dropout"
    of_dropout = right_of(found.proba["dropout"], "diffusion")
    yield row("area, own decisions", dropout, of_dropout, found.of[dropout], None)
    for measure, doubt in found.of.items():
        shaped = doubt if doubt.ndim == right.ndim else np.repeat(doubt[:, None], right.shape[1], 1)
        yield row("area", measure, right, shaped, None)
        if measure != PLAIN:
            yield row("area less plain", measure, right, shaped, (right, found.of[PLAIN]))


def with_reference(model: FittedModel, reading: Reading) -> FittedModel:
    """The model with a reference of its own images, where it was saved without one."""
    if model.doubt is not None and model.doubt.reference is not None:
        return model
    embeddings = reading.evidence.embeddings
    assert embeddings is not None  # asked for
    return replace(model, doubt=Doubt(reference=EmbeddingReference.fit(embeddings.numpy())))


def cross_fitted(model: FittedModel, reading: Reading, found: Doubts) -> Doubts:
    """The same with distances of own images from the others alone."""
    embeddings = reading.evidence.embeddings
    assert embeddings is not None  # asked for
    rows, distance = embeddings.numpy(), np.empty(len(embeddings))
    folds = np.random.RandomState(0).permutation(len(rows)) % 5
    for fold in range(5):
        reference = EmbeddingReference.fit(rows[folds != fold])
        assert reference is not None  # of enough images
        distance[folds == fold] = reference.distances(rows[folds == fold])
    return Doubts(found.of | {DISTANCE: distance}, found.proba)


def strangeness(own: Doubts, other: Doubts) -> Iterator[dict[str, Any]]:
    """AUROC of own images against others, by each measure; multi-label: its mean over labels."""
    for measure, inside in own.of.items():
        outside = other.of[measure]
        inside, outside = (v if v.ndim == 1 else v.mean(axis=1) for v in (inside, outside))
        truth = np.r_[np.zeros(len(inside)), np.ones(len(outside))]
        yield {"measure": measure, "value": roc_auc_score(truth, np.r_[inside, outside])}


def coverages(model: FittedModel, found: Doubts, labels: NDArray[Any]) -> Iterator[dict[str, Any]]:
    """Coverage of prediction sets over random halves: one to conformalise, one to measure.

    ``inside`` is the share of the halves whose measured coverage lies in the 95 % interval that a
    promise of exactly this coverage gives, over both halves (beta-binomial; Vovk, 2012).
    """
    truth = labels == 1 if labels.ndim == 2 else labels[:, None] == model.classes[None]
    rng, n, task = np.random.RandomState(0), len(labels), model.task
    for stage in ("prior", "diffusion"):
        proba = found.proba[stage]
        for coverage in COVERAGES:
            rows, inside, of_classes = [], [], []
            for _ in range(N_HALVES if task.exclusive else 5):
                order = rng.permutation(n)
                one, other = order[: n // 2], order[n // 2 :]
                scores = true_probabilities(proba[one], truth[one])
                sets = PredictionSets(
                    included_classes(scores, proba[other], task, coverage),
                    model.classes,
                    coverage,
                    task.exclusive,
                )
                whole, *classes = sets.coverage_of(labels[other])
                rank = int(np.ceil((len(scores) + 1) * coverage))
                law = betabinom(whole["n_images"], rank, len(scores) + 1 - rank)
                low, high = law.ppf([0.025, 0.975]) / whole["n_images"]
                inside.append(low <= whole["coverage"] <= high)
                rows.append((whole["coverage"], whole["mean_size"]))
                of_classes.append([of["coverage"] for of in classes])
            covered, size = np.mean(rows, axis=0)
            low, high = np.quantile([r[0] for r in rows], [0.025, 0.975])
            with np.errstate(all="ignore"):
                worst = np.nanmin(np.nanmean(of_classes, axis=0))
            yield {"measure": stage, "group": coverage, "value": covered, "low": low} | {
                "high": high,
                "inside": np.mean(inside),
                "mean_size": size,
                "worst_class": worst,
            }
