"""The network: prior, encoders, denoiser and schedule, with ``encode`` and ``sample``."""

from dataclasses import dataclass, replace
from typing import Literal, get_args, get_type_hints

import torch
from torch import Tensor, nn

from ..diffusion import (
    PARAMETERIZATIONS,
    SAMPLERS,
    TIMESTEP_GRIDS,
    Denoised,
    NoiseSchedule,
    Parameterization,
    expand_distances,
    guidance_by_distance,
    scores_by_distance,
)
from ..errors import InputError
from .backbone import Backbone
from .conditions import Conditions
from .denoiser import ContextFusion, Denoiser, FoldedDenoiser
from .prior import DualGranularityPrior
from .regions import PixelCrops


@dataclass(frozen=True)
class DiffusionSettings:
    """How label maps are guided, denoised and started; part of a saved model.

    Attributes
    ----------
    parameterization : {"probability", "noise", "v", "label"}
        What the denoiser predicts; ``"probability"``: logits of the clean label, learnt by
        cross-entropy.
    guidance : {"logits", "probabilities"}
        Scale of the prior in the guidance map.
    start : {"gaussian", "uniform"}
        Start of sampling: noise for each distance, or the authors' guidance map of two uniform
        draws.
    grid : {"trailing", "leading"}
        Time-steps that are visited.
    sampler : {"ddim", "dpm-solver++"}
        How they are walked.
    readout : {"mean", "last"}
        What the scores are read from: the mean of the clean labels that all steps estimate, or
        the last label map. Each estimate is a posterior mean, while the last map of a draw has
        made up its mind: a few such draws know no small probabilities.
    """

    parameterization: Literal["probability", "noise", "v", "label"] = "probability"
    guidance: Literal["logits", "probabilities"] = "probabilities"
    start: Literal["gaussian", "uniform"] = "gaussian"
    grid: Literal["trailing", "leading"] = "trailing"
    sampler: Literal["ddim", "dpm-solver++"] = "ddim"
    readout: Literal["mean", "last"] = "mean"

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            if getattr(self, name) not in get_args(kind):
                raise InputError(
                    f"{name} is {getattr(self, name)!r}; give one of {list(get_args(kind))}."
                )


class DiffMICNetwork(nn.Module):
    """DiffMIC-v2, composed of its parts.

    Parameters
    ----------
    prior : DualGranularityPrior
        Gives the logits of both granularities, the saliency and the regions.
    image_encoder : Backbone or None
        Encoder of the image for the context; None: the prior's backbone serves.
    region_encoder : PixelCrops or None
        Encoder of the regions for the context; None: the prior's region features serve.
    context : ContextFusion
    denoiser : Denoiser
    schedule : NoiseSchedule
    settings : DiffusionSettings
    multilabel : bool
        Whether labels are independent (sigmoid) or exclusive (softmax).
    """

    def __init__(
        self,
        prior: DualGranularityPrior,
        image_encoder: Backbone | None,
        region_encoder: PixelCrops | None,
        context: ContextFusion,
        denoiser: Denoiser,
        schedule: NoiseSchedule,
        *,
        settings: DiffusionSettings,
        multilabel: bool = False,
    ) -> None:
        super().__init__()
        self.prior = prior
        self.image_encoder = image_encoder
        self.region_encoder = region_encoder
        self.context = context
        self.denoiser = denoiser
        self.schedule = schedule
        self.settings = settings
        self.multilabel = multilabel

    @property
    def num_classes(self) -> int:
        """C."""
        return self.denoiser.out.out_features

    @property
    def parameterization(self) -> Parameterization:
        """What the denoiser predicts, as functions."""
        name: str = self.settings.parameterization
        if name == "probability":
            name = "sigmoid" if self.multilabel else "softmax"
        return PARAMETERIZATIONS[name]

    @property
    def n_regions(self) -> int:
        """K."""
        return self.prior.n_regions

    def encode(self, images: Tensor) -> Conditions:
        """Everything the diffusion needs about images (B, 3, H, W) in 0–1; once per image."""
        conditions: Conditions
        conditions, cells = self.prior(images)
        if self.image_encoder is not None:
            conditions = replace(conditions, image_features=self.image_encoder.pooled(images))
        if self.region_encoder is not None:
            region_features = self.region_encoder(images, None, cells)
            conditions = replace(conditions, region_features=region_features)
        return conditions

    def guidance(self, conditions: Conditions) -> Tensor:
        """Guidance map by distance, (B, K, C)."""
        priors = conditions.global_logits, conditions.local_logits
        if self.settings.guidance == "probabilities":
            squash = torch.sigmoid if self.multilabel else (lambda x: x.softmax(dim=-1))
            priors = squash(priors[0]), squash(priors[1])
        return guidance_by_distance(*priors, self.n_regions)

    def start(self, n_samples: int, generator: torch.Generator) -> Tensor:
        """Start maps by distance, (S, K, C): the same for every image.

        So a prediction depends on the seed alone, not on the batch, the order or the neighbours.
        The generator lives on the CPU, so that every device starts alike.
        """
        if self.settings.start == "uniform":
            draws = torch.rand(2, n_samples, self.num_classes, generator=generator)
            return guidance_by_distance(draws[0], draws[1], self.n_regions)
        return torch.randn(n_samples, self.n_regions, self.num_classes, generator=generator)

    def denoise(
        self,
        guidance: Tensor,
        noisy: Tensor,
        t: int,
        context: Tensor,
        denoiser: Denoiser | FoldedDenoiser | None = None,
    ) -> Denoised:
        """Estimates of label and noise for noisy maps (B, ..., C), all at time-step ``t``."""
        output = (denoiser or self.denoiser)(guidance, noisy, t, context)
        signal, noise = self.schedule.signal[t], self.schedule.noise[t]
        return self.parameterization.denoised(output, noisy, signal, noise)

    def sample(
        self, conditions: Conditions, start: Tensor, *, num_steps: int, dense: bool = False
    ) -> Tensor:
        """Class scores: the mean of the label map over its positions.

        Parameters
        ----------
        conditions : Conditions
            Of B images.
        start : Tensor of shape (S, K, C)
            Start maps by distance, from :meth:`start`: S draws for every image.
        num_steps : int
            Number of steps of the sampler.
        dense : bool
            Step all K² positions instead of one per distance. The scores are the same; it is
            there to check just that.

        Returns
        -------
        Tensor of shape (B, S, C)
            Scores of each draw, between −1 and 1.
        """
        guidance = self.guidance(conditions)[:, None].expand(-1, len(start), -1, -1)
        y = start.to(guidance)[None].expand(len(conditions), -1, -1, -1)  # (B, S, K, C)
        if dense:
            guidance, y = expand_distances(guidance), expand_distances(y)
        context = self.context(conditions.image_features, conditions.region_features)
        timesteps = TIMESTEP_GRIDS[self.settings.grid](self.schedule.num_train_timesteps, num_steps)
        denoiser = self.denoiser if self.training else self.denoiser.folded(timesteps)
        estimates: list[Tensor] = []
        label_map = SAMPLERS[self.settings.sampler](
            lambda noisy, t: self.denoise(guidance, noisy, t, context, denoiser),
            y,
            self.schedule,
            timesteps,
            callback=lambda t, noisy, denoised: estimates.append(denoised.label),
        )
        if self.settings.readout == "mean":
            label_map = torch.stack(estimates).mean(dim=0)
        return label_map.mean(dim=(2, 3)) if dense else scores_by_distance(label_map)
