"""The network: prior, encoders, denoiser and process, with ``encode`` and ``sample``."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..diffusion import (
    PARAMETERIZATIONS,
    Denoised,
    Parameterization,
    Process,
    expand_distances,
    guidance_by_distance,
    scores_by_distance,
)
from ..tasks import MULTICLASS, Task
from .architecture import DiffusionSettings
from .backbone import Backbone
from .conditions import Conditions
from .denoiser import Denoiser, FoldedDenoiser
from .own import OwnDenoiser, OwnPrior
from .prior import DualGranularityPrior
from .regions import PixelCrops

FORWARD_DRAWS, FORWARD_STEPS = 8, 10  # of a call of the network itself

Watch = Callable[[Tensor, Denoised], None]


class DiffMICNetwork(nn.Module):
    """Network of DiffMIC-v2: prior, encoders, denoiser and diffusion process.

    Parameters
    ----------
    prior : DualGranularityPrior
        Prior, which computes logits of both granularities, saliency map and regions.
    image_encoder : Backbone or None
        Image encoder of the context; None: the backbone of the prior is shared.
    region_encoder : PixelCrops or None
        Region encoder of the context; None: the region features of the prior are shared.
    context : nn.Module
        Fusion of image and region features into the context, a
        :class:`~.denoiser.ContextFusion`.
    denoiser : Denoiser
    process : Process
        Diffusion process: forward noising and reverse sampling.
    settings : DiffusionSettings
    task : Task
        Type of task.
    """

    process: Process
    forward_noise: Tensor

    def __init__(
        self,
        prior: DualGranularityPrior | OwnPrior,
        image_encoder: Backbone | None,
        region_encoder: PixelCrops | None,
        context: nn.Module,
        denoiser: Denoiser | OwnDenoiser,
        process: Process,
        *,
        settings: DiffusionSettings,
        task: Task = MULTICLASS,
    ) -> None:
        super().__init__()
        self.prior = prior
        self.image_encoder = image_encoder
        self.region_encoder = region_encoder
        self.context = context
        self.denoiser = denoiser
        self.process = process
        self.settings = settings
        self.task = task
        with torch.device("cpu"):
            noise = self.noise(FORWARD_DRAWS, torch.Generator().manual_seed(0))
        # Not saved: it is the same for every network of these sizes.
        self.register_buffer("forward_noise", noise, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Class scores of images (B, 3, H, W) in 0–1, for tools that call a network: (B, C).

        They are the mean of :data:`FORWARD_DRAWS` draws of :meth:`sample` with
        :data:`FORWARD_STEPS` steps, from noise that is always the same, and can be differentiated
        with respect to the images. They are not calibrated, as those of
        ``DiffMICClassifier.predict_proba`` are.
        """
        num_steps = min(FORWARD_STEPS, self.process.schedule.num_train_timesteps)
        scores = self.sample(self.encode(images), self.forward_noise, num_steps=num_steps)
        return scores.mean(dim=1)

    @property
    def num_classes(self) -> int:
        """Number of classes, C."""
        return self.denoiser.num_classes

    @property
    def parameterization(self) -> Parameterization:
        """Parameterisation of the denoiser's output."""
        name: str = self.settings.prediction_type
        return PARAMETERIZATIONS[self.task.squash if name == "probability" else name]

    @property
    def n_regions(self) -> int:
        """Number of regions, K."""
        return self.prior.n_regions

    def encode(
        self, images: Tensor, originals: Tensor | Sequence[Tensor] | None = None
    ) -> Conditions:
        """Conditions of images (B, 3, H, W) in 0–1, computed once per image.

        ``originals`` are those of :meth:`DualGranularityPrior.forward`.
        """
        conditions: Conditions
        conditions, cells = self.prior(images, originals)
        if self.image_encoder is not None:
            conditions = replace(
                conditions, image_features=self.image_encoder.pooled(self.prior.whole(images))
            )
        if self.region_encoder is not None:
            own_boxes = cells.shape[-1] == 4  # of a region finder of one's own
            read = self.region_encoder.in_boxes if own_boxes else self.region_encoder
            conditions = replace(conditions, region_features=read(images, None, cells))
        return conditions

    def guidance(self, conditions: Conditions) -> Tensor:
        """Guidance map by distance, (B, K, C)."""
        priors = conditions.global_logits, conditions.local_logits
        if self.settings.guidance == "probabilities":
            priors = self.task.probabilities(priors[0]), self.task.probabilities(priors[1])
        return guidance_by_distance(*priors, self.n_regions)

    def noise(self, n_draws: int, generator: torch.Generator) -> Tensor:
        """Noise of a prediction with S draws, (S, K, C), the same for every image.

        A prediction therefore depends on the image and the seed, but not on the batch or the order
        of the images. The generator is on the CPU, so that the noise is the same on every device.
        """
        return self.process.noise(n_draws, self.n_regions, self.num_classes, generator)

    def denoise(
        self,
        guidance: Tensor,
        noisy: Tensor,
        t: int,
        context: Tensor,
        denoiser: Denoiser | FoldedDenoiser | OwnDenoiser | None = None,
    ) -> Denoised:
        """Estimates of clean label and noise for noisy maps (B, ..., C), all at timestep ``t``."""
        output = (denoiser or self.denoiser)(guidance, noisy, t, context)
        return self.estimates(output, noisy, t, guidance)

    def estimates(self, output: Tensor, noisy: Tensor, t: int, guidance: Tensor) -> Denoised:
        """The estimates that an output of the denoiser stands for."""
        schedule = self.process.schedule
        signal, noise = schedule.signal[t], schedule.noise[t]
        return self.parameterization.denoised(output, noisy, signal, noise)

    def sample(
        self,
        conditions: Conditions,
        noise: Tensor,
        *,
        num_steps: int,
        dense: bool = False,
        watch: Watch | None = None,
    ) -> Tensor:
        """Sample class scores: the mean of the label map over its positions.

        Parameters
        ----------
        conditions : Conditions
            Conditions of B images.
        noise : Tensor of shape (S, K, C)
            Noise from :meth:`noise`, for S draws per image.
        num_steps : int
            Number of sampler steps.
        dense : bool
            Whether to process all K² positions instead of one per distance. The scores are the
            same; the option exists to verify this.
        watch : callable or None
            Function called at each step with the noisy maps (B, S, K, C) and the estimates.

        Returns
        -------
        Tensor of shape (B, S, C)
            Scores of each draw, between −1 and 1.
        """
        guidance = self.guidance(conditions)[:, None].expand(-1, noise.shape[0], -1, -1)
        if dense:
            guidance, noise = expand_distances(guidance), expand_distances(noise)
        context = self.context(conditions.image_features, conditions.region_features)
        last, mean = self._backward(guidance, noise, context, num_steps, watch)
        label_map = mean if self.settings.readout == "mean" else last
        return label_map.mean(dim=(2, 3)) if dense else scores_by_distance(label_map)

    def _backward(
        self, guidance: Tensor, noise: Tensor, context: Tensor, num_steps: int, watch: Watch | None
    ) -> tuple[Tensor, Tensor]:
        """The reverse process: the final maps, and the mean of the estimates of all steps."""
        timesteps = self.process.timesteps(num_steps)
        denoiser = self.denoiser if self.training else self.denoiser.folded(timesteps)

        def denoise(noisy: Tensor, t: int) -> Denoised:
            denoised = self.denoise(guidance, noisy, t, context, denoiser)
            if watch is not None:
                watch(noisy, denoised)
            return denoised

        return self.process.backward(denoise, noise, guidance, timesteps)
