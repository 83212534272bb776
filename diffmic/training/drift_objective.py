"""Training objective of DiffMIC (v1): denoising under three priors, the noises alike."""

import torch
from torch import Tensor

from ..diffusion import antithetic_timesteps, mmd, weighted_mse
from ..model import Conditions, VectorNetwork
from .objectives import DenoiserObjective
from .own_loss import own_loss


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
