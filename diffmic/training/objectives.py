"""What each stage minimises: modules whose forward takes a batch and returns the loss."""

from dataclasses import replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..diffusion import (
    distance_weights,
    focal_weights,
    prior_confidence,
    weighted_cross_entropy,
    weighted_mse,
)
from ..diffusion.schedule import over_positions
from ..model import Conditions, DiffMICNetwork
from .recipe import Recipe


def classification_loss(
    logits: Tensor, targets: Tensor, *, multilabel: bool, label_smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy, or the mean binary cross-entropy of the labels; one value per image, (B,)."""
    if multilabel:
        smooth = targets * (1 - label_smoothing) + label_smoothing / 2
        return F.binary_cross_entropy_with_logits(logits, smooth, reduction="none").mean(dim=-1)
    return F.cross_entropy(logits, targets, label_smoothing=label_smoothing, reduction="none")


class PriorObjective(nn.Module):
    """Stage one: the prior learns to classify.

    The paper's loss is that of the fused logits; with ``branch_losses`` each branch has one of
    its own, too, so that neither leans on the other.
    """

    def __init__(self, network: DiffMICNetwork, recipe: Recipe) -> None:
        super().__init__()
        self.prior = network.prior
        self.multilabel = network.multilabel
        self.recipe = recipe

    def forward(self, images: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """Images (B, 3, H, W) in 0–1, targets (B, C), weights (B,) → loss."""
        conditions, _ = self.prior(images)
        readings = [conditions.fused_logits]
        if self.recipe.branch_losses:
            readings += [conditions.global_logits, conditions.local_logits]
        losses = [
            classification_loss(
                logits.float(),
                targets,
                multilabel=self.multilabel,
                label_smoothing=self.recipe.label_smoothing,
            )
            for logits in readings
        ]
        return (weights * torch.stack(losses).mean(dim=0)).mean()


class DenoiserObjective(nn.Module):
    """Stage two: the denoiser learns to undo the heterologous forward process.

    Parameters
    ----------
    network : DiffMICNetwork
        Its prior is left as it is.
    recipe : Recipe
    feature_scales : tuple of Tensor or None
        Standard deviations (D,) and (D',) of the prior's own features of images and of regions, to
        which the recipe's ``feature_noise`` refers.
    """

    def __init__(
        self,
        network: DiffMICNetwork,
        recipe: Recipe,
        feature_scales: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.recipe = recipe
        self.feature_scales = feature_scales

    def train(self, mode: bool = True) -> Self:
        """Training mode for all but the prior, which is frozen, batch norm statistics and all."""
        super().train(mode)
        self.network.prior.eval()
        return self

    def forward(self, conditions: Conditions, targets: Tensor, weights: Tensor) -> Tensor:
        """Conditions of B images, targets (B, C), weights (B,) → loss."""
        network, recipe = self.network, self.recipe
        if recipe.feature_noise and self.feature_scales is not None:
            conditions = self._blurred(conditions, *self.feature_scales)
        context = network.context(conditions.image_features, conditions.region_features)

        distances = self._distances(len(targets), targets.device)  # (B, P)
        guidance = network.guidance(conditions).gather(
            1, distances[..., None].expand(-1, -1, network.num_classes)
        )  # (B, P, C)
        timesteps = torch.randint(
            network.schedule.num_train_timesteps, distances.shape, device=targets.device
        )
        noise = torch.randn_like(guidance)
        noisy = network.schedule.add_noise(targets, noise, timesteps)
        output = network.denoiser(guidance, noisy, timesteps, context)

        levels = network.schedule.signal[timesteps, None], network.schedule.noise[timesteps, None]
        label = over_positions(targets, noise).expand_as(noise)
        target = network.parameterization.target(label, noise, *levels)
        confidence = prior_confidence(
            conditions.fused_logits, targets, multilabel=network.multilabel
        )
        weights = weights * focal_weights(confidence, alpha=recipe.alpha, gamma=recipe.gamma)
        if network.settings.parameterization == "probability":
            return weighted_cross_entropy(output, target, weights, multilabel=network.multilabel)
        return weighted_mse(output, target, weights)

    def _distances(self, batch: int, device: torch.device) -> Tensor:
        """Distances |i − j| of positions of the K × K map: all of them, or a draw, (B, P)."""
        n_regions = self.network.n_regions
        shares = distance_weights(n_regions, device=device)
        if self.recipe.n_positions >= n_regions**2:
            counts = (shares * n_regions**2).round().long()
            return (
                torch.arange(n_regions, device=device).repeat_interleave(counts).expand(batch, -1)
            )
        return torch.multinomial(
            shares.expand(batch, -1), self.recipe.n_positions, replacement=True
        )

    def _blurred(
        self, conditions: Conditions, image_scale: Tensor, region_scale: Tensor
    ) -> Conditions:
        """Conditions with noise on their features, and the prior as it reads these.

        On its own training images a prior is nearly always right; what it says of blurred features
        is as fallible as what it says of new images.
        """
        image, region = (
            features + self.recipe.feature_noise * scale * torch.randn_like(features)
            for features, scale in (
                (conditions.image_features, image_scale),
                (conditions.region_features, region_scale),
            )
        )
        global_logits, local_logits = self.network.prior.reread(image, region)
        return replace(
            conditions,
            image_features=image,
            region_features=region,
            global_logits=global_logits,
            local_logits=local_logits,
        )
