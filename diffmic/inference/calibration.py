"""Calibration: a mapping of logits with a few parameters, fitted on held-out images."""

import sys
from dataclasses import asdict, dataclass
from numbers import Real
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from ..errors import InputError
from ..tasks import Task, known_shares

TEMPERATURES = (0.05, 20.0)
SHIFTS = (-10.0, 10.0)
OFFSETS = 10.0  # farthest from what is expected
BOTH_COUNT = 3.0  # weight, in images, of the penalty on unequal weights of both stages
NO_WEIGHT = 0.01  # weight of logits below which they hardly affect the probabilities


@dataclass(frozen=True)
class Calibration:
    """Mapping from the logits of a stage to calibrated logits.

    The logits of a stage are divided by a temperature (Guo et al., ICML 2017). For the diffusion
    stage, the weighted logits of the prior are added, so that the prior is nested in the diffusion
    stage; both weights are fitted on held-out images. Multi-label logits are also shifted (Platt,
    1999), because findings are rare and no temperature moves a probability across ½.

    A calibration on images of another population (``DiffMICClassifier.calibrate``) also adds an
    offset to each class, since shares of classes differ from place to place.

    Attributes
    ----------
    temperature : float
        Divisor of the logits; 1 without held-out images.
    shift : float
        Constant added to multi-label logits; 0 for exclusive classes.
    prior_weight : float
        Weight of the logits of the prior that are added; 0 for the prior stage itself.
    offsets : tuple of float
        Constant added to the logits of each class; empty: none.
    """

    temperature: float = 1.0
    shift: float = 0.0
    prior_weight: float = 0.0
    offsets: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        finite = isinstance(self.offsets, tuple | list) and all(
            isinstance(x, Real) and abs(x) <= sys.float_info.max  # whole numbers may be larger
            for x in (self.temperature, self.shift, self.prior_weight, *self.offsets)
        )
        if not finite or self.temperature <= 0:
            raise InputError(f"{self} is no calibration: give finite numbers, temperature above 0.")
        for name in ("temperature", "shift", "prior_weight"):
            object.__setattr__(self, name, float(getattr(self, name)))
        object.__setattr__(self, "offsets", tuple(map(float, self.offsets)))  # a list in a file

    @classmethod
    def fit(
        cls,
        logits: Tensor,
        targets: Tensor,
        task: Task,
        *,
        prior_logits: Tensor | None = None,
        weights: Tensor | None = None,
        offsets: Tensor | None = None,
        both_count: float = BOTH_COUNT,
    ) -> Self:
        """Fit the parameters that minimise the negative log-likelihood.

        A penalty with the weight of one image keeps a few images that are all classified correctly
        from making every later prediction certain. Where the prior's logits are added, both are
        first divided by the temperature that each has alone, and another penalty draws the weights
        of these together, so that a few images do not decide by chance that one of the stages
        counts for nothing.

        Parameters
        ----------
        logits : Tensor of shape (n, C)
            Uncalibrated logits of a stage for held-out images.
        targets : Tensor of shape (n, C)
            One-hot or indicator targets; NaN: a label that is not known, which is left out.
        task : Task
            Type of task.
        prior_logits : Tensor of shape (n, C) or None
            Fused logits of the prior for the same images, to be weighted against those of the
            stage; None: the stage alone.
        weights : Tensor of shape (n,) or None
            Sample weights; None: all equal. Unequal ones count as fewer images (Kish, 1965).
        offsets : Tensor of shape (C,) or None
            Offsets of the classes that are to be expected; they are fitted, with the same penalty
            on their distance from these (Alexandari et al., ICML 2020, fit them freely). A class
            with no image, or nothing but images with it, keeps the expected one. None: no offsets.
        both_count : float
            Weight, in images, of the penalty on the squared difference of both weights; 0: none.
        """
        own = [1.0, 1.0]  # temperature of each alone
        if prior_logits is not None:
            own = [
                cls.fit(each, targets, task, weights=weights, offsets=offsets).temperature
                for each in (logits, prior_logits)
            ]
        logits = logits.double() / own[0]
        prior = logits.new_zeros(()) if prior_logits is None else prior_logits.double() / own[1]
        # As many images as would have as many labels, were all of them known.
        n_images = float((~targets.isnan()).sum()) / targets.shape[1]
        if weights is not None and bool((weights > 0).any()):
            w = weights.double()
            n_images *= float(w.sum() ** 2 / (w**2).sum()) / len(w)
        n_images = max(1.0, n_images)
        usual = torch.tensor([1.0, 0.0, 0.0] if prior_logits is None else [0.5, 0.5, 0.0])
        expected = logits.new_zeros(0) if offsets is None else offsets.double()

        def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            with torch.enable_grad():
                free = torch.from_numpy(parameters.copy()).requires_grad_()
                scale, weight, shift = free[:3]  # the NLL is convex in all parameters
                mapped = scale * logits + weight * prior + shift
                if len(expected):
                    mapped = mapped + free[3:]
                nll = _mean_nll(mapped, targets, task, weights)
                surprise = torch.log((scale + weight) / usual[:2].sum()) ** 2 + shift**2
                surprise = surprise + ((free[3:] - expected) ** 2).sum()
                if prior_logits is not None:
                    surprise = surprise + both_count * (scale - weight) ** 2
                value = nll + surprise / (2 * n_images)
                (gradient,) = torch.autograd.grad(value, free)
            return float(value.detach()), gradient.numpy()

        low, high = TEMPERATURES
        bounds = [
            (1 / high if prior_logits is None else 1e-6, 1 / low),
            (0.0, 0.0 if prior_logits is None else 1 / low),
            (0.0, 0.0) if task.exclusive else SHIFTS,
        ]
        told, known = targets.nansum(dim=0), (~targets.isnan()).sum(dim=0)
        for each, n_with, n_known in zip(expected.tolist(), told, known, strict=False):
            learnt = bool(0 < n_with < n_known)
            bounds.append((each - OFFSETS, each + OFFSETS) if learnt else (each, each))
        begin = np.concatenate([usual.numpy(), expected.numpy()])
        found = minimize(loss, begin, jac=True, bounds=bounds, method="L-BFGS-B").x
        scale, weight, shift = found[:3]
        given = tuple(found[3:].tolist())
        return cls(float(own[0] / scale), float(shift), float(weight / own[1]), given)

    @property
    def is_identity(self) -> bool:
        """Whether logits stay as they are: nothing has been calibrated."""
        return self == Calibration()

    @property
    def gives_no_weight(self) -> bool:
        """Whether the logits of the stage itself get (almost) no weight relative to the prior."""
        return 1 / self.temperature < NO_WEIGHT

    def logits(self, logits: Tensor, prior_logits: Tensor | None = None) -> Tensor:
        """Calibrated logits (n, C) from the logits of a stage and of the prior."""
        calibrated = logits / self.temperature + self.shift
        if self.prior_weight and prior_logits is not None:
            calibrated = calibrated + self.prior_weight * prior_logits
        if self.offsets:
            calibrated = calibrated + calibrated.new_tensor(self.offsets)
        return calibrated

    def to_dict(self) -> dict[str, Any]:
        """Parameters as plain values, for a configuration file."""
        values = asdict(self)
        offsets = values.pop("offsets")
        return values | ({"offsets": list(offsets)} if offsets else {})


def mean_nll(logits: Tensor, targets: Tensor, task: Task, weights: Tensor | None = None) -> float:
    """Mean negative log-likelihood over images and known labels, optionally weighted by image."""
    return float(_mean_nll(logits, targets, task, weights))


def _mean_nll(logits: Tensor, targets: Tensor, task: Task, weights: Tensor | None) -> Tensor:
    errors = task.loss(logits, targets.to(logits))
    shares = known_shares(targets)
    if weights is None or bool((weights == weights[0]).all()):
        return errors.mean() / shares.mean()
    return (weights * errors).sum() / (weights * shares).sum()
