"""Experiments, jobs on conditions made from those of another, draws of a network, and rows."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from accuracy_bench.encoders import Job, _save, conditions_of
from accuracy_bench.methods import OURS
from accuracy_bench.tasks import DATA_SETS, DataSet, Parts
from torch import Tensor

from diffmic.diffusion import scores_by_distance
from diffmic.inference.evidence import SCORE_FLOOR
from diffmic.model import Architecture, Conditions, DiffMICNetwork
from diffmic.training import Recipe
from diffmic.training.readings import Reading
from diffmic.training.readings import cross_fitted as cross_fitted_metrics

N_DRAWS, N_STEPS = 32, 10

Row = dict[str, Any]


@dataclass(frozen=True)
class Experiment:
    """What the command measures on one data set; rows come from a job, on its validation part."""

    name: str
    rows: Callable[[Job], Iterator[Row]]
    details: dict[str, Any]
    recipe: Recipe = OURS
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def data_set(self) -> DataSet:
        """The data set, with what differs from its usual settings."""
        return replace(DATA_SETS[self.name], **self.changes)


def derived(
    base: Job,
    kind: str,
    parts: Parts,
    conditions: Mapping[str, Conditions],
    *,
    seed: int | None = None,
    architecture: Architecture | None = None,
) -> Job:
    """A job with the prior of another, but with conditions of its own for some of the parts."""
    job = replace(
        base,
        seed=base.seed if seed is None else seed,
        parts=parts,
        folder=base.folder / kind,
        architecture=architecture or base.architecture,
    )
    job.folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(base.file("prior.safetensors"), job.file("prior.safetensors"))
    for part in ("train", "val"):
        own = conditions.get(part)
        own = conditions_of(base, OURS, part) if own is None else own
        _save(vars(own), job.file(f"conditions-{part}.safetensors"))
    return job


@torch.no_grad()
def draws_of(job: Job, network: DiffMICNetwork, num_steps: int = N_STEPS) -> dict[str, Tensor]:
    """Probabilities of each draw on the validation part, (n, S, C), away from 0 and 1.

    ``"mean"`` is the mean of the sampler's estimates, ``"last"`` its last label map.
    """
    noise = network.noise(N_DRAWS, torch.Generator().manual_seed(job.seed))
    found: list[Tensor] = []
    network.sample(
        conditions_of(job, OURS, "val"),
        noise,
        num_steps=num_steps,
        watch=lambda noisy, denoised: found.append(scores_by_distance(denoised.label).double()),
    )
    estimates = torch.stack(found).cpu().clamp(SCORE_FLOOR, 1 - SCORE_FLOOR)
    return {"mean": estimates.mean(dim=0), "last": estimates[-1]}


class Readings:
    """Cross-fitted losses and macro F1 of methods on the validation part of a job."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.losses: dict[str, Tensor] = {}
        self.rows: list[Row] = []

    def add(self, method: str, logits: Tensor, prior: Tensor | None) -> None:
        """A method by its logits (n, C), weighed with those of the prior if these are given."""
        val = self.job.parts.val
        prior = None if prior is None else prior.double()
        reading = Reading(logits.double(), prior, val.targets, val.weights, self.job.parts.task)
        metrics, errors = cross_fitted_metrics(reading, self.job.seed)
        self.losses[method] = torch.from_numpy(errors)
        row = {"method": method, "metric": "macro_f1", "value": float(metrics["macro_f1"])}
        self.rows.append(row | {"n_images": len(errors)})

    def compared(self, pairs: Sequence[tuple[str, str]]) -> Iterator[Row]:
        """All rows."""
        yield from compared("nll", self.losses, pairs)
        yield from self.rows


def compared(
    metric: str, losses: Mapping[str, Tensor], pairs: Sequence[tuple[str, str]]
) -> Iterator[Row]:
    """Mean losses, and how much less the first method of a pair loses than the second.

    The error is the standard error of the mean over the images.
    """
    for method, each in losses.items():
        yield _row(method, metric, each)
    for method, against in pairs:
        yield _row(method, metric, losses[against] - losses[method]) | {"against": against}


def _row(method: str, metric: str, each: Tensor) -> Row:
    error = float(each.std()) / len(each) ** 0.5
    same = {"method": method, "metric": metric, "n_images": len(each)}
    return same | {"value": float(each.mean()), "error": error}
