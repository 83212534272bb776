"""Where a model looked, and what each granularity made of it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..model import Conditions


@dataclass(frozen=True)
class Explanation:
    """What :meth:`DiffMICClassifier.explain` returns.

    Attributes
    ----------
    saliency : ndarray of shape (n, C, H, W)
        Evidence for each class, in logits, at the size of the images (of the network's input,
        where the images differ in size).
    boxes : ndarray of shape (n, K, 4)
        Regions as x0, y0, x1, y1, in pixels of the image as it was passed.
    attention : ndarray of shape (n, K)
        Share of each region in the local prior; rows sum to 1.
    global_proba, local_proba : ndarray of shape (n, C)
        Probabilities of the whole image and of the regions, uncalibrated.
    """

    saliency: NDArray[np.float32]
    boxes: NDArray[np.float32]
    attention: NDArray[np.float32]
    global_proba: NDArray[np.float32]
    local_proba: NDArray[np.float32]


def explain(
    conditions: Conditions, sizes: Tensor, *, image_size: int, multilabel: bool
) -> Explanation:
    """An :class:`Explanation` of images whose heights and widths were ``sizes`` (n, 2)."""
    sizes = sizes.to(conditions.boxes.device)
    alike = bool((sizes == sizes[0]).all())
    shape = (int(sizes[0, 0]), int(sizes[0, 1])) if alike else (image_size, image_size)
    saliency = F.interpolate(
        conditions.saliency.float(), shape, mode="bilinear", align_corners=False
    )
    corner = sizes.flip(1).repeat(1, 2)[:, None]  # (n, 1, 4): W, H, W, H

    def proba(logits: Tensor) -> Any:
        p = logits.float()
        return (p.sigmoid() if multilabel else p.softmax(dim=1)).cpu().numpy()

    return Explanation(
        saliency=saliency.cpu().numpy(),
        boxes=(conditions.boxes * corner).float().cpu().numpy(),
        attention=conditions.attention.float().cpu().numpy(),
        global_proba=proba(conditions.global_logits),
        local_proba=proba(conditions.local_logits),
    )
