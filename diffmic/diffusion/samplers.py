"""Samplers: plain functions from a denoiser and a noisy label map to a clean one.

Every sampler calls ``denoise(y, t)``, which returns a :class:`Denoised` pair for the noisy map
``y`` at the integer timestep ``t``, so samplers do not depend on the parameterisation.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .parameterization import Denoise, Denoised
from .schedule import NoiseSchedule, levels_at

Callback = Callable[[int, Tensor, Denoised], None]


def ddim(
    denoise: Denoise,
    y: Tensor,
    schedule: NoiseSchedule,
    timesteps: Sequence[int],
    *,
    clip: float | None = 1.0,
    callback: Callback | None = None,
) -> Tensor:
    """DDIM with η = 0 (Song et al., ICLR 2021, equation 12).

    Parameters
    ----------
    denoise : callable
        Function ``(y, t)`` → :class:`Denoised`.
    y : Tensor of shape (B, ..., C)
        Initial label map, at the noise level of ``timesteps[0]``.
    schedule : NoiseSchedule
        Noise schedule used in training.
    timesteps : sequence of int
        Timesteps in decreasing order; after the last one ᾱ = 1.
    clip : float or None
        Bound of ŷ₀, which is clipped to [−clip, clip]; ε̂ is not recomputed. None: no clipping.
    callback : callable or None
        Function called as ``(t, y, denoised)`` before each step, with ŷ₀ clipped.

    Returns
    -------
    Tensor of shape (B, ..., C)
        Label map after the last step.
    """
    signal, noise = levels_at(schedule, timesteps)
    for step, t in enumerate(timesteps):
        denoised = _clipped(denoise(y, t), clip)
        if callback is not None:
            callback(t, y, denoised)
        y = signal[step + 1] * denoised.label + noise[step + 1] * denoised.noise
    return y


def dpm_solver_pp_2m(
    denoise: Denoise,
    y: Tensor,
    schedule: NoiseSchedule,
    timesteps: Sequence[int],
    *,
    clip: float | None = 1.0,
    callback: Callback | None = None,
) -> Tensor:
    """DPM-Solver++ (2M), second order, multistep (Lu et al., 2022, algorithm 2).

    Parameters and return value are those of :func:`ddim`. The first step and the last one, which
    ends at ᾱ = 1, are first-order.
    """
    signal, noise = levels_at(schedule, timesteps)
    log_snr = torch.log(signal) - torch.log(noise)  # λ; infinite after the last step
    previous_label: Tensor | None = None
    for step, t in enumerate(timesteps):
        denoised = _clipped(denoise(y, t), clip)
        if callback is not None:
            callback(t, y, denoised)
        h = log_snr[step + 1] - log_snr[step]
        direction = denoised.label
        if previous_label is not None and step < len(timesteps) - 1:
            r = (log_snr[step] - log_snr[step - 1]) / h
            direction = direction + (denoised.label - previous_label) / (2 * r)
        y = noise[step + 1] / noise[step] * y - signal[step + 1] * torch.expm1(-h) * direction
        previous_label = denoised.label
    return y


SAMPLERS = {"ddim": ddim, "dpm-solver++": dpm_solver_pp_2m}


def _clipped(denoised: Denoised, clip: float | None) -> Denoised:
    if clip is None:
        return denoised
    return Denoised(denoised.label.clamp(-clip, clip), denoised.noise)
