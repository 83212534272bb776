"""Whether regions and saliency lie on what decides, where that is known."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

import diffmic.model.prior
from diffmic import DiffMICClassifier
from diffmic.inference import Explanation
from diffmic.model.prior import GatedAttention
from diffmic.model.regions import importance_map
from diffmic.tasks import Task

TOLERANCE = 0.07  # of the pointing game, as a fraction of the longer side: 15 of 224 pixels
FORMS = ("fused", "contrast", "paper", "expected", "deviation", "largest", "learned")
LEARNING = {"hidden": 32, "steps": 300, "rate": 0.01}  # of the learned form


@dataclass(frozen=True)
class Hits:
    """Shares of images in which a region or the saliency lies on the truth.

    Attributes
    ----------
    attended, first, any : float
        Share of images in which the most attended region, the first one chosen, or any region
        covers the truth.
    area : float
        Mean share of the image that all regions cover together.
    chance : float
        Share of images in which one region of the same size, anywhere, would cover the truth.
    peak : float
        Pointing game: share of images in which the cell of the largest evidence for the true class
        has its centre on the truth, or at most 7 % of the side of the image beside it.
    """

    attended: float
    first: float
    any: float
    area: float
    chance: float
    peak: float


def hits(
    found: Explanation, truth: Sequence[NDArray[np.bool_]], classes: NDArray[np.int64]
) -> Hits:
    """Hits of an explanation, given the mask (H, W) of what decides in each image.

    A region covers the truth if it holds the centre of the mask's largest extent, its median pixel.

    Parameters
    ----------
    found : Explanation
        Explanation of n images.
    truth : sequence of n ndarrays of shape (H, W)
    classes : ndarray of shape (n,)
        Index of the true class of each image.
    """
    rows = []
    for i, mask in enumerate(truth):
        ys, xs = np.nonzero(mask)
        y, x = np.median(ys), np.median(xs)
        x0, y0, x1, y1 = found.boxes[i].T
        inside = (x0 <= x) & (x < x1) & (y0 <= y) & (y < y1)
        covered = np.zeros(mask.shape, bool)
        for left, top, right, bottom in np.rint(found.boxes[i]).astype(int):
            covered[top:bottom, left:right] = True
        one = (x1 - x0) * (y1 - y0) / mask.size
        evidence = found.evidence(i)[classes[i]]
        row, column = np.unravel_index(evidence.argmax(), evidence.shape)
        peak = [
            (row + 0.5) * mask.shape[0] / evidence.shape[0],
            (column + 0.5) * mask.shape[1] / evidence.shape[1],
        ]
        near = np.hypot(ys - peak[0], xs - peak[1]).min() <= TOLERANCE * max(mask.shape)
        rows.append(
            (
                inside[found.attention[i].argmax()],
                inside[0],
                inside.any(),
                covered.mean(),
                one.mean(),
                near,
            )
        )
    return Hits(*(round(float(value), 3) for value in np.mean(np.array(rows, float), axis=0)))


class LearnedImportance(nn.Module):
    """Importance of a place learnt from labels of images: gated attention (Ilse et al., ICML 2018).

    It sees the saliency of all classes at a place. It is learnt after the network, which stays as
    it is: the mean of the saliency that it weighs must tell the class.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.attention = GatedAttention(num_classes, LEARNING["hidden"])
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, saliency: Tensor) -> tuple[Tensor, Tensor]:
        """Saliency (B, C, h, w) → logits (B, C) and importance (B, h, w)."""
        pooled, attention = self.attention(saliency.flatten(2).mT)
        return self.scale * pooled, attention.view(len(saliency), *saliency.shape[2:])

    @classmethod
    def fit(cls, model: DiffMICClassifier, X: Any, y: Any) -> "LearnedImportance":
        """Learn on the training images of a model of exclusive classes."""
        with chosen_by(model, "contrast"):  # the saliency map alone, as when it chooses
            saliency = torch.as_tensor(model.explain(X).saliency).float()
        targets = torch.as_tensor(np.searchsorted(model.classes_, y))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            learned = cls(saliency.shape[1])
        optimizer = torch.optim.AdamW(learned.parameters(), lr=LEARNING["rate"])
        for _ in range(int(LEARNING["steps"])):
            optimizer.zero_grad()
            F.cross_entropy(learned(saliency)[0], targets).backward()
            optimizer.step()
        return learned.eval()


@contextmanager
def chosen_by(
    model: DiffMICClassifier, form: str, learned: LearnedImportance | None = None
) -> Iterator[None]:
    """Let a trained model choose its regions by another form of importance."""
    prior = model.network_.prior
    before = prior.importance

    def other(saliency: Tensor, task: Task, form: str) -> Tensor:
        if form == "learned":
            assert learned is not None
            with torch.no_grad():
                return learned(saliency.float())[1].to(saliency.dtype)
        return other_forms(saliency, task, form)

    prior.importance = form
    diffmic.model.prior.importance_map = other  # type: ignore[attr-defined]
    try:
        model.compile()
        yield
    finally:
        prior.importance = before
        diffmic.model.prior.importance_map = importance_map  # type: ignore[attr-defined]
        model.compile()


def other_forms(saliency: Tensor, task: Task, form: str) -> Tensor:
    """Importance maps of the library, and of forms that were tried and are not part of it."""
    flat = saliency.flatten(2)
    evidence = flat - flat.mean(dim=1, keepdim=True)
    whole = flat.mean(dim=2)
    if form == "expected":  # evidence for the classes that the whole image speaks for
        importance = torch.einsum("bc,bcn->bn", task.probabilities(whole), evidence)
    elif form == "deviation":  # from the evidence of the whole image
        importance = (evidence - evidence.mean(dim=2, keepdim=True)).abs().sum(dim=1)
    elif form == "largest":
        importance = evidence.amax(dim=1)
    else:
        return importance_map(saliency, task, form)
    importance = importance - importance.amin(dim=1, keepdim=True)
    return importance.view(len(saliency), *saliency.shape[2:])


def disc_masks(centers: NDArray[Any], radius: float, size: int) -> list[NDArray[np.bool_]]:
    """Discs (size, size) about centres x, y; all in pixels."""
    rows, columns = np.mgrid[:size, :size]
    return [np.hypot(columns - x, rows - y) <= radius for x, y in centers]


def only(found: Explanation, index: NDArray[np.bool_]) -> Explanation:
    """Explanation of some of the images."""
    names = ("saliency", "boxes", "attention", "global_proba", "local_proba", "sizes")
    return replace(found, **{name: getattr(found, name)[index] for name in names})
