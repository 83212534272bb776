"""Unknown labels of multi-label tasks: images without any, labels without any, and counts."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, warn_user
from ..tasks import Task
from .labelled import LabelledImages

Counts = dict[str, list[int]]  # "positive", "negative", "unknown" → number of images, by class


def with_labels(images: LabelledImages, where: str) -> tuple[LabelledImages, NDArray[np.intp]]:
    """The images of which a label is known, and their indices.

    Raises
    ------
    InputError
        There are none.
    """
    known = (~images.targets.isnan()).any(dim=1)
    kept = known.nonzero().flatten().numpy()
    if not len(kept):
        raise InputError(f"No label of any image of {where} is known.")
    if len(kept) == len(known):
        return images, kept
    warn_user(
        f"No label of {len(known) - len(kept)} of {len(known)} images of {where} is known; they "
        f"are left out. The first is image {int((~known).nonzero()[0])}."
    )
    return images.subset(kept.tolist()), kept


def check_known(training: LabelledImages, task: Task, names: Sequence[str]) -> None:
    """Check that something can be learnt about each label of a multi-label task.

    Raises
    ------
    InputError
        A label is unknown for every image.
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
