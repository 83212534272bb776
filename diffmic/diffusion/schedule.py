"""The noise schedule, and the timestep spacings of samplers."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

USUAL_TIMESTEPS = 1000  # number of timesteps for which the variances are given
LARGEST_BETA = 0.999  # so that with few timesteps the signal level stays above zero


class NoiseSchedule(nn.Module):
    """Linear noise schedule, as named buffers that follow the device and dtype of the module.

    The variances β are those of 1000 timesteps multiplied by 1000 / T and clipped to 0.999, so that
    the last timestep is almost pure noise for every T.

    Parameters
    ----------
    num_train_timesteps : int
        T, the number of training timesteps.
    beta_start, beta_end : float
        First and last variance of a schedule of 1000 timesteps, linear in between.
    dtype : torch.dtype
        Data type of the buffers, which are always computed in float64.

    Attributes
    ----------
    betas, alphas_cumprod : Tensor of shape (T,)
        Variances β and cumulative products ᾱ = Π(1 − β).
    signal, noise : Tensor of shape (T,)
        Signal level √ᾱ and noise level √(1 − ᾱ) of a noisy label.

    References
    ----------
    Ho et al., "Denoising Diffusion Probabilistic Models", NeurIPS 2020, section 4.
    """

    betas: Tensor
    alphas_cumprod: Tensor
    signal: Tensor
    noise: Tensor

    def __init__(
        self,
        num_train_timesteps: int = 1000,
        *,
        beta_start: float = 1e-4,
        beta_end: float = 2e-2,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.num_train_timesteps = num_train_timesteps
        self.beta_start, self.beta_end = beta_start, beta_end
        scale = USUAL_TIMESTEPS / num_train_timesteps
        betas = torch.linspace(
            scale * beta_start, scale * beta_end, num_train_timesteps, dtype=torch.float64
        ).clamp(max=LARGEST_BETA)
        alphas_cumprod = torch.cumprod(1 - betas, dim=0)
        tables = {
            "betas": betas,
            "alphas_cumprod": alphas_cumprod,
            "signal": alphas_cumprod.sqrt(),
            "noise": (1 - alphas_cumprod).sqrt(),
        }
        for name, table in tables.items():
            # Derived from three numbers, so they are not saved with a model.
            self.register_buffer(name, table.to(dtype), persistent=False)

    def add_noise(self, label: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Heterologous forward process: each position has its own timestep and noise.

        y_t = √ᾱ(t) y + √(1 − ᾱ(t)) ε  (DiffMIC-v2, forward process).

        Parameters
        ----------
        label : Tensor of shape (B, C)
            Clean label, the same at every position.
        noise : Tensor of shape (B, ..., C)
            Standard normal noise, one vector per position.
        timesteps : Tensor of shape (B, ...)
            Timestep of each position, integers in 0..T−1.

        Returns
        -------
        Tensor of shape (B, ..., C)
            Noisy label map y_t.
        """
        label = over_positions(label, noise)
        return self.signal[timesteps, None] * label + self.noise[timesteps, None] * noise


def over_positions(per_image: Tensor, like: Tensor) -> Tensor:
    """View (B, C) as (B, 1, ..., 1, C), to broadcast with position maps (B, ..., C)."""
    return per_image.view(per_image.shape[0], *[1] * (like.ndim - 2), per_image.shape[-1])


def leading_timesteps(num_train_timesteps: int, num_steps: int) -> list[int]:
    """Leading spacing, as in the authors' code: ⌊T/n⌋·(n−1), …, ⌊T/n⌋, 0; T−1 only if n = T."""
    _check_num_steps(num_train_timesteps, num_steps)
    stride = num_train_timesteps // num_steps
    return [stride * k for k in reversed(range(num_steps))]


def trailing_timesteps(num_train_timesteps: int, num_steps: int) -> list[int]:
    """Trailing spacing, for few steps: round(T − k·T/n) − 1 for k = 0..n−1; it starts at T−1.

    References
    ----------
    Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed", WACV 2024.
    """
    _check_num_steps(num_train_timesteps, num_steps)
    stride = num_train_timesteps / num_steps
    return [round(num_train_timesteps - k * stride) - 1 for k in range(num_steps)]


def last_timesteps(num_train_timesteps: int, num_steps: int) -> list[int]:
    """The last timesteps of the whole schedule, not spread over it: n−1, …, 1, 0."""
    _check_num_steps(num_train_timesteps, num_steps)
    return list(reversed(range(num_steps)))


TIMESTEP_SPACINGS = {
    "leading": leading_timesteps,
    "trailing": trailing_timesteps,
    "last": last_timesteps,
}


def _check_num_steps(num_train_timesteps: int, num_steps: int) -> None:
    """Check the number of steps for any of the spacings above; else a ValueError."""
    if not 1 <= num_steps <= num_train_timesteps:
        raise ValueError(
            f"num_steps is {num_steps}; it must lie between 1 and the {num_train_timesteps} "
            "timesteps of the noise schedule (num_train_timesteps)."
        )


def levels_at(schedule: NoiseSchedule, timesteps: Sequence[int]) -> tuple[Tensor, Tensor]:
    """√ᾱ and √(1 − ᾱ) at n decreasing timesteps and at the end, where ᾱ = 1; each (n + 1,)."""
    index = torch.as_tensor(timesteps, device=schedule.signal.device)
    signal = torch.cat([schedule.signal[index], schedule.signal.new_ones(1)])
    noise = torch.cat([schedule.noise[index], schedule.noise.new_zeros(1)])
    return signal, noise
