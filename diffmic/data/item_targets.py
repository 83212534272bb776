"""Targets that come with the items of a Dataset."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Subset, TensorDataset

from ..errors import InputError
from .columns import as_array, as_objects
from .names import Names


def stacked(targets: list[Any], listed: Names | None = None) -> NDArray[Any]:
    """Targets of all items, arrays, as one array (n, ...).

    ``listed``: names of the classes, if a target may be the list of the classes of an image, which
    becomes a row of 0 and 1. An InputError says that they have different shapes, or are mixtures.
    """
    if listed is not None and (rows := _listed(targets, len(listed))) is not None:
        return rows
    shapes = {target.shape for target in targets}
    if len(shapes) > 1 and any(target.dtype.kind == "U" for target in targets):
        return as_objects([target.tolist() for target in targets])  # lists of words
    if len(shapes) > 1:
        raise InputError(
            f"The targets have different shapes: {sorted(shapes)[:3]}. Give one label per image, "
            "or a row of 0 and 1 of the same length."
        )
    if shapes == {()}:
        return as_array([target[()] for target in targets], "target")
    together = np.stack(targets)
    if together.ndim == 2 and together.dtype.kind == "f" and _are_mixtures(together):
        raise InputError(
            "The targets are mixtures of labels, as CutMix or MixUp make them. Leave it out of the "
            "Dataset or collate_fn: fit needs the label of each image, and has augment for changes "
            "of the images."
        )
    return together


def _listed(targets: list[Any], n_classes: int) -> NDArray[np.int64] | None:
    """Indicator (n, C) of lists of class numbers; None if the lists are rows of 0 and 1."""
    rows = [np.atleast_1d(target).ravel().tolist() for target in targets]
    binary = all(value in (0, 1) for row in rows for value in row)
    one_length = len({len(row) for row in rows}) == 1
    repeats = any(len(set(row)) < len(row) for row in rows)
    if binary and one_length and (repeats or len(rows[0]) == n_classes):
        return None
    indicator = np.zeros((len(rows), n_classes), dtype=np.int64)
    for number, row in enumerate(rows):
        for label in row:
            if not isinstance(label, int | float) or label not in range(n_classes):
                raise InputError(
                    f"The label of item {number} is {row}; a list of numbers of the {n_classes} "
                    f"classes, 0 to {n_classes - 1}, is needed."
                )
            indicator[number, int(label)] = 1
    return indicator


def _are_mixtures(targets: NDArray[Any]) -> bool:
    """Whether some rows share 1 among several classes."""
    shared = ((targets > 0) & (targets < 1)).any(axis=1) & (targets >= 0).all(axis=1)
    return bool((np.abs(targets[shared].sum(axis=1) - 1) < 1e-3).any())


def known_targets(dataset: Any) -> Any:
    """Targets that are certain to be those of the items; None: they must be read from these.

    What a Dataset stores beside its items, such as ``targets``, need not be what they give.
    """
    if type(dataset) is Subset:
        known = known_targets(dataset.dataset)
        try:
            return None if known is None else known[np.asarray(dataset.indices)]
        except IndexError:  # the item that does not exist is named when it is read
            return None
    if type(dataset) is TensorDataset and len(dataset.tensors) > 1:
        return dataset.tensors[1].cpu().numpy()
    return None
