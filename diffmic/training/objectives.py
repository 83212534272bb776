"""Training objectives: modules whose forward takes a batch and returns the loss."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Self

import torch
from torch import Tensor, nn

from ..diffusion import (
    antithetic_timesteps,
    distance_weights,
    focal_weights,
    mmd,
    weighted_mse,
)
from ..diffusion.schedule import over_positions
from ..model import Conditions, DiffMICNetwork, VectorNetwork
from .own_loss import own_loss
from .recipe import Recipe


class PriorObjective(nn.Module):
    """Training objective of stage one: classification by the prior.

    The loss of the paper uses the fused logits. With ``branch_losses``, each branch has its own
    loss, too, so that neither branch relies on the other.
    """

    def __init__(self, network: DiffMICNetwork, recipe: Recipe) -> None:
        super().__init__()
        self.prior = network.prior
        self.task = network.task
        self.recipe = recipe

    def forward(
        self,
        images: Tensor,
        targets: Tensor,
        weights: Tensor,
        originals: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Loss of images (B, 3, H, W) in 0–1 with targets (B, C) and weights (B,)."""
        conditions, _ = self.prior(images, originals)
        return self.loss(conditions, targets, weights)

    def loss(self, conditions: Conditions, targets: Tensor, weights: Tensor) -> Tensor:
        """Loss of conditions of the prior for B images."""
        readings = [conditions.fused_logits]
        if self.recipe.branch_losses:
            readings += [conditions.global_logits, conditions.local_logits]
        losses = [self._loss(logits.float(), targets) for logits in readings]
        return (weights * torch.stack(losses).mean(dim=0)).mean()

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        if (own := self.recipe.prior_loss) is not None:
            return own_loss("prior_loss", own, logits, targets)
        return self.task.training_loss(
            logits,
            targets,
            label_smoothing=self.recipe.label_smoothing,
            grade_weight=self.recipe.grade_weight,
        )


class DenoiserObjective(nn.Module):
    """Training objective of stage two: denoising of the heterologous forward process.

    Parameters
    ----------
    network : DiffMICNetwork
        Network to train, whose prior is frozen.
    recipe : Recipe
    feature_scales : tuple of Tensor or None
        Standard deviations (D,) and (D',) of image and region features of the prior, the units of
        ``feature_noise``; None: no noise.
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
        """Set training mode, except for the prior: it is frozen, with its batch norm statistics."""
        super().train(mode)
        self.network.prior.eval()
        return self

    def forward(self, conditions: Conditions, targets: Tensor, weights: Tensor) -> Tensor:
        """:meth:`loss` of conditions, with feature noise if the recipe has it."""
        rereads = self.network.prior.rereads  # else logits would not follow the changed features
        if self.recipe.feature_noise and self.feature_scales is not None and rereads:
            conditions = self._blurred(conditions, *self.feature_scales)
        return self.loss(conditions, targets, weights)

    def loss(self, conditions: Conditions, targets: Tensor, weights: Tensor) -> Tensor:
        """Loss of conditions of B images with targets (B, C) and weights (B,)."""
        network, recipe = self.network, self.recipe
        context = network.context(conditions.image_features, conditions.region_features)

        distances = self._distances(len(targets), targets.device)  # (B, P)
        guidance = network.guidance(conditions).gather(
            1, distances[..., None].expand(-1, -1, network.num_classes)
        )  # (B, P, C)
        schedule = network.process.schedule
        timesteps = torch.randint(
            schedule.num_train_timesteps, distances.shape, device=targets.device
        )
        noise = torch.randn_like(guidance)
        known, labels = self._filled(targets, conditions)
        noisy = network.process.forward(labels, noise, timesteps, guidance)
        output = network.denoiser(guidance, noisy, timesteps, context)

        levels = schedule.signal[timesteps, None], schedule.noise[timesteps, None]
        label = over_positions(labels, noise).expand_as(noise)
        target = network.parameterization.target(label, noise, *levels)
        confidence = network.task.confidence(conditions.fused_logits, targets)
        weights = weights * focal_weights(confidence, alpha=recipe.alpha, gamma=recipe.gamma)
        classifies = network.settings.prediction_type == "probability"
        if not classifies:  # no error, and no gradient, where the label is not known
            output = torch.where(over_positions(known, output), output, target)
        if recipe.denoiser_loss is not None:
            wanted = over_positions(targets, noise).expand_as(noise) if classifies else target
            losses = own_loss("denoiser_loss", recipe.denoiser_loss, output, wanted)
        elif classifies:
            losses = network.task.training_loss(
                output, over_positions(targets, noise), grade_weight=recipe.grade_weight
            )
        elif network.denoiser.mixes_positions:
            losses = (output - target).square().mean(dim=-1)
        else:
            return weighted_mse(output, target, weights)
        if network.denoiser.mixes_positions:  # each distance is there once, however often it occurs
            n_regions = network.n_regions
            losses = losses * n_regions * distance_weights(n_regions, device=losses.device)
        return (weights[:, None] * losses).mean()

    def _filled(self, targets: Tensor, conditions: Conditions) -> tuple[Tensor, Tensor]:
        """Which targets (B, C) are known, and the targets with the prior's probability elsewhere.

        The denoiser sees all labels of an image at once, and learns which occur together. A 0 for
        an unknown label would teach it that the label is absent where the others are as they are.
        The prior's probability adds nothing that the image does not say, and resembles what the
        sampler shows the denoiser of labels that are being predicted.
        """
        known = ~targets.isnan()
        expected = self.network.task.probabilities(conditions.fused_logits.detach())
        return known, torch.where(known, targets, expected)

    def _distances(self, batch: int, device: torch.device) -> Tensor:
        """Distances |i − j| of all positions of the K × K map, or of a random sample; (B, P)."""
        n_regions = self.network.n_regions
        if self.network.denoiser.mixes_positions:
            return torch.arange(n_regions, device=device).expand(batch, -1)
        shares = distance_weights(n_regions, device=device)
        if self.recipe.n_positions >= n_regions**2:
            counts = (shares * n_regions**2).round().long()
            every = torch.arange(n_regions, device=device).repeat_interleave(counts)
            return every.expand(batch, -1)
        shares = shares.expand(batch, -1)
        return torch.multinomial(shares, self.recipe.n_positions, replacement=True)

    def _blurred(
        self, conditions: Conditions, image_scale: Tensor, region_scale: Tensor
    ) -> Conditions:
        """Conditions with Gaussian noise on the features and recomputed logits of the prior.

        The prior is over-confident on its training images; with noisy features its errors resemble
        those on new images.
        """
        image, region = (
            features + self.recipe.feature_noise * scale * torch.randn_like(features)
            for features, scale in (
                (conditions.image_features, image_scale),
                (conditions.region_features, region_scale),
            )
        )
        global_logits, local_logits = self.network.prior.reread(
            image, region, conditions.region_weights
        )
        return replace(
            conditions,
            image_features=image,
            region_features=region,
            global_logits=global_logits,
            local_logits=local_logits,
        )


class DriftObjective(DenoiserObjective):
    """Training objective of DiffMIC (v1) for the denoiser, given the prior.

        L = ‖ε̂ − ε‖² + ½ (MMD(ε, ε̂_g) + MMD(ε, ε̂_l))

    The same noise ε at the same timestep is predicted three times: under the fused prediction ŷ of
    the prior, and under those of its global and local branch, ŷ_g and ŷ_l, to each of which the
    label drifts in its turn. The timesteps are antithetic. A ``denoiser_loss`` of one's own
    replaces the squared error. Parameters are those of :class:`DenoiserObjective`, of a
    :class:`~diffmic.model.VectorNetwork`.

    References
    ----------
    Yang et al., MICCAI 2023, "Condition-specific MMD regularization", and "Training and inference
    scheme".
    """

    network: VectorNetwork

    def loss(self, conditions: Conditions, targets: Tensor, weights: Tensor) -> Tensor:
        """Loss of conditions of B images with targets (B, C) and weights (B,)."""
        network, n_images = self.network, len(targets)
        context = network.context(conditions.image_features)
        known, label = self._filled(targets, conditions)
        noise = torch.randn_like(label)
        timesteps = antithetic_timesteps(
            n_images, network.process.schedule.num_train_timesteps, targets.device
        )

        def predicted_noise(guidance: Tensor) -> Tensor:
            """ε̂ = ε_θ(y_t, ŷ, x, t) under a prior ŷ (B, C); no error where no label is known."""
            noisy = network.process(label, noise, timesteps, guidance)
            predicted: Tensor = network.denoiser(guidance, noisy, timesteps, context)
            return torch.where(known, predicted, noise)

        fused, branches = network.guidance(conditions), network.branch_guidance(conditions)
        predicted = predicted_noise(fused)
        if (own := self.recipe.denoiser_loss) is None:
            loss = weighted_mse(predicted, noise, weights)
        else:
            loss = (weights * own_loss("denoiser_loss", own, predicted, noise)).mean()
        alike = [mmd(noise, predicted_noise(branch), weights) for branch in branches]
        return loss + (alike[0] + alike[1]) / 2


def denoiser_objective(network: DiffMICNetwork, recipe: Recipe) -> DenoiserObjective:
    """Training objective of the denoiser, that of the network's process."""
    kind = DriftObjective if network.settings.process == "drift" else DenoiserObjective
    return kind(network, recipe)
