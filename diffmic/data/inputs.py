"""Reading X: arrays, tensors, paths, PIL images, Datasets, DataLoaders."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset
from tqdm.auto import tqdm

from ..errors import InputError
from .files import holds_content
from .images import CHANNELS, as_tensor, channels_first
from .loaders import batch_size_of, items_of
from .names import Names, dataset_names
from .ranges import ValueRange
from .reading import Reading
from .sources import (
    ArrayImages,
    DatasetImages,
    FileImages,
    ImageSource,
    ListImages,
    Source,
    is_path,
)
from .streams import Stream
from .survey import Survey
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
    value_range: ValueRange | None = None,
    skip: bool = False,
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
    value_range : ValueRange or None
        Range of pixel values, as in :func:`~diffmic.data.images.as_image`.
    skip : bool
        Whether images that cannot be used are left out (``kept`` are the others) when they are
        read along with targets, and not looked for otherwise.

    Raises
    ------
    InputError
        X is empty, of an unknown type, or contains images that cannot be used.
    """
    if isinstance(X, Inputs):
        return X
    how = _How(with_targets, known_channels, progress, value_range, skip)
    inputs = _read(X, how)
    if inputs.targets is None:
        return inputs
    return replace(inputs, names=dataset_names(X, inputs.targets))


@dataclass(frozen=True)
class _How:
    """Arguments of :func:`read_inputs`."""

    with_targets: bool
    known_channels: int | None
    progress: str | None
    value_range: ValueRange | None
    skip: bool

    def checked(self, images: Source) -> ImageSource:
        """The images, after a first look at them: an error early rather than late."""
        if not self.skip:
            images.check(Reading(self.value_range, raw=self.known_channels is None))
        return images


def _read(X: Any, how: _How) -> Inputs:
    known_channels = how.known_channels
    if (stream := Stream.of(X)) is not None:
        return _from_stream(stream, how)
    if isinstance(X, DataLoader):
        inputs = _read(items_of(X), how)
        return replace(inputs, batch_size=batch_size_of(X), num_workers=X.num_workers)
    if isinstance(X, (np.ndarray, Tensor)):
        if getattr(X.dtype, "kind", "") in ("O", "U", "S", "T"):
            return Inputs(_from_list(_entries(X), how))
        any_type = how.value_range is not None
        batch = as_batch(X, known_channels=known_channels, any_type=any_type)
        return Inputs(how.checked(ArrayImages(batch)))
    if is_path(X) or isinstance(X, Image.Image) or holds_content(X):
        if known_channels is None:
            shown = repr(str(X)) if is_path(X) or isinstance(X, Image.Image) else type(X).__name__
            raise InputError(f"X is one image, {shown}; give a list, with one entry per image.")
        return Inputs(_from_list([X], how))
    if is_sparse(X):
        raise InputError(
            f"X is a sparse matrix of shape {X.shape}; give images of shape (n, H, W) or "
            "(n, H, W, C): X.toarray().reshape(-1, height, width)."
        )
    if is_dataset(X):
        return _from_dataset(X, how)
    if isinstance(X, (list, tuple)):
        return Inputs(_from_list(X, how))
    if hasattr(X, "to_numpy"):  # a pandas column of paths
        if getattr(X, "ndim", 1) != 1:
            raise InputError(
                f"X is a table with the columns {[str(column) for column in X.columns][:10]}; give "
                "the column of image paths, or an array of images."
            )
        return _read(X.to_numpy(), how)
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
    other = isinstance(X, (str, bytes, bytearray, memoryview, dict, np.ndarray, Tensor))
    other = other or hasattr(X, "to_numpy") or is_sparse(X)
    return hasattr(X, "__getitem__") and hasattr(X, "__len__") and not other


def is_sparse(X: Any) -> bool:
    """Whether X is a sparse matrix of scipy."""
    return hasattr(X, "toarray") and hasattr(X, "nnz")


def _entries(X: Any) -> list[Any]:
    """Entries of an array of paths or objects, (n,) or a column (n, 1); bytes are paths."""
    if X.ndim == 2 and X.shape[1] == 1:
        X = X[:, 0]
    return [os.fsdecode(x) for x in X] if X.dtype.kind == "S" else list(np.atleast_1d(X))


def as_batch(
    X: "np.ndarray | Tensor", *, known_channels: int | None = None, any_type: bool = False
) -> Tensor:
    """An array of images → Tensor (n, C, H, W), whose range of values has not been checked.

    Parameters
    ----------
    X : ndarray or Tensor
    known_channels : int or None
        See :func:`read_inputs`.
    any_type : bool
        See :func:`as_tensor`.
    """
    images = as_tensor(X, any_type=any_type)
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
    return channels_first(images)


def survey_of(
    inputs: Inputs,
    progress: str | None = None,
    *,
    value_range: ValueRange | None = None,
    skip: bool = False,
) -> Survey:
    """Summary of all images; each is read and checked, unless that has been done already.

    Parameters
    ----------
    inputs : Inputs
    progress, value_range
        See :func:`read_inputs`.
    skip : bool
        Whether images that cannot be used are left out instead of raising an error.

    Raises
    ------
    InputError
        An image cannot be used; the message names it.
    """
    if inputs.survey is not None:
        return inputs.survey
    numbers = _numbers(inputs.images, progress)
    return Survey.of(inputs.images, numbers, value_range=value_range, skip=skip)


def _numbers(images: ImageSource, progress: str | None) -> Any:
    return tqdm(range(len(images)), desc=progress, disable=progress is None, leave=False)


def _from_dataset(dataset: Any, how: _How) -> Inputs:
    if len(dataset) == 0:
        raise InputError("X holds no images.")
    images = DatasetImages(dataset)
    known = _known_targets(dataset) if how.with_targets else None
    if how.with_targets and known is None:
        return _with_items_targets(images, how)
    return Inputs(how.checked(images), known)


def _with_items_targets(images: DatasetImages, how: _How) -> Inputs:
    """Targets of the items and a summary of their images, from one pass over the Dataset."""
    targets: list[Any] = []
    survey = Survey(how.value_range, how.skip)
    found: list[Any] = []

    def read(index: int, reading: Reading) -> Tensor:
        image, target = images.item(index, reading)
        found[:] = [target]
        return image

    for index in _numbers(images, how.progress):
        if not survey.add(index, partial(read, index)):
            continue
        if found[0] is None:
            raise InputError(
                f"Item {index} of the Dataset has no target; fit needs (image, target) pairs, "
                "dicts with 'image' and 'label', or y."
            )
        targets.append(as_array(found[0], "target"))
    if not targets:
        survey.report()
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


def _from_stream(stream: Stream, how: _How) -> Inputs:
    images: list[Any] = []
    targets: list[Any] = []
    for some, their_targets in stream.batches():
        images.extend(some)
        if their_targets is not None:
            targets.extend(as_array(target, "target") for target in their_targets)
    source = _from_list(images, how)
    if how.with_targets and len(targets) != len(images):
        raise InputError(
            f"X holds {len(images)} images and {len(targets)} targets; fit needs (image, target) "
            "pairs, dicts with 'image' and 'label', or y."
        )
    return Inputs(source, _stacked(targets) if how.with_targets else None, stream.loader.batch_size)


def _from_list(values: Sequence[Any], how: _How) -> ImageSource:
    if len(values) == 0:
        raise InputError("X holds no images.")
    return how.checked((FileImages if all(map(is_path, values)) else ListImages)(values))
