"""Explanations: saliency, regions, and the probabilities of each granularity of the prior."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..data.framing import frames
from ..model import Conditions
from ..tasks import Task
from .tables import Brief

Array = NDArray[np.float32]


@dataclass(frozen=True, repr=False)
class Explanation(Brief):
    """Explanation of predictions, returned by :meth:`DiffMICClassifier.explain`.

    Attributes
    ----------
    saliency : ndarray of shape (n, C, h, w)
        Evidence for each class at each place, in logits: the saliency map, to which
        ``region_importance="fused"`` adds the logits of the local branch at each place, on the
        map on which regions are chosen, if these are windows of features. :meth:`heatmap`
        interpolates it to the size of an image.
    boxes : ndarray of shape (n, K, 4)
        Regions as x0, y0, x1, y1, in pixels of the original image.
    attention : ndarray of shape (n, K)
        Attention weight of each region in the local prior; rows sum to 1.
    global_proba, local_proba : ndarray of shape (n, C)
        Uncalibrated probabilities of the whole image and of the regions.
    sizes : ndarray of shape (n, 2)
        Height and width of each original image, in pixels.
    exclusive : bool
        Whether the classes exclude each other; not so in multi-label tasks.
    crop : {"none", "square"}
        Part of each image that the network saw; see :attr:`frames`.
    noisy_maps : ndarray of shape (n, N, K, C) or None
        Noisy label map of the first draw at the beginning of each of the N sampler steps, by the
        distance of its positions; one position in DiffMIC (v1). None: the diffusion was not
        trained.
    clean_maps : ndarray of shape (n, N, K, C) or None
        Clean label map as it is estimated at each step, in the mean over the draws.
    """

    saliency: Array
    boxes: Array
    attention: Array
    global_proba: Array
    local_proba: Array
    sizes: NDArray[np.int64]
    exclusive: bool = True
    crop: str = "none"
    noisy_maps: Array | None = None
    clean_maps: Array | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def frames(self) -> NDArray[np.int64]:
        """The part of each image that the network saw, (n, 4): x0, y0, x1, y1 in pixels.

        The saliency map covers it, and all regions lie in it.
        """
        found: NDArray[np.int64] = frames(torch.from_numpy(self.sizes), self.crop).numpy()
        return found

    def evidence(self, index: int) -> Array:
        """Evidence (C, h, w) of one image: the saliency of each class less the mean of all.

        Only differences between exclusive classes decide. For multi-label it is the saliency.
        """
        found: Array = self.saliency[index]
        return found - found.mean(axis=0) if self.exclusive else found

    def heatmap(self, index: int) -> Array:
        """Saliency maps (C, H, W) of one image, interpolated to its original size.

        Outside the frame, which the network did not see, a map has its smallest value.
        """
        height, width = self.sizes[index].tolist()
        x0, y0, x1, y1 = self.frames[index].tolist()
        seen = F.interpolate(
            torch.from_numpy(self.saliency[index : index + 1 or None]),
            (y1 - y0, x1 - x0),
            mode="bilinear",
            align_corners=False,
        )[0]
        found = seen.amin(dim=(1, 2), keepdim=True).repeat(1, height, width)
        found[:, y0:y1, x0:x1] = seen
        heatmap: Array = found.numpy()
        return heatmap


def explain(
    conditions: Conditions,
    sizes: Tensor,
    task: Task,
    crop: str = "none",
    *,
    noisy: Tensor | None = None,
    clean: Tensor | None = None,
) -> Explanation:
    """Explanation from what the network computed.

    Parameters
    ----------
    conditions : Conditions
        Those of n images.
    sizes : Tensor of shape (n, 2)
        Height and width of the original images, in pixels.
    task : Task
    crop : {"none", "square"}
        Part of each image that the network saw.
    noisy, clean : Tensor of shape (n, N, K, C) or None
        Noisy and clean label maps of each sampler step.
    """
    conditions = conditions.map(lambda tensor: tensor.float().cpu())
    seen = frames(sizes, crop)[:, None]  # (n, 1, 4): x0, y0, x1, y1
    start, extent = seen[..., :2], seen[..., 2:] - seen[..., :2]
    return Explanation(
        saliency=conditions.saliency.numpy(),
        boxes=(conditions.boxes * extent.repeat(1, 1, 2) + start.repeat(1, 1, 2)).numpy(),
        attention=conditions.attention.numpy(),
        global_proba=task.probabilities(conditions.global_logits).numpy(),
        local_proba=task.probabilities(conditions.local_logits).numpy(),
        sizes=sizes.numpy(),
        exclusive=task.exclusive,
        crop=crop,
        noisy_maps=None if noisy is None else noisy.cpu().numpy(),
        clean_maps=None if clean is None else clean.cpu().numpy(),
    )
