"""Interpretation of ``validation_data``: a pair (X, y), or a set of labelled images."""

import os
from collections.abc import Mapping
from typing import Any

from ..errors import InputError, warn_user
from ..image_table import LabelledTable
from .columns import as_column
from .items import is_single


def as_pair(validation_data: Any) -> tuple[Any, Any]:
    """X and y of ``validation_data``; y is None if X itself contains the labels.

    A sequence of length two can be a pair (X, y), or two items (image, label) of a dataset. Its
    members decide: X contains many images, whereas an item starts with a single image.

    Raises
    ------
    InputError
        The two members can be interpreted either way.
    """
    if not isinstance(validation_data, (tuple, list)) or len(validation_data) != 2:
        return validation_data, None
    first, second = validation_data
    if isinstance(first, Mapping) and isinstance(second, Mapping):  # two items
        return validation_data, None
    if not (_starts_with_image(first) and _starts_with_image(second)):
        return first, second
    if _may_be_image(first[1]) or _may_be_image(second[1]):
        raise InputError(
            "validation_data has two members that both start with an image, so it is not clear "
            "whether they are (X, y) or two items (image, label). Give X and y as arrays: "
            "(np.array(images), np.array(labels)), or the items as a torch Dataset."
        )
    return validation_data, None


def point_out_shared(X: Any, groups: Any, validation_data: Any) -> None:
    """Warn of training data that are also the validation data, or share groups with them."""
    first = as_pair(validation_data)[0] if validation_data is not None else None
    if first is not None and first is X:
        warn_user(
            "validation_data are the training images, so that validation metrics and calibration "
            "are of images that were learnt. Give other images, or set validation_fraction."
        )
    elif groups is not None and isinstance(first, LabelledTable) and first.groups is not None:
        here, there = (set(as_column(g, "groups").tolist()) for g in (groups, first.groups))
        if shared := here & there:
            warn_user(
                f"{len(shared)} of the {len(there)} groups of validation_data, such as patients, "
                "are also in the training data, so that validation metrics and calibration are "
                "better than on others. Give each group to one part; inspect(data) shows them."
            )


def _starts_with_image(member: Any) -> bool:
    """Whether a member may be an item (image, label, ...)."""
    return isinstance(member, (tuple, list)) and len(member) > 1 and _may_be_image(member[0])


def _may_be_image(value: Any) -> bool:
    """Whether a value is a single image. A string is one if such a file exists, else a label."""
    return os.path.isfile(value) if isinstance(value, str) else is_single(value)
