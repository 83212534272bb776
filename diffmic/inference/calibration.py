"""Calibration: a mapping of logits with a few parameters, fitted on held-out images."""

import math
from dataclasses import asdict, dataclass
from numbers import Real
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from ..errors import InputError
from ..tasks import Task, known_shares

TEMPERATURES = (0.05, 20.0)
SHIFTS = (-10.0, 10.0)
NO_WEIGHT = 0.01  # weight of logits below which they hardly affect the probabilities


@dataclass(frozen=True)
class Calibration:
    """Mapping from the logits of a stage to calibrated logits.

    The logits of a stage are divided by a temperature (Guo et al., ICML 2017). For the diffusion
    stage, the weighted logits of the prior are added, so that the prior is nested in the diffusion
    stage; both weights are fitted on held-out images. Multi-label logits are also shifted (Platt,
    1999), because findings are rare and no temperature moves a probability across ½.

    Attributes
    ----------
    temperature : float
        Divisor of the logits; 1 without held-out images.
    shift : float
        Constant added to multi-label logits; 0 for exclusive classes.
    prior_weight : float
        Weight of the logits of the prior that are added; 0 for the prior stage itself.
    """

    temperature: float = 1.0
    shift: float = 0.0
    prior_weight: float = 0.0

    def __post_init__(self) -> None:
        finite = all(
            isinstance(x, Real) and math.isfinite(x)
            for x in (self.temperature, self.shift, self.prior_weight)
        )
        if not finite or self.temperature <= 0:
            raise InputError(f"{self} is no calibration: give finite numbers, temperature above 0.")

    @classmethod
    def fit(
        cls,
        logits: Tensor,
        targets: Tensor,
        task: Task,
        *,
        prior_logits: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> Self:
        """Fit the parameters that minimise the negative log-likelihood.

        A penalty with the weight of one image keeps a few images that are all classified correctly
        from making every later prediction certain.

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
            Sample weights; None: all equal.
        """
        logits = logits.double()
        prior = logits.new_zeros(()) if prior_logits is None else prior_logits.double()
        # As many images as would have as many labels, were all of them known.
        n_images = max(1.0, float((~targets.isnan()).sum()) / targets.shape[1])
        usual = np.array([1.0, 0.0, 0.0] if prior_logits is None else [0.5, 0.5, 0.0])

        def loss(parameters: NDArray[np.float64]) -> float:
            scale, weight, shift = parameters  # the NLL is convex in these parameters
            nll = mean_nll(scale * logits + weight * prior + shift, targets, task, weights)
            surprise = np.log((scale + weight) / usual[:2].sum()) ** 2 + shift**2
            return nll + float(surprise) / (2 * n_images)

        low, high = TEMPERATURES
        bounds = [
            (1 / high if prior_logits is None else 1e-6, 1 / low),
            (0.0, 0.0 if prior_logits is None else 1 / low),
            (0.0, 0.0) if task.exclusive else SHIFTS,
        ]
        scale, weight, shift = minimize(loss, usual, bounds=bounds, method="L-BFGS-B").x
        return cls(float(1 / scale), float(shift), float(weight))

    @property
    def gives_no_weight(self) -> bool:
        """Whether the logits of the stage itself get (almost) no weight relative to the prior."""
        return 1 / self.temperature < NO_WEIGHT

    def logits(self, logits: Tensor, prior_logits: Tensor | None = None) -> Tensor:
        """Calibrated logits (n, C) from the logits of a stage and of the prior."""
        calibrated = logits / self.temperature + self.shift
        if self.prior_weight and prior_logits is not None:
            calibrated = calibrated + self.prior_weight * prior_logits
        return calibrated

    def to_dict(self) -> dict[str, Any]:
        """Parameters as plain values, for a configuration file."""
        return asdict(self)


def mean_nll(logits: Tensor, targets: Tensor, task: Task, weights: Tensor | None = None) -> float:
    """Mean negative log-likelihood over images and known labels, optionally weighted by image."""
    errors = task.loss(logits, targets.to(logits))
    shares = known_shares(targets)
    if weights is None or bool((weights == weights[0]).all()):
        return float(errors.mean() / shares.mean())
    return float((weights * errors).sum() / (weights * shares).sum())
