"""The diffusion process: forward noising of labels, and reverse sampling of label maps."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from .guidance import guidance_by_distance
from .parameterization import Denoise
from .samplers import SAMPLERS
from .schedule import TIMESTEP_SPACINGS, NoiseSchedule


class Process(Protocol):
    """Interface of a diffusion process for training and sampling.

    ``guidance`` (B, ..., C) is the guidance map of the prior, towards which a process may drift.
    All noise is passed in, so that the same seed gives every image the same noise.
    """

    schedule: NoiseSchedule

    def forward(self, label: Tensor, noise: Tensor, timesteps: Tensor, guidance: Tensor) -> Tensor:
        """Noisy labels (B, ..., C) from clean labels (B, C), with a timestep for each position."""
        ...

    def noise(
        self, n_draws: int, n_positions: int, num_classes: int, generator: torch.Generator
    ) -> Tensor:
        """All noise of a prediction with S draws, (S, ...), on the CPU: of the start, of steps."""
        ...

    def timesteps(self, num_steps: int) -> list[int]:
        """Timesteps of the sampler, in decreasing order."""
        ...

    def backward(
        self, denoise: Denoise, noise: Tensor, guidance: Tensor, timesteps: list[int]
    ) -> tuple[Tensor, Tensor]:
        """Reverse process: the final label map, and the mean over the steps of its estimates.

        Parameters
        ----------
        denoise : callable
            Function ``(y_t, t)`` → :class:`~.parameterization.Denoised`.
        noise : Tensor of shape (S, ...)
            Noise from :meth:`noise`.
        guidance : Tensor of shape (B, S, ..., C)
            Guidance of the prior, repeated for each draw.
        timesteps : list of int
            Timesteps from :meth:`timesteps`.

        Returns
        -------
        tuple of Tensor of shape (B, S, ..., C)
        """
        ...


class LabelMapProcess(nn.Module):
    """Heterologous process of DiffMIC-v2: each position has its own timestep and noise.

    Parameters
    ----------
    schedule : NoiseSchedule
    start : {"gaussian", "uniform"}
        Initial label map of sampling: Gaussian noise at each distance, or, as in the authors'
        code, the guidance map of two uniform draws.
    timestep_spacing : {"trailing", "leading"}
        Spacing of the timesteps of the sampler.
    sampler : {"ddim", "dpm-solver++"} or callable
        Sampling algorithm: its name, or a function as :func:`~.samplers.ddim` is.
    """

    def __init__(
        self,
        schedule: NoiseSchedule,
        *,
        start: str,
        timestep_spacing: str,
        sampler: str | Callable[..., Tensor],
    ) -> None:
        super().__init__()
        self.schedule = schedule
        self.start_kind = start
        self.timestep_spacing = timestep_spacing
        self.sampler = sampler

    def forward(self, label: Tensor, noise: Tensor, timesteps: Tensor, guidance: Tensor) -> Tensor:
        """Noisy labels y_t = √ᾱ(t) y + √(1 − ᾱ(t)) ε; the guidance is not used."""
        return self.schedule.add_noise(label, noise, timesteps)

    def noise(
        self, n_draws: int, n_positions: int, num_classes: int, generator: torch.Generator
    ) -> Tensor:
        """Initial maps by distance, (S, K, C), the same for every image."""
        if self.start_kind == "uniform":
            draws = torch.rand(2, n_draws, num_classes, generator=generator)
            return guidance_by_distance(draws[0], draws[1], n_positions)
        return torch.randn(n_draws, n_positions, num_classes, generator=generator)

    def start(self, noise: Tensor, guidance: Tensor) -> Tensor:
        """The noise itself, expanded to the images of the guidance (B, S, ..., C)."""
        return noise.to(guidance)[None].expand_as(guidance)

    def timesteps(self, num_steps: int) -> list[int]:
        """Timesteps of the sampler, according to ``timestep_spacing``."""
        spacing = TIMESTEP_SPACINGS[self.timestep_spacing]
        return spacing(self.schedule.num_train_timesteps, num_steps)

    def backward(
        self, denoise: Denoise, noise: Tensor, guidance: Tensor, timesteps: list[int]
    ) -> tuple[Tensor, Tensor]:
        """Run the sampler from :meth:`start`; see :meth:`Process.backward`."""
        estimates: list[Tensor] = []
        sampler = SAMPLERS[self.sampler] if isinstance(self.sampler, str) else self.sampler
        label_map = sampler(
            denoise,
            self.start(noise, guidance),
            self.schedule,
            timesteps,
            callback=lambda t, noisy, denoised: estimates.append(denoised.label),
        )
        return label_map, torch.stack(estimates).mean(dim=0)
