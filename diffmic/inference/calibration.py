"""From scores to probabilities: a mapping of a few parameters, fitted on held-out images."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

Stage = Literal["diffusion", "prior"]
STAGES: tuple[Stage, Stage] = ("diffusion", "prior")

SCORE_FLOOR = 1e-4  # a denoised score is read as a probability no nearer to 0 than this
TEMPERATURES = (0.05, 20.0)
SHIFTS = (-10.0, 10.0)


@dataclass(frozen=True)
class Calibration:
    """Probabilities from the scores of one stage.

    The fused logits of the prior are divided by a temperature (Guo et al., ICML 2017). The scores
    of the diffusion, means of label maps that should be 0 or 1, are clipped and their logarithms
    (for multi-label their log-odds) divided by one; a share of the prior's logits is added. So the
    prior is nested in the diffusion stage: held-out images say how much each of them counts.
    Softmax or sigmoid follows. Multi-label logits are shifted, too (Platt, 1999): findings are
    rare, and no temperature moves a probability across ½.

    Attributes
    ----------
    stage : {"diffusion", "prior"}
    multilabel : bool
    temperature : float
        1 where there was nothing to fit it on.
    shift : float
        Added to multi-label logits; 0 for exclusive classes.
    prior_weight : float
        Of the prior's logits beside the diffusion's scores; 0 for the prior's own stage.
    """

    stage: Stage
    multilabel: bool
    temperature: float = 1.0
    shift: float = 0.0
    prior_weight: float = 0.0

    @classmethod
    def fit(
        cls,
        stage: Stage,
        scores: Tensor,
        targets: Tensor,
        *,
        multilabel: bool,
        prior_logits: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> Self:
        """The parameters with the least negative log-likelihood.

        A penalty that weighs as much as one image keeps few images, all of them right, from
        making every later answer certain.

        Parameters
        ----------
        scores : Tensor of shape (n, C)
            Fused logits, or mean scores of label maps, of held-out images.
        targets : Tensor of shape (n, C)
            One-hot or indicator.
        prior_logits : Tensor of shape (n, C) or None
            Fused logits of the same images, to stand beside the scores; None: the scores alone.
        weights : Tensor of shape (n,) or None
            How much each image counts.
        """
        logits = cls(stage, multilabel).logits(scores).double()
        beside = torch.zeros_like(logits) if prior_logits is None else prior_logits.double()
        usual = np.array([1.0, 0.0, 0.0] if prior_logits is None else [0.5, 0.5, 0.0])

        def loss(parameters: NDArray[np.float64]) -> float:
            scale, weight, shift = parameters  # in these the NLL is convex
            nll = negative_log_likelihood(
                scale * logits + weight * beside + shift, targets, multilabel, weights
            )
            surprise = np.log((scale + weight) / usual[:2].sum()) ** 2 + shift**2
            return nll + float(surprise) / (2 * len(targets))

        low, high = TEMPERATURES
        bounds = [
            (1 / high if prior_logits is None else 1e-6, 1 / low),
            (0.0, 0.0 if prior_logits is None else 1 / low),
            SHIFTS if multilabel else (0.0, 0.0),
        ]
        scale, weight, shift = minimize(loss, usual, bounds=bounds, method="L-BFGS-B").x
        return cls(stage, multilabel, float(1 / scale), float(shift), float(weight))

    def logits(self, scores: Tensor, prior_logits: Tensor | None = None) -> Tensor:
        """Scores (n, C), and the prior's logits where they count, as logits."""
        if self.stage == "diffusion":
            proba = scores.clamp(SCORE_FLOOR, 1 - SCORE_FLOOR)
            scores = torch.logit(proba) if self.multilabel else proba.log()
        logits = scores / self.temperature + self.shift
        if self.prior_weight and prior_logits is not None:
            logits = logits + self.prior_weight * prior_logits
        return logits

    def __call__(self, scores: Tensor, prior_logits: Tensor | None = None) -> Tensor:
        """Scores (n, C), and the prior's logits (n, C) beside them → probabilities (n, C)."""
        beside = None if prior_logits is None else prior_logits.double()
        logits = self.logits(scores.double(), beside)
        return logits.sigmoid() if self.multilabel else logits.softmax(dim=-1)

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for a configuration file."""
        return asdict(self)


def negative_log_likelihood(
    logits: Tensor, targets: Tensor, multilabel: bool, weights: Tensor | None = None
) -> float:
    """Mean over the images, weighted if wanted; of the labels' mean for multi-label."""
    targets = targets.to(logits)
    if multilabel:
        errors = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=1)
    else:
        errors = F.cross_entropy(logits, targets, reduction="none")
    if weights is None or bool((weights == weights[0]).all()):
        return float(errors.mean())
    return float((weights * errors).sum() / weights.sum())
