"""Conditions and evidence of X, given a model and the estimator's parameters."""

from collections.abc import Iterator, Mapping
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from ..data import Inputs, PreparedImages, PreparedStream, Stream, read_inputs, read_labelled
from ..inference import Evidence, FittedModel, Stage
from ..model import Conditions
from .class_names import display_names
from .parameters import check_prediction, keys_of, sampling_options
from .preparation import augmentation

Parameters = Mapping[str, Any]


def evidence_for(
    model: FittedModel,
    parameters: Parameters,
    X: Any,
    stage: Stage,
    asked: Mapping[str, int | None] | None = None,
) -> Evidence:
    """Uncalibrated evidence of a model for the images X.

    Parameters
    ----------
    model : FittedModel
    parameters : mapping
        Constructor parameters of the estimator.
    X : as in ``DiffMICClassifier.predict_proba``
    stage : {"diffusion", "prior"}
        Stage whose evidence is computed.
    asked : mapping or None
        Sampling options of this prediction; the estimator's replace any that are None or missing.

    Raises
    ------
    InputError
        X or a parameter cannot be used.
    """
    options = sampling_options(parameters, asked or {}, model.plan.architecture.num_train_timesteps)
    images, num_workers = _prepared(model, parameters, X)
    evidence = model.evidence(
        images,
        stage,
        options,
        batch_size=parameters["batch_size"],
        num_workers=num_workers,
        augment=augmentation(parameters["augment"]) if options.n_views > 1 else None,
    )
    images.notes.warn(model.value_range)
    return evidence


def conditions_for(
    model: FittedModel, parameters: Parameters, X: Any
) -> Iterator[tuple[Conditions, Tensor]]:
    """Conditions of each batch of X, and the original sizes (B, 2) of its images, in pixels."""
    images, num_workers = _prepared(model, parameters, X)
    yield from model.conditions(
        images, batch_size=parameters["batch_size"], num_workers=num_workers
    )
    images.notes.warn(model.value_range)


def labelled_for(
    model: FittedModel, parameters: Parameters, X: Any, y: Any
) -> tuple[Inputs, NDArray[Any]]:
    """Images and labels for an evaluation of a model; see :func:`diffmic.data.read_labelled`."""
    return read_labelled(
        X,
        y,
        known_channels=model.channels,
        task=model.task,
        uncertain=parameters["uncertain"],
        classes=model.classes.tolist(),
        names=model.data_names or display_names(model, parameters["class_names"]),
        certain=model.data_names is not None,
        value_range=model.value_range,
        keys=keys_of(parameters),
        num_workers=parameters["num_workers"],
    )


def _prepared(
    model: FittedModel, parameters: Parameters, X: Any
) -> tuple[PreparedImages | PreparedStream, int]:
    """X as images resized for the network, and the number of worker processes that load it."""
    check_prediction(parameters)
    value_range = model.value_range
    keys, num_workers = keys_of(parameters), parameters["num_workers"]
    inputs = Stream.of(X, keys) or read_inputs(
        X,
        known_channels=model.channels,
        value_range=value_range,
        keys=keys,
        num_workers=num_workers,
    )
    if isinstance(inputs, Stream):  # it has its own workers, if any
        return PreparedStream(inputs, model.image_size, value_range=value_range), 0
    return PreparedImages(inputs.images, model.image_size, value_range=value_range), num_workers
