"""Labelled images: one split of the data; which of its labels are known."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..conventions import some
from ..errors import InputError, warn_user
from ..tasks import Task
from .preprocessing import PreparedImages
from .ranges import ValueRange
from .sources import ImageSource, SomeImages, name_of

Counts = dict[str, list[int]]  # "positive", "negative", "unknown" → number of images, by class


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images of one split of the data, with targets and weights.

    Attributes
    ----------
    images : ImageSource
    targets : Tensor of shape (n, C), float32, on the CPU
        One-hot or indicator rows, or soft labels; NaN: a label that is not known.
    weights : Tensor of shape (n,), float32, on the CPU
        Sample weights. Those of the training part, which only the losses use, have mean 1; where
        labels are unknown, the mean of weight times share of known labels is 1.
    loss_weights : Tensor of shape (n,) or None
        Weights in the validation loss used for early stopping, if they differ from ``weights``:
        they include class weights, which the calibration does not use.
    value_range : ValueRange or None
        Range of pixel values, as in :class:`PreparedImages`.
    soft : Tensor of shape (n, C), float32, on the CPU, or None
        Soft labels, which the prior learns in place of ``targets``; None: there are none.
    """

    images: ImageSource
    targets: Tensor
    weights: Tensor
    loss_weights: Tensor | None = None
    value_range: ValueRange | None = None
    soft: Tensor | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def prepared(self, image_size: int, **options: Any) -> PreparedImages:
        """The images as the network takes them; options as for :class:`PreparedImages`."""
        return PreparedImages(self.images, image_size, value_range=self.value_range, **options)

    def softened(self) -> "LabelledImages":
        """The images with their soft labels as targets, if there are some."""
        return self if self.soft is None else replace(self, targets=self.soft)

    def labels(self, index: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """Targets and weights of the images at ``index`` (on the CPU), moved to a device."""
        return (
            self.targets[index].to(device, non_blocking=True),
            self.weights[index].to(device, non_blocking=True),
        )

    def subset(self, index: Sequence[int]) -> "LabelledImages":
        """Some of the images, with their targets and weights."""
        rows = torch.as_tensor(index, dtype=torch.long)
        loss_weights = None if self.loss_weights is None else self.loss_weights[rows]
        return replace(
            self,
            images=SomeImages(self.images, index),
            targets=self.targets[rows],
            weights=self.weights[rows],
            loss_weights=loss_weights,
            soft=None if self.soft is None else self.soft[rows],
        )


def with_labels(images: LabelledImages, where: str) -> tuple[LabelledImages, NDArray[np.intp]]:
    """The images of which a label is known, and their indices; an InputError: there are none."""
    known = (~images.targets.isnan()).any(dim=1)
    kept = known.nonzero().flatten().numpy()
    if not len(kept):
        raise InputError(f"No label of any image of {where} is known.")
    if len(kept) == len(known):
        return images, kept
    without = [name_of(images.images, n) for n in (~known).nonzero().flatten().tolist()]
    warn_user(
        f"No label of {len(known) - len(kept)} of {len(known)} images of {where} is known; they "
        f"are left out. The first: {some(without)}."
    )
    return images.subset(kept.tolist()), kept


def check_known(training: LabelledImages, task: Task, names: Sequence[str]) -> None:
    """Check that something can be learnt about each label of a multi-label task.

    An InputError says that a label is unknown for every image.
    """
    if task.exclusive:
        return
    known, positive = (~training.targets.isnan()).sum(dim=0), training.targets.nansum(dim=0)
    never = [name for name, count in zip(names, known, strict=True) if not count]
    if never:
        raise InputError(
            f"The labels {never[:10]} are not known for any training image: there is nothing to "
            "learn about them. Remove their columns."
        )
    constant = [
        f"{name} ({'never' if count == 0 else 'always'} present)"
        for name, count, total in zip(names, positive, known, strict=True)
        if count in (0, total)
    ]
    if constant:
        warn_user(
            "These labels are the same for every training image for which they are known, so that "
            f"nothing can be learnt about them: {', '.join(constant[:10])}."
        )


def label_counts(images: LabelledImages) -> Counts:
    """Numbers of images for which each class is known to be present, to be absent, or unknown."""
    targets = images.targets
    return {
        "positive": (targets > 0).sum(dim=0).tolist(),
        "negative": (targets == 0).sum(dim=0).tolist(),
        "unknown": targets.isnan().sum(dim=0).tolist(),
    }


def counts_table(counts: Counts, names: Sequence[str]) -> str:
    """Table of the counts, one line for each class."""
    width = max(map(len, names))
    lines = [" ".join([" " * width, *(f"{column:>9}" for column in counts)])]
    rows = zip(names, *counts.values(), strict=True)
    lines += [" ".join([f"{name:{width}}", *(f"{n:9}" for n in row)]) for name, *row in rows]
    return "\n".join(lines)
