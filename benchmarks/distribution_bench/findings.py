"""ChestX-ray14 as a joint distribution: the likelihood of an image's whole set of labels."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from accuracy_bench.encoders import DEVICE, Job, conditions_of, trained_prior
from accuracy_bench.methods import OURS, cache_of, trained_diffusion, trained_head
from sklearn.linear_model import LogisticRegression
from sklearn.multioutput import ClassifierChain
from torch import Tensor

from diffmic.diffusion import NoiseSchedule
from diffmic.diffusion.parameterization import Denoise
from diffmic.diffusion.samplers import Callback
from diffmic.diffusion.schedule import levels_at
from diffmic.model import DiffMICNetwork
from diffmic.random import LocalRNG

from .jobs import N_DRAWS, N_STEPS, Experiment, Row, compared, draws_of
from .joint import SCALED, STACKED, cross_fitted, dependence, mixture, tilted

N_COPIES = 4  # of each cached view, each with other noise, from which the chain learns


def rows(job: Job) -> Iterator[Row]:
    """Labels that are independent of each other, and methods that let them depend."""
    seed, task, targets = job.seed, job.parts.task, job.parts.val.targets.double()
    prior = conditions_of(job, OURS, "val").fused_logits.double()
    found: dict[str, Tensor] = {}

    def add(method: str, logits: Tensor, start: tuple[float, ...] = STACKED) -> None:
        losses = mixture(logits, prior, targets, task)
        found[method], _ = cross_fitted(losses, start, targets, seed)

    known = job.parts.train.targets.double()
    shares = known.mean(dim=0).clamp(0.5 / len(known), 1 - 0.5 / len(known))
    ratio, order = dependence(known), known.sum(dim=0).argsort(descending=True)
    alone, as_learnt = torch.logit(shares).expand(len(targets), 1, -1), torch.tensor((*SCALED, 1.0))
    found["shares of the labels"] = mixture(alone, prior, targets, task)(as_learnt)
    found["shares and pairs of labels"] = tilted(alone, prior, targets, ratio)(as_learnt.double())
    head = trained_head(job, OURS, None)("val").prior_logits.double()[:, None]
    network = trained_diffusion(job, OURS)
    draws = draws_of(job, network)
    mean = task.logits(draws["mean"].mean(dim=1, keepdim=True))
    add("prior", prior[:, None], SCALED)
    add("head_linear", head)
    add("diffusion", mean)
    add("diffusion, over draws", task.logits(draws["mean"]))
    add("diffusion, last map, over draws", task.logits(draws["last"]))
    fifty = draws_of(job, network, num_steps=50)["last"]
    add("diffusion, last map of 50 steps, over draws", task.logits(fifty))
    for readout, logits in chained(job, network, order).items():
        add(f"diffusion, label after label, {readout} map", logits[:, None])
    add("classifier chain", classifier_chain(job, order)[:, None])
    for title, logits in (("head_linear", head), ("diffusion", mean)):
        losses = tilted(logits, prior, targets, ratio)
        found[f"{title} and pairs"], _ = cross_fitted(losses, (*STACKED, 0.5), targets, seed)
    pairs = [(m, "diffusion") for m in found if m.startswith("diffusion") and m != "diffusion"]
    pairs += [(m, "head_linear") for m in found if m not in ("head_linear", "prior")]
    pairs += [(m, "prior") for m in ("head_linear", "diffusion", "classifier chain")]
    pairs += [("shares and pairs of labels", "shares of the labels")]
    yield from compared("set_nll", found, pairs)


@torch.no_grad()
def chained(job: Job, network: DiffMICNetwork, order: Tensor) -> dict[str, Tensor]:
    """Logits (n, C) of each label given the true values of those before it in the order.

    The known labels are put into the label map before each step, at its level of noise. They are
    those of both readings of :func:`draws_of`.
    """
    truth = job.parts.val.targets[:, None, None].to(DEVICE)  # (n, 1, 1, C)
    known = torch.zeros(truth.shape[-1], dtype=torch.bool, device=DEVICE)
    found: dict[str, list[Tensor]] = {"mean": [], "last": []}

    def sampler(
        denoise: Denoise,
        y: Tensor,
        schedule: NoiseSchedule,
        timesteps: Sequence[int],
        *,
        callback: Callback,
    ) -> Tensor:
        (signal, noise), start = levels_at(schedule, timesteps), y
        for step, t in enumerate(timesteps):
            y = torch.where(known, signal[step] * truth + noise[step] * start, y)
            denoised = denoise(y, t)
            callback(t, y, denoised)
            y = signal[step + 1] * denoised.label + noise[step + 1] * denoised.noise
        return y

    usual = network.process.sampler
    network.process.sampler = sampler
    try:
        for label in order:
            for readout, draws in draws_of(job, network).items():
                found[readout].append(draws[..., label].mean(dim=1))
            known[label] = True
    finally:
        network.process.sampler = usual
    back = order.argsort()
    return {key: torch.logit(torch.stack(each, dim=1)[:, back]) for key, each in found.items()}


@torch.no_grad()
def classifier_chain(job: Job, order: Tensor) -> Tensor:
    """Logits (n, C) of a chain of logistic regressions on the prior's logits.

    It learns from the cached views with the noise on their features from which stage two learns,
    and is asked for each label with the true values of those before it.
    """
    cache, prior = cache_of(job, OURS), trained_prior(job, OURS).prior
    of, (image, region) = cache.conditions, cache.feature_scales()
    copies = []
    with LocalRNG(job.seed):
        for _ in range(N_COPIES):
            whole = of.image_features + OURS.feature_noise * image * torch.randn_like(
                of.image_features
            )
            windows = of.region_features + OURS.feature_noise * region * torch.randn_like(
                of.region_features
            )
            copies.append(sum(prior.reread(whole, windows, of.region_weights)) / 2)
    X = torch.cat(copies).double().cpu().numpy()
    Y = np.tile(cache.targets.numpy(), (len(X) // len(cache.targets), 1))
    usable = [c for c in order.tolist() if 0 < Y[:, c].sum() < len(Y)]
    strength = len(cache.targets) / len(X)  # as if each image counted once
    single = LogisticRegression(C=strength, max_iter=1000)
    chain = ClassifierChain(single, order=list(range(len(usable)))).fit(X, Y[:, usable])
    given = job.parts.val.targets.double().numpy()[:, usable]
    own = conditions_of(job, OURS, "val").fused_logits.double()
    found = own.clone()
    for place, (label, each) in enumerate(zip(usable, chain.estimators_, strict=True)):
        inputs = np.hstack([own.numpy(), given[:, :place]])
        found[:, label] = torch.from_numpy(each.decision_function(inputs))
    return found


def rows_of_twins(job: Job) -> Iterator[Row]:
    """The same where each second label is a copy of the one before it: what dependence gives."""
    parts = {}
    for part in ("train", "val"):
        targets = job.parts[part].targets.clone()
        targets[:, 1::2] = targets[:, ::2][:, : targets.shape[1] // 2]
        parts[part] = replace(job.parts[part], targets=targets)
    for row in rows(replace(job, parts=replace(job.parts, **parts))):
        yield row | {"set": f"{job.name}, twins"}


DETAILS = {"draws": N_DRAWS, "steps": N_STEPS, "copies": N_COPIES}
EXPERIMENT = Experiment("chestxray14", rows, DETAILS)
TWINS = Experiment("chestxray14", rows_of_twins, DETAILS)
