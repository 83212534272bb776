"""The methods that are compared: each gives scores of a part's images, and their calibration."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR

from diffmic.inference.calibration import Stage
from diffmic.inference.predict import sample_scores
from diffmic.random import seeded_rng
from diffmic.training.cache import ConditionCache, drawing_chances
from diffmic.training.diffusion_stage import moving_average, train_denoiser
from diffmic.training.evaluation import Evaluation
from diffmic.training.objectives import classification_loss
from diffmic.training.precision import accelerator_for
from diffmic.training.recipe import PAPER, RECIPES, Recipe

from .encoders import DEFAULTS, Job, conditions_of, plain_logits, trained_prior

Scores = Callable[[str], Tensor]  # name of a part → scores (n, C)

OURS = RECIPES["default"]
# The paper's loss, guidance, start and grid, on the same cached conditions as ours.
PAPER_CACHED = replace(
    PAPER,
    cached=True,
    n_views=OURS.n_views,
    steps_per_epoch=OURS.steps_per_epoch,
    batch_size=OURS.batch_size,
)


def plain(job: Job) -> Scores:
    """Plain fine-tuning."""
    return lambda part: plain_logits(job, OURS, part)[0]


def plain_tta(job: Job) -> Scores:
    """Plain fine-tuning, with logits averaged over views of each image."""
    return lambda part: plain_logits(job, OURS, part).mean(dim=0)


def prior(job: Job) -> Scores:
    """The fused prior alone."""
    return lambda part: conditions_of(job, OURS, part).fused_logits


def paper(job: Job) -> Scores:
    """The diffusion with the paper's recipe."""
    return diffusion_with(job, PAPER_CACHED)


def diffusion(job: Job) -> Scores:
    """The diffusion with the default recipe."""
    return diffusion_with(job, OURS)


def head_linear(job: Job) -> Scores:
    """A linear head, re-trained on the conditions."""
    return head_with(job, hidden=None)


def head_hidden(job: Job) -> Scores:
    """A head with a hidden layer, re-trained on the conditions."""
    return head_with(job, hidden=128)


METHODS: dict[str, tuple[Callable[[Job], Scores], Stage]] = {
    "plain": (plain, "prior"),
    "plain_tta": (plain_tta, "prior"),
    "prior": (prior, "prior"),
    "head_linear": (head_linear, "prior"),
    "head_hidden": (head_hidden, "prior"),
    "paper": (paper, "diffusion"),
    "diffusion": (diffusion, "diffusion"),
}


def cache_of(job: Job) -> ConditionCache:
    """Cached conditions of the training part."""
    part = job.parts.train
    return ConditionCache(conditions_of(job, OURS, "train"), part.targets, part.weights)


def diffusion_with(
    job: Job, recipe: Recipe, *, num_steps: int | None = None, n_samples: int | None = None
) -> Scores:
    """Stage two under a recipe; it ends in its best state on validation."""
    options = job.options(recipe)
    network = job.network(recipe, pretrained=False)
    network.prior = trained_prior(job, OURS).prior
    evaluation = Evaluation(job.parts.val, options)
    evaluation._conditions = conditions_of(job, OURS, "val")
    with (
        seeded_rng(options.seed, options.device),
        accelerator_for(options.device, "no") as accelerator,
    ):
        train_denoiser(
            network,
            job.parts.train,
            options,
            accelerator=accelerator,
            evaluate=evaluation.diffusion,
            history=[],
            cache=cache_of(job),
        )
    return lambda part: sample_scores(
        network,
        conditions_of(job, OURS, part),
        num_steps=num_steps or DEFAULTS["num_steps"],
        n_samples=n_samples or DEFAULTS["n_samples"],
        seed=job.seed,
    ).mean(dim=1)


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


def head_with(
    job: Job, *, hidden: int | None, recipe: Recipe = OURS, learning_rate: float = 2e-3
) -> Scores:
    """A head with cross-entropy on what stage two learns from: same noise, drawing and steps."""
    cache = cache_of(job)
    total_steps = job.task.max_epochs * recipe.steps_per_epoch
    conditions, multilabel = cache.conditions, job.parts.multilabel
    channels = conditions.image_features.shape[1] + conditions.region_features.shape[2]
    scales = cache.feature_scales()
    chances = drawing_chances(cache.targets, recipe.balance, multilabel=multilabel)
    with seeded_rng(job.seed):
        head = Head(channels, len(job.parts.classes), hidden).train()
        averaged = moving_average(head, recipe.ema, total_steps)
        optimizer = AdamW(
            head.parameters(), lr=learning_rate, weight_decay=recipe.denoiser_weight_decay
        )
        scheduler = OneCycleLR(optimizer, learning_rate, total_steps=total_steps + 1)
        for batch, targets, weights in cache.batches(total_steps, recipe.batch_size, chances):
            features = [
                f + recipe.feature_noise * scale * torch.randn_like(f)
                for f, scale in zip(
                    (batch.image_features, batch.region_features), scales, strict=True
                )
            ]
            errors = classification_loss(head(*features), targets, multilabel=multilabel)
            (weights * errors).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
            if averaged is not None:
                averaged.update_parameters(head)
    trained = (averaged or head).eval()

    @torch.inference_mode()
    def scores(part: str) -> Tensor:
        of = conditions_of(job, OURS, part)
        logits: Tensor = trained(of.image_features, of.region_features)
        return logits

    return scores
