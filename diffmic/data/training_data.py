"""What ``fit`` is given, understood and checked before any work is done."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.class_weight import compute_class_weight
from torch.utils.data import Subset

from ..errors import InputError
from .inputs import ImageSource, Inputs, check_every_image, holds_targets, read_inputs
from .splits import validation_split
from .targets import TargetEncoding, as_array, as_targets, check_lengths


@dataclass(frozen=True)
class LabelledImages:
    """Images with targets (n, C) and weights (n,), whose mean is 1 in the training part."""

    images: ImageSource
    targets: NDArray[np.float32]
    weights: NDArray[np.float32]


@dataclass(frozen=True)
class TrainingData:
    """Both parts of the data.

    Attributes
    ----------
    training : LabelledImages
    validation : LabelledImages or None
    encoding : TargetEncoding
    image_shape : tuple of int
        (C, H, W) of the first image of all.
    batch_size, num_workers : int or None
        Of the DataLoader that was passed, if one was.
    """

    training: LabelledImages
    validation: LabelledImages | None
    encoding: TargetEncoding
    image_shape: tuple[int, ...]
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
    verbose: int = 0,
) -> TrainingData:
    """Understand and check what ``fit`` was given, and set a validation part aside.

    Raises
    ------
    InputError
        Anything that cannot be learnt from; the message says what and what to do.
    """
    inputs, targets = _pair(X, y)
    if inputs.batch_size == 1:
        raise InputError(
            "The DataLoader's batch_size is 1; batch norm needs at least 2 images to learn from. "
            "Give the DataLoader a batch_size, for example 32."
        )
    check_lengths(len(inputs.images), y=targets, sample_weight=sample_weight, groups=groups)
    encoding = TargetEncoding.learn(targets)
    encoded = encoding.encode(targets)
    weights = _weights(encoded, encoding, sample_weight, class_weight)
    everything = LabelledImages(inputs.images, encoded, weights)
    if validation_data is not None:
        training, validation = everything, _validation(validation_data, encoding, class_weight)
    elif validation_fraction is not None:
        split = validation_split(
            encoded, validation_fraction, rng, groups=groups, multilabel=encoding.multilabel
        )
        training, validation = (_subset(everything, part) for part in split)
    else:
        training, validation = everything, None
    if len(training.targets) < 2:
        raise InputError(
            f"The training part holds {len(training.targets)} image; at least 2 are needed. Pass "
            "more images, or a smaller validation_fraction."
        )
    training = _normalised(training)
    progress = "checking images" if verbose else None
    check_every_image(everything.images, progress)
    if validation_data is not None and validation is not None:
        check_every_image(validation.images, progress)
    channels, height, width = everything.images[0].shape
    return TrainingData(
        training,
        validation,
        encoding,
        (channels, height, width),
        inputs.batch_size,
        inputs.num_workers,
    )


def read_labelled(X: Any, y: Any, *, known_channels: int) -> tuple[Inputs, NDArray[Any]]:
    """Images, and y as an array, from y itself or from what X holds beside the images."""
    inputs, targets = _pair(X, y, known_channels=known_channels)
    check_lengths(len(inputs.images), y=targets)
    return inputs, as_targets(targets)


def _pair(X: Any, y: Any, *, known_channels: int | None = None) -> tuple[Inputs, Any]:
    """Images and targets, from y or from what X holds beside the images."""
    with_targets = y is None and holds_targets(X)
    inputs = read_inputs(X, with_targets=with_targets, known_channels=known_channels)
    return inputs, inputs.targets if y is None else y


def _validation(
    validation_data: Any, encoding: TargetEncoding, class_weight: Any
) -> LabelledImages:
    pair = isinstance(validation_data, (tuple, list)) and len(validation_data) == 2
    inputs, targets = _pair(*(validation_data if pair else (validation_data, None)))
    check_lengths(len(inputs.images), **{"validation y": targets})
    encoded = encoding.encode(targets)
    return LabelledImages(inputs.images, encoded, _weights(encoded, encoding, None, class_weight))


def _subset(data: LabelledImages, index: NDArray[np.intp]) -> LabelledImages:
    images: Any = Subset(data.images, index.tolist())  # type: ignore[arg-type]
    return LabelledImages(images, data.targets[index], data.weights[index])


def _normalised(data: LabelledImages) -> LabelledImages:
    """The same, with weights whose mean is 1."""
    if not data.weights.any():
        raise InputError(
            "sample_weight is zero for every image of the training part, or class_weight is: "
            "nothing to learn from."
        )
    return replace(data, weights=data.weights / data.weights.mean())


def _weights(
    encoded: NDArray[np.float32], encoding: TargetEncoding, sample_weight: Any, class_weight: Any
) -> NDArray[np.float32]:
    """Weight of each image: its own times its class's (multi-label: the mean of its labels')."""
    weights = np.ones(len(encoded))
    if sample_weight is not None:
        weights = _numbers(sample_weight, "sample_weight")
        if not weights.any():
            raise InputError("sample_weight is zero for every image: nothing to learn from.")
    if class_weight is not None:
        per_class = _class_weights(encoded, encoding, class_weight)
        shares = encoded / np.maximum(encoded.sum(axis=1, keepdims=True), 1)
        unlabelled = encoded.sum(axis=1) == 0
        weights = weights * (shares @ per_class + unlabelled)
    return weights.astype(np.float32)


def _numbers(values: Any, name: str) -> NDArray[np.float64]:
    """Weights as numbers, after making sure that they are some."""
    found = as_array(values, name)
    try:
        numbers: NDArray[np.float64] = found.astype(np.float64)
    except (TypeError, ValueError):
        numbers = np.full(found.shape, np.nan)
    if numbers.ndim != 1 or not np.isfinite(numbers).all() or (numbers < 0).any():
        wrong = found[~(np.isfinite(numbers) & (numbers >= 0))].ravel().tolist()[:3]
        raise InputError(
            f"{name} must hold finite numbers of at least 0, one each; found shape {found.shape}"
            + (f" with {wrong}." if wrong else ".")
        )
    return numbers


def _class_weights(
    encoded: NDArray[np.float32], encoding: TargetEncoding, class_weight: Any
) -> NDArray[np.float64]:
    names = encoding.classes.tolist()
    if isinstance(class_weight, str) and class_weight == "balanced":
        numbers, present = np.arange(len(names)), encoded.any(axis=0)
        labels = np.repeat(numbers, encoded.sum(axis=0).astype(int))
        balanced = np.ones(len(names))
        balanced[present] = compute_class_weight("balanced", classes=numbers[present], y=labels)
        return balanced
    if not isinstance(class_weight, dict):
        raise InputError(f"class_weight is {class_weight!r}; give None, 'balanced' or a dict.")
    unknown = [name for name in class_weight if name not in names]
    if unknown:
        raise InputError(f"class_weight names {unknown}, but the classes are {names}.")
    return _numbers([class_weight.get(name, 1.0) for name in names], "class_weight")
