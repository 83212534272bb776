"""Reading X: arrays, tensors, paths, PIL images, Datasets, DataLoaders."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset
from tqdm.auto import tqdm

from ..errors import InputError
from .images import CHANNELS, as_tensor, channels_first, checked_range
from .loaders import batch_size_of, items_of
from .names import Names, dataset_names
from .sources import ArrayImages, DatasetImages, FileImages, ImageSource, ListImages, Survey
from .streams import Stream
from .targets import as_array


@dataclass(frozen=True)
class Inputs:
    """Images passed as X, with the targets and loader options that X contains.

    Attributes
    ----------
    images : ImageSource
    targets : ndarray or None
        Targets of a Dataset or DataLoader, if requested.
    batch_size, num_workers : int or None
        Options of the DataLoader, if X is one.
    survey : Survey or None
        Summary of all images, if they were read along with the targets.
    names : mapping or None
        Display names of the labels, by raw label, or by column for multi-label; None: X has none.
    """

    images: ImageSource
    targets: Any = None
    batch_size: int | None = None
    num_workers: int | None = None
    survey: Survey | None = None
    names: Names | None = None


def read_inputs(
    X: Any,
    *,
    with_targets: bool = False,
    known_channels: int | None = None,
    progress: str | None = None,
) -> Inputs:
    """Read X, whatever its type.

    Parameters
    ----------
    X : array, tensor, list, Dataset or DataLoader
        Images. Of a DataLoader its ``dataset`` is read, in dataset order. An IterableDataset is
        read once and kept in memory; :class:`Stream` reads it batch by batch instead.
    with_targets : bool
        Whether to return the targets of a Dataset or DataLoader. If only its items contain them,
        each item is read once and its image is checked.
    known_channels : int or None
        For predictions: number of channels of the training images. A 3-D array is then one image
        if its channels are last or the training images are in colour, else images (n, H, W); a
        2-D array is one image.
    progress : str or None
        Label of a progress bar over the items read; None: no progress bar.

    Raises
    ------
    InputError
        X is empty, of an unknown type, or contains images that cannot be used.
    """
    if isinstance(X, Inputs):
        return X
    inputs = _read(X, with_targets, known_channels, progress)
    if inputs.targets is None:
        return inputs
    return replace(inputs, names=dataset_names(X, inputs.targets))


def _read(X: Any, with_targets: bool, known_channels: int | None, progress: str | None) -> Inputs:
    if (stream := Stream.of(X)) is not None:
        return _from_stream(stream, with_targets)
    if isinstance(X, DataLoader):
        inputs = _read(items_of(X), with_targets, known_channels, progress)
        return replace(inputs, batch_size=batch_size_of(X), num_workers=X.num_workers)
    if isinstance(X, (np.ndarray, Tensor)):
        if getattr(X.dtype, "kind", "") in ("O", "U", "S", "T"):
            return Inputs(_from_list(list(np.atleast_1d(X))))
        return Inputs(ArrayImages(as_batch(X, known_channels=known_channels)))
    if isinstance(X, (str, Path, Image.Image)):
        if known_channels is None:
            raise InputError(f"X is one image, {str(X)!r}; give a list, with one entry per image.")
        return Inputs(_from_list([X]))
    if is_dataset(X):
        return _from_dataset(X, with_targets, progress)
    if isinstance(X, (list, tuple)):
        return Inputs(_from_list(X))
    if hasattr(X, "to_numpy"):  # a pandas column of paths
        if getattr(X, "ndim", 1) != 1:
            raise InputError(
                f"X is a table with the columns {[str(column) for column in X.columns][:10]}; give "
                "the column of image paths, or an array of images."
            )
        return _read(X.to_numpy(), with_targets, known_channels, progress)
    raise InputError(
        f"X is a {type(X).__name__}; give an array or tensor of images, a list of paths or PIL "
        "images, a Dataset of (image, target), or a DataLoader."
    )


def holds_targets(X: Any) -> bool:
    """Whether the type of X can contain targets in addition to images."""
    return isinstance(X, (DataLoader, IterableDataset)) or is_dataset(X)


def is_dataset(X: Any) -> bool:
    """Whether X is a map-style Dataset, or a list of (image, target) pairs or dicts."""
    if isinstance(X, (list, tuple)):
        return len(X) > 0 and isinstance(X[0], (tuple, list, dict))
    other = isinstance(X, (str, dict, np.ndarray, Tensor)) or hasattr(X, "to_numpy")
    return hasattr(X, "__getitem__") and hasattr(X, "__len__") and not other


def as_batch(X: "np.ndarray | Tensor", *, known_channels: int | None = None) -> Tensor:
    """An array of images → Tensor (n, C, H, W); see :func:`read_inputs`."""
    images = as_tensor(X)
    if known_channels is None:
        images = images[:, None] if images.ndim == 3 else images
    elif images.ndim == 2:
        images = images[None, None]
    elif images.ndim == 3:
        single = images.shape[2] in CHANNELS or known_channels == 3
        if single and not {images.shape[0], images.shape[2]} & set(CHANNELS):
            raise InputError(
                f"X has shape {tuple(images.shape)}, which is no colour image, but the model was "
                "fitted on colour images. For gray images of shape (n, H, W) pass X[:, None]."
            )
        images = images[None] if single else images[:, None]
    if images.ndim != 4:
        raise InputError(
            f"Expected images of shape (n, C, H, W), (n, H, W, C) or (n, H, W), found array with "
            f"dim {images.ndim}: shape {tuple(images.shape)}. "
            "Reshape your data so that each sample is an image."
        )
    if len(images) == 0:
        raise InputError("X holds no images: Found array with 0 sample(s), at least 1 is required.")
    return checked_range(channels_first(images))


def survey_of(inputs: Inputs, progress: str | None = None) -> Survey:
    """Summary of all images; each is read and checked, unless that has been done already.

    Raises
    ------
    InputError
        An image cannot be used; the message names it.
    """
    if inputs.survey is not None:
        return inputs.survey
    if isinstance(inputs.images, (ArrayImages, ListImages)):
        return inputs.images.survey()
    return Survey.of(inputs.images[index] for index in _numbers(inputs.images, progress))


def _numbers(images: ImageSource, progress: str | None) -> Any:
    return tqdm(range(len(images)), desc=progress, disable=progress is None, leave=False)


def _from_dataset(dataset: Any, with_targets: bool, progress: str | None) -> Inputs:
    if len(dataset) == 0:
        raise InputError("X holds no images.")
    images = DatasetImages(dataset)
    known = _known_targets(dataset) if with_targets else None
    if with_targets and known is None:
        return _with_items_targets(images, progress)
    images[0]  # fail early if the first image cannot be read
    return Inputs(images, known)


def _with_items_targets(images: DatasetImages, progress: str | None) -> Inputs:
    """Targets of the items and a summary of their images, from one pass over the Dataset."""
    targets: list[Any] = []

    def each_image() -> Iterator[Tensor]:
        for index in _numbers(images, progress):
            image, target = images.item(index)
            if target is None:
                raise InputError(
                    f"Item {index} of the Dataset has no target; fit needs (image, target) pairs, "
                    "dicts with 'image' and 'label', or y."
                )
            targets.append(as_array(target, "target"))
            yield image

    survey = Survey.of(each_image())
    return Inputs(images, _stacked(targets), survey=survey)


def _stacked(targets: list[Any]) -> Any:
    shapes = {target.shape for target in targets}
    if len(shapes) > 1:
        raise InputError(
            f"The targets have different shapes: {sorted(shapes)[:3]}. Give one label per image, "
            "or a row of 0 and 1 of the same length."
        )
    return np.stack(targets)


def _known_targets(dataset: Any) -> Any:
    """Targets that are certain to be those of the items; None: they must be read from these.

    What a Dataset stores beside its items, such as ``targets``, need not be what they give.
    """
    if type(dataset) is Subset:
        known = _known_targets(dataset.dataset)
        return None if known is None else known[np.asarray(dataset.indices)]
    if type(dataset) is TensorDataset and len(dataset.tensors) > 1:
        return dataset.tensors[1].cpu().numpy()
    return None


def _from_stream(stream: Stream, with_targets: bool) -> Inputs:
    images: list[Any] = []
    targets: list[Any] = []
    for some, their_targets in stream.batches():
        images.extend(some)
        if their_targets is not None:
            targets.extend(as_array(target, "target") for target in their_targets)
    source = _from_list(images)
    if with_targets and len(targets) != len(images):
        raise InputError(
            f"X holds {len(images)} images and {len(targets)} targets; fit needs (image, target) "
            "pairs, dicts with 'image' and 'label', or y."
        )
    return Inputs(source, _stacked(targets) if with_targets else None, stream.loader.batch_size)


def _from_list(values: Sequence[Any]) -> ImageSource:
    if len(values) == 0:
        raise InputError("X holds no images.")
    if not all(isinstance(value, (str, Path)) for value in values):
        return ListImages(values)
    images = FileImages(values)
    images[0]  # fail early if the first image cannot be read
    return images
