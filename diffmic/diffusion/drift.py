"""The diffusion process of DiffMIC (v1): a vector of class probabilities that drifts to the prior.

In the notation of the paper, y is the clean label, ŷ the prediction of the prior, y_t the noisy
label at timestep t, ε the noise and ε̂ its prediction. The last dimension is the classes.

References
----------
Yang et al., "DiffMIC: Dual-Guidance Diffusion Network for Medical Image Classification", MICCAI
2023. The process is that of Han et al., "CARD: Classification and Regression Diffusion Models",
NeurIPS 2022.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .parameterization import Denoise, Denoised
from .schedule import TIMESTEP_SPACINGS, NoiseSchedule, over_positions


class Posterior(NamedTuple):
    """Coefficients of a step from timestep t back to s < t.

    y_s = γ₀ ŷ₀ + γ₁ y_t + γ₂ ŷ + σ z, with the posterior's standard deviation σ.
    """

    gamma_0: float
    gamma_1: float
    gamma_2: float
    sigma: float


def posterior(alpha_bar_t: float, alpha_bar_s: float) -> Posterior:
    """Coefficients of q(y_s | y_t, y_0, ŷ), s < t.

    With α = ᾱ_t / ᾱ_s, which is α_t where s = t − 1:

        γ₀ = (1 − α) √ᾱ_s / (1 − ᾱ_t)
        γ₁ = (1 − ᾱ_s) √α / (1 − ᾱ_t)
        γ₂ = 1 + (√ᾱ_t − 1)(√α + √ᾱ_s) / (1 − ᾱ_t)
        σ² = (1 − ᾱ_s) (1 − α) / (1 − ᾱ_t)

    Parameters
    ----------
    alpha_bar_t, alpha_bar_s : float
        Cumulative products ᾱ of the noise schedule at both timesteps.
    """
    alpha = alpha_bar_t / alpha_bar_s
    noise_t, noise_s = 1 - alpha_bar_t, 1 - alpha_bar_s
    a_t, a_s = math.sqrt(alpha_bar_t), math.sqrt(alpha_bar_s)
    return Posterior(
        gamma_0=(1 - alpha) * a_s / noise_t,
        gamma_1=noise_s * math.sqrt(alpha) / noise_t,
        gamma_2=1 + (a_t - 1) * (math.sqrt(alpha) + a_s) / noise_t,
        sigma=math.sqrt(noise_s / noise_t * (1 - alpha)),
    )


class DriftProcess(nn.Module):
    """Process of DiffMIC (v1): y_t = √ᾱ_t y + (1 − √ᾱ_t) ŷ + √(1 − ᾱ_t) ε.

    There is one position and one timestep per image.

    Parameters
    ----------
    schedule : NoiseSchedule
    timestep_spacing : {"trailing", "leading", "last"}
        Timesteps of the sampler. Trailing and leading: spread over the whole schedule, with the
        coefficients of the steps between them. Last: the last ``num_steps`` timesteps of the whole
        schedule, t = n − 1, …, 0, which start from pure noise all the same, as in the authors'
        code.

    Attributes
    ----------
    alpha_bar : tuple of float
        ᾱ of each timestep in double precision, since differences of ᾱ cancel in float32.
    """

    def __init__(self, schedule: NoiseSchedule, *, timestep_spacing: str) -> None:
        super().__init__()
        self.schedule = schedule
        self.timestep_spacing = timestep_spacing
        with torch.device("cpu"):
            exact = NoiseSchedule(
                schedule.num_train_timesteps,
                beta_start=schedule.beta_start,
                beta_end=schedule.beta_end,
                dtype=torch.float64,
            )
        self.alpha_bar: tuple[float, ...] = tuple(exact.alphas_cumprod.tolist())

    def forward(self, label: Tensor, noise: Tensor, timesteps: Tensor, guidance: Tensor) -> Tensor:
        """Noisy labels y_t = √ᾱ_t y + (1 − √ᾱ_t) ŷ + √(1 − ᾱ_t) ε.

        Parameters
        ----------
        label : Tensor of shape (B, C)
            Clean label y.
        noise : Tensor of shape (B, ..., C)
            Standard normal noise ε.
        timesteps : Tensor of shape (B, ...)
            Timestep t of each image.
        guidance : Tensor of shape (B, ..., C)
            Prediction ŷ of the prior, in probabilities.
        """
        a, s = self.schedule.signal[timesteps, None], self.schedule.noise[timesteps, None]
        return a * over_positions(label, noise) + (1 - a) * guidance + s * noise

    def denoised(self, predicted: Tensor, noisy: Tensor, t: int, guidance: Tensor) -> Denoised:
        """Estimate from ε̂, not clipped: ŷ₀ = (y_t − (1 − √ᾱ_t) ŷ − √(1 − ᾱ_t) ε̂) / √ᾱ_t."""
        a, s = math.sqrt(self.alpha_bar[t]), math.sqrt(1 - self.alpha_bar[t])
        return Denoised((noisy - (1 - a) * guidance - s * predicted) / a, predicted)

    def noise(
        self, n_draws: int, n_positions: int, num_classes: int, generator: torch.Generator
    ) -> Tensor:
        """Noise of a prediction with S draws, (S, T + 1, C), the same for every image.

        Row t is the noise z of the step that leaves timestep t, and row T that of the start, so
        that two samplers that visit the same timestep use the same noise there.
        """
        rows = self.schedule.num_train_timesteps + 1
        return torch.randn(n_draws, rows, num_classes, generator=generator)

    def timesteps(self, num_steps: int) -> list[int]:
        """Timesteps of the sampler, according to ``timestep_spacing``."""
        spacing = TIMESTEP_SPACINGS[self.timestep_spacing]
        return spacing(self.schedule.num_train_timesteps, num_steps)

    def backward(
        self, denoise: Denoise, noise: Tensor, guidance: Tensor, timesteps: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Ancestral sampling (DDPM) from y = ŷ + z; the last step gives ŷ₀.

        Parameters
        ----------
        denoise : callable
            Function ``(y_t, t)`` → :class:`Denoised`.
        noise : Tensor of shape (S, T + 1, C)
            Noise from :meth:`noise`.
        guidance : Tensor of shape (B, S, C)
            Prediction ŷ of the prior.
        timesteps : sequence of int
            Timesteps in decreasing order.

        Returns
        -------
        tuple of Tensor of shape (B, S, C)
            The final vector, and the mean of the estimates ŷ₀ of all steps.
        """
        z = noise.to(guidance)
        y = guidance + z[:, self.schedule.num_train_timesteps]
        total = torch.zeros_like(y)
        for t, s in zip(timesteps, [*timesteps[1:], None], strict=True):
            label = denoise(y, t).label
            total = total + label
            if s is None:
                y = label
            else:
                step = posterior(self.alpha_bar[t], self.alpha_bar[s])
                y = (
                    step.gamma_0 * label
                    + step.gamma_1 * y
                    + step.gamma_2 * guidance
                    + step.sigma * z[:, t]
                )
        return y, total / len(timesteps)


def antithetic_timesteps(
    n_images: int, num_train_timesteps: int, device: torch.device | None = None
) -> Tensor:
    """A timestep for each image, (B,), drawn in pairs t and T − 1 − t (antithetic sampling).

    Every timestep is equally likely, and a batch holds as much noise as any other.
    """
    half = torch.randint(num_train_timesteps, ((n_images + 1) // 2,), device=device)
    return torch.cat([half, num_train_timesteps - 1 - half])[:n_images]
