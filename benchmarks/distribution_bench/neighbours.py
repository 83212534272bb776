"""Wrong labels, and what the labels of an image's neighbours can do about them."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from accuracy_bench.encoders import Job, conditions_of
from accuracy_bench.methods import METHODS, OURS
from torch import Tensor
from torch.nn.functional import normalize

from .jobs import Experiment, Readings, Row

SHARES = (0.4,)  # of the training labels that are wrong
N_NEIGHBOURS = 10
# How much the mean label of the neighbours weighs in the targets from which stage two learns.
WEIGHTS = {"labels as given": 0.0, "half neighbours'": 0.5, "neighbours' labels": 1.0}


def neighbour_labels(features: Tensor, labels: Tensor, of: Tensor | None = None) -> Tensor:
    """Mean label (m, C) of the nearest by cosine similarity among features (n, D) with labels.

    Without ``of`` (m, D) those of each of the n without itself.
    """
    near = normalize(features, dim=1)
    similarity = near @ near.T if of is None else normalize(of, dim=1) @ near.T
    if of is None:
        similarity.fill_diagonal_(-torch.inf)
    return labels[similarity.topk(N_NEIGHBOURS, dim=1).indices].mean(dim=1)


def rows(job: Job) -> Iterator[Row]:
    """With each share of wrong labels, on a prior that learnt from the same labels."""
    for share in SHARES:
        folder = job.folder / f"image_size-{job.data_set.image_size}" / f"wrong-{share:g}"
        parts = job.parts.with_wrong_labels(share, job.seed)
        for row in rows_of(replace(job, parts=parts, folder=folder)):
            yield row | {"set": f"{job.name}, {share:.0%} wrong"}


def rows_of(job: Job) -> Iterator[Row]:
    """Prior, neighbours alone, and heads and diffusions by the targets from which they learn."""
    train, val = job.parts.train, conditions_of(job, OURS, "val")
    found, prior = Readings(job), val.fused_logits.cpu()
    features = conditions_of(job, OURS, "train").image_features[: len(train)].cpu()  # first view
    near = neighbour_labels(features, train.targets)
    shares = neighbour_labels(features, train.targets, val.image_features.cpu())
    logits = (shares + 1 / (N_NEIGHBOURS * shares.shape[1])).log()
    found.add("prior", prior, None)
    found.add("neighbours", logits, None)
    found.add("prior and neighbours", logits, prior)
    for title, weight in WEIGHTS.items():
        targets = (1 - weight) * train.targets + weight * near
        parts = replace(job.parts, train=replace(train, targets=targets))
        learner = replace(job, parts=parts)
        for name in ("head_linear", "diffusion"):
            method = METHODS[name]
            evidence = method.train(learner)("val")
            found.add(f"{name}, {title}", evidence.logits(method.stage, job.parts.task), prior)
    given, *others = WEIGHTS
    pairs = [(m, "prior") for m in found.losses if m != "prior"]
    pairs += [(f"{n}, {o}", f"{n}, {given}") for n in ("head_linear", "diffusion") for o in others]
    pairs += [(f"diffusion, {title}", f"head_linear, {title}") for title in WEIGHTS]
    yield from found.compared(pairs)


EXPERIMENT = Experiment(
    "busi", rows, {"shares": SHARES, "neighbours": N_NEIGHBOURS}, changes={"image_size": 96}
)
