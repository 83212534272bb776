"""Likelihoods of several labels at once, whose few parameters are fitted on other images."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from diffmic.tasks import Task
from diffmic.training.readings import N_FOLDS, balanced_folds

Losses = Callable[[Tensor], Tensor]  # parameters (P,) → negative log-likelihoods (n,)

SCALED = (1.0, 0.0, 0.0)  # scale of the logits, weight of the prior's, shift
STACKED = (0.5, 0.5, 0.0)


def fitted(losses: Losses, start: Sequence[float], rows: Tensor, *, signed: bool = False) -> Tensor:
    """Parameters of the least mean loss on some rows, with a penalty as heavy as one image.

    Unless ``signed``, the first two parameters are at least 0.
    """
    begin = torch.tensor(start, dtype=torch.float64)

    def value(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        free = torch.from_numpy(parameters.copy()).requires_grad_()
        loss = losses(free)[rows].mean() + (free - begin).square().sum() / (2 * len(rows))
        loss.backward()  # type: ignore[no-untyped-call]
        assert free.grad is not None
        return float(loss.detach()), free.grad.numpy()

    bounds = [(None if signed or i > 1 else 0.0, None) for i in range(len(start))]
    found = minimize(value, begin.numpy(), jac=True, bounds=bounds, method="L-BFGS-B").x
    return torch.from_numpy(found)


def cross_fitted(
    losses: Losses, start: Sequence[float], targets: Tensor, seed: int
) -> tuple[Tensor, Tensor]:
    """Losses (n,) of each image under parameters fitted on the other folds, and those (n, P)."""
    folds = balanced_folds(targets, N_FOLDS, seed)
    found, parameters = torch.zeros(len(targets)).double(), torch.zeros(len(targets), len(start))
    for fold in range(N_FOLDS):
        inside, others = (folds == fold).nonzero()[:, 0], (folds != fold).nonzero()[:, 0]
        chosen = fitted(losses, start, others)
        found[inside], parameters[inside] = losses(chosen)[inside], chosen.float()
    return found, parameters


def mapped(parameters: Tensor, logits: Tensor, prior: Tensor) -> Tensor:
    """Calibrated logits (n, S, C) of draws, or of a mean where S = 1; prior (n, C).

    Parameters (P,), or a row of them for each image.
    """
    scale, weight, shift = (parameters[..., i, None, None] for i in range(3))
    return scale * logits + weight * prior[:, None] + shift


def log_likelihood(logits: Tensor, counts: Tensor, task: Task) -> Tensor:
    """Of labels that are independent of each other, (..., C) → (...).

    ``counts`` are numbers of opinions for each class, or which labels an image has.
    """
    if task.exclusive:
        return (counts * logits.log_softmax(dim=-1)).sum(dim=-1)
    errors = binary_cross_entropy_with_logits(logits, counts.expand_as(logits), reduction="none")
    return -errors.sum(dim=-1)


def mixture(logits: Tensor, prior: Tensor, counts: Tensor, task: Task) -> Losses:
    """−log mean_s p_s(labels): independent within a draw; with a single one, independent."""

    def losses(parameters: Tensor) -> Tensor:
        each = log_likelihood(mapped(parameters, logits, prior), counts[:, None], task)
        return math.log(logits.shape[1]) - each.logsumexp(dim=1)

    return losses


def dirichlet(logits: Tensor, prior: Tensor, counts: Tensor) -> Losses:
    """Opinions of an image whose probabilities are a draw from a Dirichlet distribution.

    The fourth parameter is the logarithm of its concentration. Its mean are the probabilities of
    the logits (n, S, C); of several draws it is a mixture.
    """
    own, n_raters = counts[:, None], counts.sum(dim=1, keepdim=True)

    def losses(parameters: Tensor) -> Tensor:
        concentration = parameters[3].exp()
        each = concentration * mapped(parameters, logits, prior).softmax(dim=-1)
        found = (torch.lgamma(each + own) - torch.lgamma(each)).sum(dim=-1)
        found = found + torch.lgamma(concentration) - torch.lgamma(concentration + n_raters)
        return math.log(logits.shape[1]) - found.logsumexp(dim=1)

    return losses


def all_label_sets(n_labels: int) -> Tensor:
    """All 2^C sets of labels, (2^C, C); set i has label c if bit c of i is 1."""
    numbers = torch.arange(2**n_labels)[:, None]
    return (numbers >> torch.arange(n_labels) & 1).double()


def dependence(targets: Tensor) -> Tensor:
    """How much likelier each set of labels is than if labels were independent, (2^C,), logarithm.

    By a Boltzmann machine of all pairs of labels (an Ising model), fitted to targets (n, C).
    """
    n, n_labels = targets.shape
    sets, (first, second) = all_label_sets(n_labels), torch.triu_indices(n_labels, n_labels, 1)
    pairs = torch.cat([sets, sets[:, first] * sets[:, second]], dim=1)  # (2^C, C + pairs)
    places = number_of(targets)

    def losses(parameters: Tensor) -> Tensor:
        energies = pairs @ parameters
        return energies.logsumexp(dim=0) - energies[places]

    found = fitted(losses, [0.0] * pairs.shape[1], torch.arange(n), signed=True)
    together = (pairs @ found).log_softmax(dim=0)
    shares = (together.exp() @ sets).clamp(1e-6, 1 - 1e-6)
    alone: Tensor = sets @ shares.log() + (1 - sets) @ (1 - shares).log()
    return together - alone


def number_of(targets: Tensor) -> Tensor:
    """Number of each image's set of labels among :func:`all_label_sets`, (n,)."""
    return (targets.long() << torch.arange(targets.shape[1])).sum(dim=1)


def tilted(logits: Tensor, prior: Tensor, targets: Tensor, ratio: Tensor) -> Losses:
    """p(y | x) ∝ ratio(y)^s Π_c p(y_c | x): labels depend on each other as in training.

    The fourth parameter is s; logits (n, 1, C), ratio as from :func:`dependence`.
    """
    sets, places = all_label_sets(targets.shape[1]), number_of(targets)

    def losses(parameters: Tensor) -> Tensor:
        calibrated = mapped(parameters, logits, prior)[:, 0]
        energies = calibrated @ sets.T + parameters[3] * ratio
        own = (calibrated * targets).sum(dim=1) + parameters[3] * ratio[places]
        return energies.logsumexp(dim=1) - own

    return losses
