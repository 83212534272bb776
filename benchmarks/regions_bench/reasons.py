"""Whether explanations are reasons: predictions without what they show, maps of other weights."""

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import nn
from torchvision.transforms.v2.functional import gaussian_blur

from diffmic import DiffMICClassifier

Pixels = NDArray[np.uint8]
Boxes = NDArray[np.float32]
SHARES = (0.0, 0.25, 0.5, 1.0)  # of the backbone's layers, from the last one on


def perturbed(
    model: DiffMICClassifier, X: Pixels, classes: NDArray[np.int64], boxes: Boxes
) -> tuple[float, float]:
    """Areas under the deletion and the insertion curve of boxes (Petsiuk et al., 2018).

    Deletion: boxes are replaced by the mean of their image, one after the other. Insertion: boxes
    of the image are put into a blurred copy of it. Either curve is the mean probability of the true
    class after 0, 1, …, K boxes, and its area their mean over these.

    Parameters
    ----------
    model : DiffMICClassifier
    X : ndarray of shape (n, H, W)
    classes : ndarray of shape (n,)
        Index of the true class of each image.
    boxes : ndarray of shape (n, K, 4)
        x0, y0, x1, y1 in pixels, in the order in which they are used.
    """
    blurred = gaussian_blur(torch.from_numpy(X)[:, None], 61, 12.0)[:, 0].numpy()
    means = np.broadcast_to(X.mean(axis=(1, 2), keepdims=True).astype(np.uint8), X.shape)
    return (
        _area(model, X.copy(), means, boxes, classes),
        _area(model, blurred.copy(), X, boxes, classes),
    )


def _area(
    model: DiffMICClassifier, start: Pixels, source: Pixels, boxes: Boxes, classes: Any
) -> float:
    """Mean probability of the true class while boxes of a source are put into images."""
    found = [_of_class(model, start, classes)]
    for k in range(boxes.shape[1]):
        for image, pixels, box in zip(start, source, boxes[:, k], strict=True):
            x0, y0, x1, y1 = np.rint(box).astype(int)
            image[y0:y1, x0:x1] = pixels[y0:y1, x0:x1]
        found.append(_of_class(model, start, classes))
    return float(np.mean(found))


def _of_class(model: DiffMICClassifier, X: Pixels, classes: NDArray[np.int64]) -> float:
    return float(model.predict_proba(X)[np.arange(len(X)), classes].mean())


def random_boxes(boxes: Boxes, size: int, rng: np.random.RandomState) -> Boxes:
    """Boxes of the same sizes at places drawn evenly."""
    extents = boxes[..., 2:] - boxes[..., :2]
    start = rng.rand(*extents.shape) * (size - extents)
    return np.concatenate([start, start + extents], axis=-1).astype(np.float32)


def by_attention(boxes: Boxes, attention: NDArray[np.float32]) -> Boxes:
    """Boxes of each image, those that are most attended first."""
    order = np.argsort(-attention, axis=1, kind="stable")
    return np.take_along_axis(boxes, order[..., None], axis=1)


def similarity_to_random(model: DiffMICClassifier, X: Pixels) -> dict[float, float]:
    """Rank correlation of evidence maps with those of a model whose weights are drawn anew.

    The heads of both branches, and a share of the backbone's layers from the last one on, get new
    weights (Adebayo et al., 2018, cascading randomisation). Maps that are reasons change.

    Returns
    -------
    dict of float to float
        Mean over images and classes of Spearman's correlation, by share of the layers.
    """
    usual = _evidence(model, X)
    found = {}
    for share in SHARES:
        other = copy.deepcopy(model)
        prior = other.network_.prior
        layers = [m for m in prior.backbone.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
        chosen = layers[len(layers) - round(share * len(layers)) :]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            for layer in (prior.saliency, prior.classifier, *chosen):
                layer.reset_parameters()
        other.compile("plain")
        maps = _evidence(other, X)
        pairs = zip(
            usual.reshape(-1, usual[0, 0].size), maps.reshape(-1, maps[0, 0].size), strict=True
        )
        found[share] = float(np.nanmean([_correlation(*pair) for pair in pairs]))
    return found


def _evidence(model: DiffMICClassifier, X: Pixels) -> NDArray[np.float32]:
    explanation = model.explain(X)
    return np.stack([explanation.evidence(index) for index in range(len(X))])


def _correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Size of the rank correlation of two maps; NaN where one of them is constant."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return np.nan
    return abs(float(spearmanr(one, other).statistic))
