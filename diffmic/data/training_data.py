"""Training data: the arguments of ``fit``, read and validated before training."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import InputError, warn_user
from ..tasks import Task
from .inputs import Inputs, holds_targets, read_inputs, survey_of
from .labelled import LabelledImages
from .names import table_names
from .splits import validation_split
from .targets import TargetEncoding, as_targets, check_lengths
from .validation import as_pair
from .weights import by_class, class_weights, sample_weights

_DARK = 1 / 8  # 12-bit pixels in 16-bit files reach 1/16 of the range, 13-bit pixels 1/8


@dataclass(frozen=True)
class TrainingData:
    """Training and validation parts of the data.

    Attributes
    ----------
    training : LabelledImages
    validation : LabelledImages or None
    encoding : TargetEncoding
    image_shape : tuple of int
        (C, H, W) of the first image passed.
    batch_size, num_workers : int or None
        Options of the DataLoader, if X is one.
    """

    training: LabelledImages
    validation: LabelledImages | None
    encoding: TargetEncoding
    image_shape: tuple[int, int, int]
    batch_size: int | None
    num_workers: int | None


def read_training_data(
    X: Any,
    y: Any,
    *,
    sample_weight: Any,
    groups: Any,
    validation_data: Any,
    validation_fraction: float | None,
    class_weight: Any,
    rng: np.random.RandomState,
    task: str = "auto",
    verbose: int = 0,
) -> TrainingData:
    """Read and validate the arguments of ``fit``, and split off a validation part.

    Parameters
    ----------
    X, y, sample_weight, groups, validation_data
        Arguments of ``fit``.
    validation_fraction, class_weight
        Parameters of the estimator. Balanced class weights are computed from the training part.
        Class weights apply to losses alone: elsewhere the weights of validation images are their
        ``sample_weight``, or 1.
    rng : RandomState
        Random number generator of the split.
    task : {"auto", "multiclass", "ordinal", "multilabel"}
        See :meth:`TargetEncoding.learn`.
    verbose : int
        Whether to show progress while images are read and checked.

    Raises
    ------
    InputError
        Data that cannot be used for training; the message says why and what to do.
    """
    progress = "checking images" if verbose else None
    inputs, targets = _pair(X, y, progress=progress)
    if inputs.batch_size == 1:
        raise InputError(
            "The DataLoader's batch_size is 1; batch norm needs at least 2 images to learn from. "
            "Give the DataLoader a batch_size, for example 32."
        )
    check_lengths(len(inputs.images), y=targets, sample_weight=sample_weight, groups=groups)
    encoding, encoded = TargetEncoding.learn_and_encode(targets, task)
    everything = _labelled(inputs, encoded, sample_weight)
    training, validation = everything, None
    if validation_data is not None:
        validation = _validation(validation_data, encoding, progress)
    elif validation_fraction is not None:
        parts = validation_split(
            everything.targets.numpy(), validation_fraction, rng, groups=groups, task=encoding.task
        )
        training, validation = (everything.subset(part.tolist()) for part in parts)
    per_class = class_weights(training.targets.numpy(), encoding, class_weight)
    training = _weighted(training, per_class)
    if validation is not None and class_weight is not None:
        weights = torch.from_numpy(by_class(validation.targets.numpy(), per_class))
        validation = replace(validation, loss_weights=(validation.weights * weights).float())
    if validation is not None and not validation.weights.all():
        # An image of weight zero is not to be measured either.
        validation = validation.subset(validation.weights.nonzero().flatten().tolist())
    if validation is not None and not len(validation):
        raise InputError(
            "sample_weight is zero for every image of the validation part, so that no metric can "
            "be computed. Remove images of weight zero, or pass validation_data."
        )
    survey = survey_of(inputs, progress)
    _point_out_dark_images(survey.largest)
    return TrainingData(
        training, validation, encoding, survey.image_shape, inputs.batch_size, inputs.num_workers
    )


def read_labelled(
    X: Any, y: Any, *, known_channels: int, task: Task
) -> tuple[Inputs, NDArray[Any]]:
    """Images and labels for an evaluation; labels come from y, or else from X.

    Parameters
    ----------
    X, y
        Images, and labels or None.
    known_channels : int
        See :func:`read_inputs`.
    task : Task
        Task of the model.

    Returns
    -------
    Inputs
    ndarray of shape (n,), or (n, L) for multi-label
        Labels.

    Raises
    ------
    InputError
        Images or labels cannot be used, or do not match the task.
    """
    inputs, targets = _pair(X, y, known_channels=known_channels)
    check_lengths(len(inputs.images), y=targets)
    return inputs, as_targets(targets, task)


def _pair(
    X: Any, y: Any, *, known_channels: int | None = None, progress: str | None = None
) -> tuple[Inputs, Any]:
    """Images and targets; targets come from y, or else from X."""
    inputs = read_inputs(
        X,
        with_targets=y is None and holds_targets(X),
        known_channels=known_channels,
        progress=progress,
    )
    if y is None:
        return inputs, inputs.targets
    return replace(inputs, names=table_names(y)), y


def _labelled(inputs: Inputs, encoded: NDArray[np.float32], sample_weight: Any) -> LabelledImages:
    weights = sample_weights(sample_weight, len(encoded))
    return LabelledImages(
        inputs.images, torch.from_numpy(encoded), torch.from_numpy(weights.astype(np.float32))
    )


def _validation(
    validation_data: Any, encoding: TargetEncoding, progress: str | None
) -> LabelledImages:
    inputs, targets = _pair(*as_pair(validation_data), progress=progress)
    check_lengths(len(inputs.images), **{"validation y": targets})
    part = _labelled(inputs, encoding.encode(targets), sample_weight=None)
    survey_of(inputs, progress)
    return part


def _weighted(training: LabelledImages, per_class: NDArray[np.float64]) -> LabelledImages:
    """Training part with class weights included; the mean weight is 1."""
    if len(training) < 2:
        raise InputError(
            f"The training part contains {len(training)} image; at least 2 are needed. Pass more "
            "images, or a smaller validation_fraction."
        )
    by_classes = torch.from_numpy(by_class(training.targets.numpy(), per_class))
    weights = training.weights * by_classes
    if not weights.any():
        raise InputError(
            "sample_weight is zero for every image of the training part, or class_weight is: there "
            "is nothing to learn from."
        )
    return replace(training, weights=(weights / weights.mean()).float())


def _point_out_dark_images(largest: float | None) -> None:
    """Warn if float images use a small part of the range, as 12-bit pixels in 16-bit files do."""
    if largest is None or not 0 < largest < _DARK:
        return
    value = max(1, round(largest * 65535))
    warn_user(
        f"The largest pixel of all float and 16-bit images is {largest:.3g} in 0–1 (in 16-bit "
        f"files: {value} of 65535), so they are nearly black. Divide them by their true maximum "
        f"(for 16-bit pixels perhaps {2 ** value.bit_length() - 1}) to get floats in 0–1, here "
        "and when predicting; floats may have been divided twice."
    )
