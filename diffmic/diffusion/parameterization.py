"""Prediction types of a denoiser: noise, velocity v, clean label, or label probabilities.

Each parameterisation is a pair of functions of the signal level a = √ᾱ and the noise level
s = √(1 − ᾱ): from (label, noise) to the training target, and from the output of the network to
a :class:`Denoised` pair, on which samplers work. For noise, v and label, the two functions are
inverses of each other. With softmax and sigmoid, the network learns the clean label by
cross-entropy, and the estimate ŷ₀ is its mean under the predicted probabilities (score
interpolation: Dieleman et al., "Continuous diffusion for categorical data", 2022).
"""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


class Denoised(NamedTuple):
    """Estimates of the clean label ŷ₀ and of the noise ε̂, each of shape (B, ..., C)."""

    label: Tensor
    noise: Tensor


Denoise = Callable[[Tensor, int], Denoised]  # function (y_t, t) of a noisy map and its timestep


class Parameterization(NamedTuple):
    """Functions ``target(label, noise, a, s)`` and ``denoised(output, noisy, a, s)``."""

    target: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    denoised: Callable[[Tensor, Tensor, Tensor, Tensor], Denoised]


def _noise_target(label: Tensor, noise: Tensor, a: Tensor, s: Tensor) -> Tensor:
    return noise


def _from_noise(output: Tensor, noisy: Tensor, a: Tensor, s: Tensor) -> Denoised:
    return Denoised(label=(noisy - s * output) / a, noise=output)


def _velocity_target(label: Tensor, noise: Tensor, a: Tensor, s: Tensor) -> Tensor:
    """Velocity v = a ε − s y (Salimans and Ho, ICLR 2022)."""
    return a * noise - s * label


def _from_velocity(output: Tensor, noisy: Tensor, a: Tensor, s: Tensor) -> Denoised:
    return Denoised(label=a * noisy - s * output, noise=s * noisy + a * output)


def _label_target(label: Tensor, noise: Tensor, a: Tensor, s: Tensor) -> Tensor:
    return label


def _from_label(output: Tensor, noisy: Tensor, a: Tensor, s: Tensor) -> Denoised:
    return Denoised(label=output, noise=(noisy - a * output) / s)


def _from_softmax(output: Tensor, noisy: Tensor, a: Tensor, s: Tensor) -> Denoised:
    """Output: logits of exclusive classes, so that ŷ₀ lies on the simplex."""
    return _from_label(output.softmax(dim=-1), noisy, a, s)


def _from_sigmoid(output: Tensor, noisy: Tensor, a: Tensor, s: Tensor) -> Denoised:
    """Output: logits of independent labels."""
    return _from_label(output.sigmoid(), noisy, a, s)


PARAMETERIZATIONS = {
    "noise": Parameterization(_noise_target, _from_noise),
    "v": Parameterization(_velocity_target, _from_velocity),
    "label": Parameterization(_label_target, _from_label),
    "softmax": Parameterization(_label_target, _from_softmax),
    "sigmoid": Parameterization(_label_target, _from_sigmoid),
}
