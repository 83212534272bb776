"""Training data: the arguments of ``fit``, read and validated before training."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from ..errors import InputError, warn_user
from ..image_table import LabelledTable
from ..tasks import Task, known_shares
from .class_names import aligned, data_names, given_names
from .columns import as_column, check_lengths, point_out_other_order, rows_of
from .inputs import How, Inputs, holds_targets, read_inputs, survey_of
from .items import USUAL_KEYS, Keys
from .labelled import LabelledImages, check_known, with_labels
from .labels import enum_names
from .loaders import shuffles
from .names import table_names
from .ranges import ValueRange
from .soft_labels import read_soft_labels
from .sources import SomeImages
from .splits import validation_split
from .targets import TargetEncoding, as_targets, suits
from .validation import as_pair, point_out_shared
from .weights import by_class, class_weights, point_out_lost_classes, sample_weights


@dataclass(frozen=True)
class TrainingData:
    """Training and validation parts of the data."""

    training: LabelledImages
    validation: LabelledImages | None
    encoding: TargetEncoding
    image_shape: tuple[int, int, int]  # (C, H, W) of the first image passed
    batch_size: int | None  # of the DataLoader, if X is one
    class_names: tuple[str, ...] | None = None  # that the user gave, in the order of the classes
    data_names: tuple[str, ...] | None = None  # that came along with the data


def read_training_data(
    X: Any,
    y: Any,
    *,
    sample_weight: Any,
    groups: Any,
    validation_data: Any,
    validation_fraction: float | None,
    class_weight: Any,
    soft_labels: Any = None,
    rng: np.random.RandomState,
    task: str = "auto",
    uncertain: str = "error",
    class_names: Any = None,
    inherited: bool = False,
    verbose: bool = False,
    value_range: ValueRange | None = None,
    on_error: str = "raise",
    keys: Keys = USUAL_KEYS,
    num_workers: int = 0,
) -> TrainingData:
    """Read and validate the arguments of ``fit``, and split off a validation part.

    Parameters
    ----------
    X, y, sample_weight, groups, validation_data, soft_labels
        Arguments of ``fit``.
    validation_fraction, class_weight, task, uncertain, class_names, on_error
        Parameters of the estimator. Balanced class weights are computed from the training part.
        Class weights apply to losses alone: elsewhere the weights of validation images are their
        ``sample_weight``, or 1.
    rng : RandomState
        Random number generator of the split.
    inherited : bool
        Whether the task is that of a model from which the fit starts; if it does not suit the
        labels, "auto" takes its place.
    verbose : bool
        Whether to show progress while images are read and checked.
    value_range, keys, num_workers
        See :class:`~diffmic.data.inputs.How`; without a range that of integers of more than 8 bits
        is found over X.

    Raises
    ------
    InputError
        Data that cannot be used for training; the message says why and what to do.
    """
    progress = "checking images" if verbose else None
    skip = on_error == "skip"
    how = How(
        progress=progress, value_range=value_range, skip=skip, keys=keys, num_workers=num_workers
    )
    if isinstance(X, LabelledTable):
        groups = X.groups if groups is None else groups
        X = X.one_part()
    point_out_shared(X, groups, validation_data)
    inputs, targets = _pair(X, y, how)
    if inputs.batch_size == 1:
        raise InputError(
            "The DataLoader's batch_size is 1; batch norm needs at least 2 images to learn from. "
            "Give the DataLoader a batch_size, for example 32."
        )
    columns = {"sample_weight": sample_weight, "groups": groups, "soft_labels": soft_labels}
    check_lengths(len(inputs.images), **columns)
    point_out_other_order(X, y=y, **columns)
    inputs, targets, sample_weight, groups, soft_labels = _usable(
        inputs, y, targets, how, **columns
    )
    if inherited and not suits(targets, task, uncertain):
        warn_user(
            f"task is {task!r}, as that of the model from which the fit starts. It does not suit "
            "the labels in y, so the task is taken from y. set_params(task='auto') avoids this "
            "warning."
        )
        task = "auto"
    encoding, encoded = TargetEncoding.learn_and_encode(targets, task, uncertain)
    labels = encoding.classes.tolist()
    given, own = given_names(class_names, labels), data_names(inputs.names, labels)
    shown = given or own or tuple(map(str, labels))
    every = _labelled(inputs, encoded, sample_weight)
    if soft_labels is not None:
        rows = None if inputs.survey is None else inputs.survey.kept
        every = replace(every, soft=read_soft_labels(soft_labels, encoding, shown, rows))
    everything, kept = with_labels(every, "X")
    training, validation = everything, None
    if validation_data is not None:
        validation = _validation(validation_data, encoding, own or given, own is not None, how)
    elif validation_fraction is not None:
        parts = validation_split(
            everything.targets.numpy(),
            validation_fraction,
            rng,
            groups=None if groups is None else as_column(groups, "groups")[kept],
            task=encoding.task,
            classes=labels,
        )
        training, validation = (everything.subset(part.tolist()) for part in parts)
    check_known(training, encoding.task, shown)
    per_class = class_weights(training.targets.numpy(), encoding, class_weight, shown)
    training = _weighted(training, per_class)
    point_out_lost_classes(training.targets.numpy(), training.weights.numpy(), shown)
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
    survey = survey_of(inputs, how)
    survey.report()
    training = replace(training, value_range=survey.range)
    if validation is not None:
        validation = replace(validation, value_range=survey.range, soft=None)
    return TrainingData(
        training,
        validation,
        encoding,
        survey.image_shape,
        inputs.batch_size,
        given,
        own,
    )


def _usable(
    inputs: Inputs, y: Any, targets: Any, how: How, **others: Any
) -> tuple[Inputs, Any, Any, Any, Any]:
    """The images that can be used, with their targets and what else there is of each."""
    if y is not None or inputs.survey is None:  # else targets are of the images that can be used
        check_lengths(len(inputs.images), y=targets)
    if not how.skip:
        return inputs, targets, *others.values()
    survey = survey_of(inputs, how)
    if not survey.failed:
        return replace(inputs, survey=survey), targets, *others.values()
    if not survey.kept:
        survey.report()
    some = replace(inputs, images=SomeImages(inputs.images, survey.kept), survey=survey)
    targets = targets if y is None and inputs.survey is not None else rows_of(targets, survey.kept)
    return some, targets, *(rows_of(values, survey.kept) for values in others.values())


def read_labelled(
    X: Any,
    y: Any,
    *,
    known_channels: int,
    task: Task,
    uncertain: str = "error",
    classes: Sequence[Any] = (),
    names: tuple[str, ...] | None = None,
    certain: bool = False,
    value_range: ValueRange | None = None,
    keys: Keys = USUAL_KEYS,
    num_workers: int = 0,
) -> tuple[Inputs, NDArray[Any]]:
    """Images and labels for an evaluation; labels come from y, or else from X.

    Parameters
    ----------
    X, y
        Images, and labels or None.
    task, classes
        Task of the model, and its class labels.
    uncertain : {"error", "unknown", "positive", "negative"}
        Meaning of −1 in an indicator matrix.
    names, certain
        Names of the classes, by which labels that have names are compared, and whether the training
        data had these names; see :func:`aligned`.
    known_channels, value_range, keys, num_workers
        See :class:`~diffmic.data.inputs.How`.

    Returns
    -------
    Inputs
    ndarray of shape (n,), or (n, L) for multi-label
        Labels; NaN: not known.

    Raises
    ------
    InputError
        Images or labels cannot be used, or do not match the task.
    """
    how = How(
        known_channels=known_channels, value_range=value_range, keys=keys, num_workers=num_workers
    )
    inputs, targets = _pair(X, y, how)
    check_lengths(len(inputs.images), y=targets)
    point_out_other_order(X, y=y)
    if len(classes) and targets is not None:
        options: dict[str, Any] = {"classes": classes, "task": task, "certain": certain}
        targets = aligned(targets, inputs.names, names, where="X" if y is None else "y", **options)
    return inputs, as_targets(targets, task, uncertain)


def _pair(X: Any, y: Any, how: How) -> tuple[Inputs, Any]:
    """Images and targets; targets come from y, or else from X."""
    if y is not None and isinstance(X, DataLoader) and shuffles(X):
        raise InputError(
            "X is a DataLoader that shuffles, so y cannot be in its order. Pass its Dataset and y, "
            "or leave y out if the items hold the targets."
        )
    listed = None
    if isinstance(X, LabelledTable) and y is None:
        y, listed = X.labels, X.names
    inputs = read_inputs(X, how, with_targets=y is None and holds_targets(X))
    if y is None:
        return inputs, inputs.targets
    return replace(inputs, names=listed or table_names(y) or enum_names(y)), y


def _labelled(inputs: Inputs, encoded: NDArray[np.float32], sample_weight: Any) -> LabelledImages:
    weights = sample_weights(sample_weight, len(encoded))
    return LabelledImages(
        inputs.images, torch.from_numpy(encoded), torch.from_numpy(weights.astype(np.float32))
    )


def _validation(
    validation_data: Any,
    encoding: TargetEncoding,
    names: tuple[str, ...] | None,
    certain: bool,
    how: How,
) -> LabelledImages:
    X, y = as_pair(validation_data)
    X = X.one_part() if isinstance(X, LabelledTable) else X
    inputs, targets = _pair(X, y, how)
    if y is not None or inputs.survey is None:
        check_lengths(len(inputs.images), **{"validation y": targets})
    point_out_other_order(X, y=y)
    classes, task = encoding.classes.tolist(), encoding.task
    if targets is not None:
        options: dict[str, Any] = {"classes": classes, "task": task, "certain": certain}
        targets = aligned(targets, inputs.names, names, where="validation_data", **options)
    inputs, targets, *_ = _usable(inputs, y, targets, how)
    encoded = encoding.encode(targets, dict(zip(classes, names or (), strict=False)))
    part, _ = with_labels(_labelled(inputs, encoded, sample_weight=None), "validation_data")
    survey_of(inputs, how).report("validation ")
    return part


def _weighted(training: LabelledImages, per_class: NDArray[np.float64]) -> LabelledImages:
    """Training part with class weights included; the mean weight of known labels is 1."""
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
    shares = known_shares(training.targets)
    return replace(training, weights=(weights / (weights * shares).mean()).float())
