"""Several opinions a case: grades of eyes, as three raters might give them."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from accuracy_bench.encoders import Job, conditions_of
from accuracy_bench.methods import OURS, trained_diffusion, trained_head
from torch import Tensor

from .jobs import N_DRAWS, N_STEPS, Experiment, Row, compared, derived, draws_of
from .joint import SCALED, STACKED, cross_fitted, dirichlet, mapped, mixture

# Chance that a rater names the grade above or below; invented, larger where raters dispute more.
CHANCES = (0.05, 0.35, 0.25, 0.40, 0.25)
N_RATERS = 3
RECIPE = replace(OURS, balance=0.0)  # drawn as they are: it is the likelihood that is measured


def confusion(n_grades: int) -> Tensor:
    """Chance of each opinion (column) where a grade is published (row), (C, C)."""
    chances = torch.tensor(CHANCES[:n_grades], dtype=torch.float64)
    beside = (torch.arange(n_grades)[:, None] - torch.arange(n_grades)).abs() == 1
    found = chances[:, None] * beside / beside.sum(dim=1, keepdim=True)
    return found + torch.diag(1 - chances)


def opinions(targets: Tensor, seed: int) -> Tensor:
    """One-hot opinions of raters who do not see each other's, (n, R, C), of grades (n, C)."""
    chances = confusion(targets.shape[1])[targets.argmax(dim=1)]
    generator = torch.Generator().manual_seed(seed)
    named = torch.multinomial(chances, N_RATERS, replacement=True, generator=generator)
    return torch.eye(targets.shape[1])[named]


def jobs_of(base: Job, given: dict[str, Tensor], seed: int) -> dict[str, Job]:
    """Jobs whose targets are the shares of the opinions, or one opinion of an image at a time."""
    train, conditions = base.parts.train, conditions_of(base, OURS, "train")
    val = replace(base.parts.val, targets=given["val"].mean(dim=1))
    votes = replace(train, targets=given["train"].mean(dim=1))
    single = given["train"].transpose(0, 1).flatten(0, 1)  # all images by the first rater, …
    alone = replace(train, targets=single, weights=train.weights.repeat(N_RATERS))

    def repeated(tensor: Tensor) -> Tensor:
        views = tensor.unflatten(0, (-1, len(train)))
        return torch.cat([views] * N_RATERS, dim=1).flatten(0, 1)

    kinds = {"votes": (votes, conditions), "single": (alone, conditions.map(repeated))}
    return {
        kind: derived(
            base, kind, replace(base.parts, train=part, val=val), {"train": own}, seed=seed
        )
        for kind, (part, own) in kinds.items()
    }


def rows(job: Job) -> Iterator[Row]:
    """Stage two and heads learn from opinions, on the prior of seed 0, which knew the grades."""
    base, seed, task = replace(job, seed=0), job.seed, job.parts.task
    given = {p: opinions(job.parts[p].targets, 2 * seed + (p == "val")) for p in ("train", "val")}
    counts = given["val"].sum(dim=1).double()
    disputed = counts.amax(dim=1) < N_RATERS
    prior = conditions_of(base, OURS, "val").fused_logits.double()
    jobs = jobs_of(base, given, seed)
    joint: dict[str, Tensor] = {}
    single: dict[str, Tensor] = {}
    doubts: dict[str, Tensor] = {}

    def add(method: str, logits: Tensor, start: tuple[float, ...] = STACKED) -> None:
        losses = mixture(logits, prior, counts, task)
        joint[method], chosen = cross_fitted(losses, start, counts, seed)
        proba = mapped(chosen, logits, prior).softmax(dim=-1)
        mean = proba.mean(dim=1)
        single[method] = -(counts * mean.log()).sum(dim=1) / N_RATERS
        doubts[f"entropy, {method}"] = -(mean * mean.log()).sum(dim=1)
        if logits.shape[1] > 1:
            doubts[f"spread, {method}"] = proba.std(dim=1).mean(dim=1)
        losses = dirichlet(logits, prior, counts)
        joint[f"{method}, Dirichlet"], _ = cross_fitted(losses, (*start, 1.0), counts, seed)

    add("prior", prior[:, None], SCALED)
    for title, hidden in (("head_linear", None), ("head_hidden", 128)):
        logits = trained_head(jobs["votes"], RECIPE, hidden)("val").prior_logits.double()
        add(title, logits[:, None])
    for kind, each in jobs.items():
        for readout, draws in draws_of(each, trained_diffusion(each, RECIPE)).items():
            method = f"diffusion, {kind}, {readout} map"
            add(method, task.logits(draws.mean(dim=1, keepdim=True)))
            add(f"{method}, over draws", task.logits(draws))
    known = confusion(counts.shape[1]).clamp_min(1e-12).log()  # which no method is told
    inside = counts @ known.T  # log-likelihood of an image's opinions under each grade, (n, C)

    def raters_known(parameters: Tensor) -> Tensor:
        grades = mapped(parameters, prior[:, None], prior)[:, 0].log_softmax(dim=-1)
        return -(grades + inside).logsumexp(dim=1)

    joint["prior, raters known"], _ = cross_fitted(raters_known, SCALED, counts, seed)
    best = "head_hidden, Dirichlet"
    own = [(m, m.replace(", over draws", "")) for m in joint if "over draws" in m]
    own += [(m, m.removesuffix(", Dirichlet")) for m in joint if m.endswith("Dirichlet")]
    others = [(m, best) for m in joint if m != best]
    yield from compared("joint_nll", joint, own + others)
    pairs = [(m, "head_hidden") for m in single if m != "head_hidden"]
    yield from compared("opinion_nll", single, pairs)
    yield from areas(disputed, doubts, "entropy, head_hidden")
    share = {"method": "images", "metric": "disputed", "value": float(disputed.double().mean())}
    yield share | {"n_images": len(disputed)}


def areas(disputed: Tensor, doubts: dict[str, Tensor], usual: str) -> Iterator[Row]:
    """AUROC of each doubt for images on which raters differ, and how far it is above the usual one.

    Errors are those of DeLong et al., Biometrics, 1988.
    """

    def places(values: Tensor) -> tuple[Tensor, Tensor]:
        apart = values[disputed][:, None] - values[~disputed]
        above = (apart.sign() + 1) / 2
        return above.mean(dim=1), above.mean(dim=0)

    first, second = places(doubts[usual])
    for doubt, values in doubts.items():
        row = {"method": doubt, "metric": "auroc", "n_images": len(values)}
        own = places(values)
        yield row | {"value": float(own[0].mean()), "error": _error(*own)}
        if doubt != usual:
            error = _error(own[0] - first, own[1] - second)
            value = float((own[0] - first).mean())
            yield row | {"against": usual, "value": value, "error": error}


def _error(of_disputed: Tensor, of_others: Tensor) -> float:
    return float(sum(each.var() / len(each) for each in (of_disputed, of_others))) ** 0.5


EXPERIMENT = Experiment(
    "aptos",
    rows,
    {"chances": CHANCES, "raters": N_RATERS, "draws": N_DRAWS, "steps": N_STEPS},
    RECIPE,
)
