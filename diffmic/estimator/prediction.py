"""Conditions and evidence of X, given a model and the estimator's parameters."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from ..data import (
    Inputs,
    Item,
    OneImage,
    PreparedImages,
    PreparedItems,
    PreparedStream,
    Stream,
    read_inputs,
    read_labelled,
)
from ..data.columns import check_lengths
from ..data.inputs import is_dataset, read_before
from ..data.labels import unseen
from ..errors import InputError, warn_user
from ..inference import Evidence, FittedModel, SamplingOptions, Stage
from ..model import Conditions
from ..settings import undisturbed
from .class_names import display_names
from .parameters import check_prediction, keys_of, sampling_options
from .preparation import augmentation

Parameters = Mapping[str, Any]

# Sampling options of which a model's user has been warned.
_POINTED_OUT: WeakKeyDictionary[FittedModel, set[SamplingOptions]] = WeakKeyDictionary()


def evidence_for(
    model: FittedModel,
    parameters: Parameters,
    X: Any,
    stage: Stage,
    asked: Mapping[str, int | None] | None = None,
    *,
    embeddings: bool = False,
    refit: bool = False,
) -> Evidence:
    """Uncalibrated evidence of a model for the images X.

    Parameters
    ----------
    model : FittedModel
    parameters : mapping
        Constructor parameters of the estimator.
    X : as in ``DiffMICClassifier.predict_proba``
    stage : {"diffusion", "prior"}
    asked : mapping or None
        Sampling options of this prediction; the estimator's replace any that are None or missing.
    embeddings : bool
        Whether the evidence holds the embeddings, too.
    refit : bool
        Whether options other than those of the calibration are meant, as when it is fitted anew.
    """
    options = _options(model, parameters, stage, asked, refit=refit)
    loaded = prepared(model, parameters, X)
    return _evidence(model, parameters, loaded, stage, options, embeddings)


def labelled_evidence(
    model: FittedModel,
    parameters: Parameters,
    X: Any,
    y: Any,
    stage: Stage,
    asked: Mapping[str, int | None] | None = None,
    *,
    others: bool = False,
    refit: bool = False,
    **columns: Any,
) -> tuple[Evidence, NDArray[Any]]:
    """Evidence as in :func:`evidence_for`, and labels, which come from y, or else from X.

    Each item of a Dataset or DataLoader is read once. ``columns`` are weights or groups, whose
    number is checked before any work, if the number of images is known. ``others`` is that of
    :func:`labelled_for`, ``refit`` that of :func:`evidence_for`.
    """
    if y is not None or not (isinstance(X, (DataLoader, IterableDataset)) or is_dataset(X)):
        inputs, truth = labelled_for(model, parameters, X, y, others=others)
        check_lengths(len(truth), **columns)
        return evidence_for(model, parameters, inputs, stage, asked, refit=refit), truth
    options = _options(model, parameters, stage, asked, refit=refit)
    images, num_workers = prepared(model, parameters, X, with_targets=True)
    if isinstance(images, PreparedImages):
        check_lengths(len(images), **columns)
    evidence = _evidence(model, parameters, (images, num_workers), stage, options)
    labels = read_before(X, images.targets, keys_of(parameters))
    truth = labelled_for(model, parameters, labels, None, others=others)[1]
    check_lengths(len(truth), **columns)
    return evidence, truth


def prepared_alone(model: FittedModel, image: Any, name: str) -> Item:
    """One image of any kind, resized for the network; errors call it by its name."""
    return PreparedImages(OneImage(image, name), model.image_size, **_preparation(model))[0]


@undisturbed
def evidence_together(
    model: FittedModel, parameters: Parameters, items: Sequence[Item], stage: Stage
) -> Evidence:
    """Uncalibrated evidence for images of :func:`prepared_alone`, in batches."""
    options = sampling_options(model, parameters, {})
    return model.evidence(
        PreparedItems(items, model.image_size, **_preparation(model)),
        stage,
        options,
        batch_size=parameters["batch_size"],
        augment=augmentation(parameters["augment"]) if options.n_views > 1 else None,
    )


def conditions_for(
    model: FittedModel, parameters: Parameters, X: Any
) -> Iterator[tuple[Conditions, Tensor]]:
    """Conditions of each batch of X, and the original sizes (B, 2) of its images, in pixels."""
    images, num_workers = prepared(model, parameters, X)
    yield from model.conditions(
        images, batch_size=parameters["batch_size"], num_workers=num_workers
    )
    images.notes.warn(model.value_range)


def labelled_for(
    model: FittedModel, parameters: Parameters, X: Any, y: Any, *, others: bool = False
) -> tuple[Inputs, NDArray[Any]]:
    """Images and labels for an evaluation of a model; see :func:`diffmic.data.read_labelled`.

    ``others``: whether there may be labels of classes that the model does not know.
    """
    names = display_names(model, parameters["class_names"])
    inputs, labels = read_labelled(
        X,
        y,
        known_channels=model.channels,
        task=model.task,
        uncertain=parameters["uncertain"],
        classes=model.classes.tolist(),
        names=model.data_names or names,
        certain=model.data_names is not None,
        value_range=model.value_range,
        keys=keys_of(parameters),
        num_workers=parameters["num_workers"],
    )
    if model.task.exclusive:
        classes = model.classes.tolist()
        strange = [label for label in dict.fromkeys(labels.tolist()) if label not in classes]
        kinds = {isinstance(label, str) for label in (*strange, classes[0])}
        if strange and (not others or len(kinds) > 1):
            named = dict(zip(classes, names or (), strict=False))
            raise InputError(
                f"y cannot be compared with the classes: {unseen(strange, classes, named)}"
            )
    return inputs, labels


def _options(
    model: FittedModel,
    parameters: Parameters,
    stage: Stage,
    asked: Mapping[str, int | None] | None,
    *,
    refit: bool,
) -> SamplingOptions:
    options = sampling_options(model, parameters, asked or {})
    if not refit:
        _point_out_sampling(model, stage, options)
    return options


def _point_out_sampling(model: FittedModel, stage: Stage, options: SamplingOptions) -> None:
    """Warn, once for a model, of sampling options that its calibration was not fitted for."""
    fitted, names = model.sampling, ("n_views",) if stage == "prior" else tuple(vars(options))
    other = {name: getattr(options, name) for name in names}
    other = {name: value for name, value in other.items() if value != getattr(fitted, name)}
    known = _POINTED_OUT.setdefault(model, set())
    if not other or options in known or model.calibration(stage).is_identity:
        return
    known.add(options)
    told = " and ".join(f"{name}={getattr(fitted, name)}" for name in other)
    warn_user(
        f"The calibration was fitted for {told}, and predictions are made with "
        f"{' and '.join(f'{name}={value}' for name, value in other.items())}: probabilities may be "
        "too certain or not certain enough. calibrate(X, y) with labelled images fits it for these."
    )


def _evidence(
    model: FittedModel,
    parameters: Parameters,
    loaded: tuple[PreparedImages | PreparedStream, int],
    stage: Stage,
    options: SamplingOptions,
    embeddings: bool = False,
) -> Evidence:
    images, num_workers = loaded
    evidence = model.evidence(
        images,
        stage,
        options,
        batch_size=parameters["batch_size"],
        num_workers=num_workers,
        augment=augmentation(parameters["augment"]) if options.n_views > 1 else None,
        embeddings=embeddings,
    )
    images.notes.warn(model.value_range)
    return evidence


def prepared(
    model: FittedModel, parameters: Parameters, X: Any, *, with_targets: bool = False
) -> tuple[PreparedImages | PreparedStream, int]:
    """X as images resized for the network, and the number of worker processes that load it."""
    check_prediction(parameters)
    how = {**_preparation(model), "with_targets": with_targets}
    keys, num_workers = keys_of(parameters), parameters["num_workers"]
    inputs = Stream.of(X, keys) or read_inputs(
        X,
        known_channels=model.channels,
        value_range=model.value_range,
        keys=keys,
        num_workers=num_workers,
    )
    if isinstance(inputs, Stream):  # it has its own workers, if any
        return PreparedStream(inputs, model.image_size, **how), 0
    images = PreparedImages(inputs.images, model.image_size, seed=model.seed, **how)
    return images, num_workers


def _preparation(model: FittedModel) -> dict[str, Any]:
    """How images are prepared for a model, beside their size."""
    return {"crop": model.crop, "zoom_size": model.zoom_size, "value_range": model.value_range}
