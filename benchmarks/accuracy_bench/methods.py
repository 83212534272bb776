"""The methods that are compared: each gives evidence of a part's images."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR

from diffmic.inference import Engine, Evidence, SamplingOptions, Stage, evidence_of, over_views
from diffmic.model import Conditions, DiffMICNetwork
from diffmic.training import Recipe
from diffmic.training.cache import ConditionCache, drawing_chances, drawing_ratio
from diffmic.training.diffusion_stage import cached_steps, moving_average, train_denoiser
from diffmic.training.evaluation import Evaluation
from diffmic.training.precision import MixedPrecision
from diffmic.training.recipe import PAPER, RECIPES

from .encoders import (
    DEFAULTS,
    DEVICE,
    LEARNING,
    N_VIEWS,
    Job,
    conditions_of,
    plain_logits,
    trained_prior,
    views_of,
)

BATCH = 256  # images that are sampled at once

EvidenceOf = Callable[[str], Evidence]  # of a part, by its name


@dataclass(frozen=True)
class Method:
    """How a method comes to its evidence, and how this becomes probabilities.

    Attributes
    ----------
    train : callable
        Job → evidence of a part.
    stage : {"prior", "diffusion"}
        Which stage's logits the evidence is read as; those of any classifier are a prior's.
    beside : str or None
        Method whose logits the calibration weighs beside these.
    recipe : Recipe
        For the record.
    on : callable
        Recipe and job → the recipe as it is on the job.
    """

    train: Callable[[Job], EvidenceOf]
    stage: Stage = "prior"
    beside: str | None = None
    recipe: Recipe = RECIPES["default"]
    on: Callable[[Recipe, Job], Recipe] = lambda recipe, job: recipe


OURS = RECIPES["default"]
# The paper's loss at our budget: its guidance, start, timesteps and scores, too, but the conditions
# and the number of steps are ours.
PAPER_CACHED = replace(
    PAPER,
    cached=True,
    n_cached_views=OURS.n_cached_views,
    denoiser_epochs=OURS.denoiser_epochs,
    patience=OURS.patience,
    steps_per_epoch=OURS.steps_per_epoch,
    batch_size=OURS.batch_size,
)


def plain(job: Job) -> EvidenceOf:
    """Plain fine-tuning."""
    return lambda part: Evidence(plain_logits(job, OURS, part)[0])


def plain_tta(job: Job) -> EvidenceOf:
    """Plain fine-tuning, with logits averaged over views of each image."""
    return lambda part: Evidence(plain_logits(job, OURS, part, N_VIEWS).mean(dim=0))


def prior_alone(job: Job) -> EvidenceOf:
    """The fused prior."""
    return lambda part: Evidence(conditions_of(job, OURS, part).fused_logits.cpu())


def local_alone(job: Job) -> EvidenceOf:
    """The local prior: the opinion of the regions alone."""
    return lambda part: Evidence(conditions_of(job, OURS, part).local_logits.cpu())


def prior_views(job: Job) -> EvidenceOf:
    """The fused prior, with logits averaged over the views of plain fine-tuning's."""
    return lambda part: Evidence(over_views(views_of(job, OURS, part).fused_logits, N_VIEWS).cpu())


def diffusion_views(job: Job) -> EvidenceOf:
    """The diffusion with views: the estimator's ``n_views``."""
    network, options = trained_diffusion(job, OURS), replace(usual_sampling(), n_views=N_VIEWS)
    ratio = drawing_ratio_of(job, OURS)
    return lambda part: _sampled(job, network, views_of(job, OURS, part), options, ratio)


def diffusion(
    recipe: Recipe,
    *,
    undone: bool = True,
    feature_dim: int | None = None,
    n_regions: int | None = None,
    **sampling: int,
) -> Method:
    """The diffusion stage under a recipe, at another width, or with fewer of the regions.

    Parameters
    ----------
    recipe : Recipe
    undone : bool
        Whether class-balanced drawing is undone in the scores, as the estimator does.
    feature_dim, n_regions : int or None
    **sampling
        Options of sampling that differ from the estimator's.
    """

    def train(job: Job) -> EvidenceOf:
        network = trained_diffusion(job, recipe, feature_dim, n_regions)
        ratio = drawing_ratio_of(job, recipe) if undone else None
        options = replace(usual_sampling(), **sampling)
        return lambda part: _sampled(job, network, conditions_of(job, OURS, part), options, ratio)

    return Method(train, "diffusion", "prior" if recipe.stacked else None, recipe)


def usual_sampling() -> SamplingOptions:
    """The estimator's."""
    return SamplingOptions(DEFAULTS["num_steps"], DEFAULTS["n_draws"])


def drawing_ratio_of(job: Job, recipe: Recipe) -> Tensor | None:
    """How much more often stage two draws each class of a job than it occurs."""
    return drawing_ratio(job.parts.train.targets, recipe.balance, job.parts.task)


def _sampled(
    job: Job,
    network: DiffMICNetwork,
    conditions: Conditions,
    options: SamplingOptions,
    ratio: Tensor | None,
) -> Evidence:
    """Evidence of conditions, in which the views of an image lie side by side."""
    conditions, rows = with_regions(conditions, network), BATCH * options.n_views
    return evidence_of(
        Engine(network),
        (conditions[start : start + rows] for start in range(0, len(conditions), rows)),
        "diffusion",
        options,
        seed=job.seed,
        drawing_ratio=ratio,
    )


def head(hidden: int | None, *, beside: str | None = None) -> Method:
    """A head of one or two layers, re-trained on the conditions."""
    return Method(lambda job: trained_head(job, OURS, hidden), beside=beside)


METHODS = {
    "plain": Method(plain),
    "plain_tta": Method(plain_tta),
    "prior": Method(prior_alone),
    "prior_tta": Method(prior_views),
    "head_linear": head(None),
    "head_linear_stacked": head(None, beside="prior"),
    "head_hidden": head(128),
    "head_hidden_stacked": head(128, beside="prior"),
    "paper": diffusion(PAPER_CACHED),
    "diffusion": diffusion(OURS),
    "diffusion_tta": Method(diffusion_views, "diffusion", "prior_tta"),
}


def _with(**settings: str) -> Recipe:
    return replace(OURS, diffusion=replace(OURS.diffusion, **settings))


DRAWS = (1, 2, 4, 8, 32)

# What each part of the recipe is worth: all but one as they are.
ABLATIONS = {
    "diffusion": diffusion(OURS),
    "not stacked": diffusion(replace(OURS, stacked=False)),
    "last label map": diffusion(_with(readout="last")),
    "v": diffusion(_with(prediction_type="v")),
    "noise": diffusion(_with(prediction_type="noise")),
    "label": diffusion(_with(prediction_type="label")),
    "logits as guidance": diffusion(_with(guidance="logits")),
    "uniform start": diffusion(_with(start="uniform")),
    **{f"blur {x:g}": diffusion(replace(OURS, feature_noise=x)) for x in (0.0, 1.0, 2.0, 6.0)},
    **{f"balance {x:g}": diffusion(replace(OURS, balance=x)) for x in (0.0, 0.5, 1.0)},
    "drawing not undone": diffusion(OURS, undone=False),
    "no dropout": diffusion(replace(OURS, context_dropout=0.0)),
    "α = 10": diffusion(replace(OURS, alpha=10.0)),
    "α = 10, γ = 3": diffusion(replace(OURS, alpha=10.0, gamma=3.0)),
    "one view": diffusion(replace(OURS, n_cached_views=0)),
    **{f"{n} steps": diffusion(OURS, num_steps=n) for n in (1, 2, 5, 20, 50)},
    **{f"{n} draws": diffusion(OURS, n_draws=n) for n in DRAWS},
    **{f"width {n}": diffusion(OURS, feature_dim=n) for n in (64, 1024)},
    # Regions are chosen one after the other: these are the first of the usual 6.
    **{f"denoiser of {n} regions": diffusion(OURS, n_regions=n) for n in (2, 4)},
    "4 positions a step": diffusion(replace(OURS, n_positions=4)),
    **{f"{n} learning steps": diffusion(replace(OURS, steps_per_epoch=n)) for n in (4, 15, 240)},
}

# Regions off, chosen as the paper does, as the library does ("fused"), by the saliency alone, the
# same of an earlier layer where the images are small, and cropped from larger images.
REGIONS: dict[str, dict[str, Any]] = {
    "off": {"n_regions": 1, "region_size": None},  # one region, which is the whole image
    "paper": {"region_importance": "paper", "region_map": "coarse"},
    "fused": {},
    "contrast": {"region_importance": "contrast"},
    "fine map": {"region_importance": "contrast", "region_map": "fine"},
    "zoom": {"regions": "zoom", "zoom_size": None},  # sides of the images and of the originals
}
OF_REGIONS: dict[str, dict[str, Any]] = {
    "prior": Method(prior_alone),
    "local": Method(local_alone),
    "diffusion": diffusion(OURS),
}

# Losses of stage two for grades: how much the ranked probability score weighs.
GRADES = {
    "cross-entropy": diffusion(OURS),
    **{f"and {w:g} ranked": diffusion(replace(OURS, grade_weight=w)) for w in (0.3, 1.0, 3.0)},
}

# Ablations along one number, for pictures.
FACTORS: dict[str, dict[float, str]] = {
    "steps of the sampler": {n: f"{n} steps" for n in (1, 2, 5, 20, 50)}
    | {DEFAULTS["num_steps"]: "diffusion"},
    "draws": {n: f"{n} draws" for n in (1, 8, 32)},
    "steps of learning an epoch": {n: f"{n} learning steps" for n in (4, 15, 240)}
    | {OURS.steps_per_epoch: "diffusion"},
}


def cache_of(job: Job, recipe: Recipe) -> ConditionCache:
    """Cached conditions of the training part, in as many views as the recipe wants."""
    part = job.parts.train
    rows = slice((1 + recipe.n_cached_views) * len(part))
    conditions = conditions_of(job, OURS, "train")[rows]
    return ConditionCache(conditions, part.targets.to(DEVICE), part.weights.to(DEVICE))


@torch.inference_mode()
def with_regions(conditions: Conditions, network: DiffMICNetwork) -> Conditions:
    """The first regions of each image, as many as a network has, and the prior of these."""
    count = network.n_regions
    if count == conditions.region_features.shape[1]:
        return conditions
    regions, weights = conditions.region_features[:, :count], conditions.region_weights[:, :count]
    _, local_logits = network.prior.reread(conditions.image_features, regions, weights)
    return replace(
        conditions,
        region_features=regions,
        region_weights=weights,
        local_logits=local_logits,
        boxes=conditions.boxes[:, :count],
        attention=conditions.attention[:, :count],
    )


@functools.lru_cache(maxsize=1)  # steps and draws are of the sampling alone
def trained_diffusion(
    job: Job, recipe: Recipe, feature_dim: int | None = None, n_regions: int | None = None
) -> DiffMICNetwork:
    """Stage two under a recipe; it ends in its averaged last state."""
    options = job.options(recipe)
    changes = {"feature_dim": feature_dim, "n_regions": n_regions}
    changes = {name: value for name, value in changes.items() if value is not None}
    network = job.network(recipe, pretrained=False, **changes)
    network.prior = trained_prior(job, OURS).prior
    network.to(DEVICE)
    network.prior.n_regions = min(n_regions or network.prior.n_regions, network.prior.n_regions)
    cache = cache_of(job, recipe)
    cache = replace(cache, conditions=with_regions(cache.conditions, network))
    conditions = with_regions(conditions_of(job, OURS, "val"), network)
    evaluation = Evaluation(job.parts.val, options, drawing_ratio_of(job, recipe), conditions)
    train_denoiser(
        network,
        job.parts.train,
        options,
        precision=MixedPrecision(DEVICE),
        rng=job.rng(LEARNING),
        evaluate=evaluation.diffusion,
        history=[],
        cache=cache,
    )
    return network.eval()


class Head(nn.Module):
    """Batch norm, dropout and one or two linear layers on the features of an image."""

    def __init__(self, channels: int, num_classes: int, hidden: int | None) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.BatchNorm1d(channels), nn.Dropout(0.5)]
        if hidden is not None:
            layers += [nn.Linear(channels, hidden), nn.BatchNorm1d(hidden), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden or channels, num_classes))

    def forward(self, image_features: Tensor, region_features: Tensor) -> Tensor:
        """(B, D) and (B, K, D') → logits (B, C)."""
        features = torch.cat([image_features, region_features.mean(dim=1)], dim=1)
        logits: Tensor = self.layers(features)
        return logits


@functools.lru_cache(maxsize=1)
def trained_head(
    job: Job, recipe: Recipe, hidden: int | None, learning_rate: float = 2e-3
) -> EvidenceOf:
    """A head with cross-entropy on what stage two learns from: same noise, drawing and steps.

    Its drawing is undone as that of stage two is.
    """
    cache = cache_of(job, recipe)
    n_steps = cached_steps(len(cache.targets), len(cache.conditions), recipe)
    total_steps = job.data_set.max_epochs * n_steps
    conditions, task = cache.conditions, job.parts.task
    channels = conditions.image_features.shape[1] + conditions.region_features.shape[2]
    scales = cache.feature_scales()
    chances = drawing_chances(job.parts.train.targets, recipe.balance, task)
    with job.rng(LEARNING) as rng:
        head = Head(channels, len(job.parts.classes), hidden).to(DEVICE).train()
        averaged = moving_average(head, recipe.ema, total_steps)
        optimizer = AdamW(
            head.parameters(), lr=learning_rate, weight_decay=recipe.denoiser_weight_decay
        )
        scheduler = OneCycleLR(optimizer, learning_rate, total_steps=total_steps + 1)
        for batch, targets, weights in cache.batches(total_steps, recipe.batch_size, chances, rng):
            features = [
                f + recipe.feature_noise * scale * torch.randn_like(f)
                for f, scale in zip(
                    (batch.image_features, batch.region_features), scales, strict=True
                )
            ]
            errors = task.loss(head(*features), targets)
            (weights * errors).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
            if averaged is not None:
                averaged.update_parameters(head)
    trained, ratio = (averaged or head).eval(), drawing_ratio_of(job, recipe)

    @torch.inference_mode()
    def evidence(part: str) -> Evidence:
        of = conditions_of(job, OURS, part)
        logits: Tensor = trained(of.image_features, of.region_features).cpu()
        return Evidence(logits if ratio is None else logits - ratio.log().to(logits))

    return evidence
