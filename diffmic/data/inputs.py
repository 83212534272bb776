"""Reading X: arrays, tensors, paths, PIL images, Datasets, DataLoaders."""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from ..errors import InputError, warn_user
from ..image_table import LabelledTable
from .arrays import as_batch, entries_of
from .columns import as_array, column_names
from .files import holds_content
from .item_targets import known_targets, stacked
from .items import USUAL_KEYS, Keys, as_mapping, is_file, split_item
from .loaders import batch_size_of, items_of
from .names import Names, dataset_names, names_in_lists
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
from .workers import Workers

_MUCH_MEMORY = 4 << 30


@dataclass(frozen=True)
class Inputs:
    """Images passed as X, with the targets and loader options that X contains."""

    images: ImageSource
    targets: Any = None  # array of those of a Dataset or DataLoader, if requested
    batch_size: int | None = None  # of the DataLoader, if X is one
    survey: Survey | None = None  # of all images, if they were read along with the targets
    names: Names | None = None  # of the labels, by raw label, or by column for multi-label


@dataclass(frozen=True)
class How:
    """How images are read and checked.

    Attributes
    ----------
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
    keys : Keys
        Keys of images and targets in items, batches or an X that are dicts.
    num_workers : int
        Number of worker processes that read the items of a Dataset.
    """

    with_targets: bool = False
    known_channels: int | None = None
    progress: str | None = None
    value_range: ValueRange | None = None
    skip: bool = False
    keys: Keys = USUAL_KEYS
    num_workers: int = 0

    def checked(self, images: Source) -> ImageSource:
        """The images, after a first look at them: an error early rather than late."""
        if not self.skip:
            images.check(Reading(self.value_range, raw=self.known_channels is None))
        return images


def read_inputs(X: Any, how: How | None = None, **options: Any) -> Inputs:
    """Read X, whatever its type.

    Parameters
    ----------
    X : array, tensor, list, dict, Dataset or DataLoader
        Images. What can only be walked, such as an IterableDataset, is read once and kept in
        memory; :class:`Stream` reads it batch by batch instead. Inputs are returned as they are.
    how : How or None
    options
        Fields of :class:`How`, which take the place of those in ``how``.

    Raises
    ------
    InputError
        X is empty, of an unknown type, or contains images that cannot be used.
    """
    if isinstance(X, Inputs):
        return X
    how = replace(how or How(), **options)
    inputs = _read(X, how)
    if inputs.targets is None:
        return inputs
    return replace(inputs, names=dataset_names(X, inputs.targets, how.keys.label))


def _read(X: Any, how: How) -> Inputs:
    known_channels = how.known_channels
    if (stream := Stream.of(X, how.keys, skip=how.skip)) is not None:
        return _from_stream(stream, how)
    if isinstance(X, DataLoader):
        items = items_of(X, fitting=how.known_channels is None)
        inputs = _from_dataset(items, how, Workers.of(X))
        return replace(inputs, batch_size=batch_size_of(X))
    if isinstance(X, (np.ndarray, Tensor)):
        if getattr(X.dtype, "kind", "") in ("O", "U", "S", "T"):
            return Inputs(_from_list(entries_of(X), how))
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
    if isinstance(X, LabelledTable):
        return _read(X.images, how)
    if (values := as_mapping(X, how.keys)) is not None:
        return _from_mapping(values, how)
    if isinstance(X, (list, tuple)) and X and isinstance(X[0], (DataLoader, Dataset)):
        raise InputError(
            f"X is a list of {type(X[0]).__name__}s. Join their data sets, "
            "torch.utils.data.ConcatDataset([...]); or pass the second as validation_data."
        )
    if is_dataset(X):
        return _from_dataset(X, how)
    if isinstance(X, (list, tuple)):
        return Inputs(_from_list(X, how))
    if isinstance(X, Dataset):
        raise InputError(
            f"X is a Dataset, {type(X).__name__}, without __len__ or __getitem__; a map-style "
            "Dataset needs both. Derive one without a length from IterableDataset."
        )
    if _is_column(X) and (columns := column_names(X)):
        if len(columns) == 1:
            return _read(X[columns[0]], how)
        raise InputError(
            f"X is a table with the columns {columns[:10]}; give the column of image paths, "
            "X=table[column], with y=table[another], or an array of images."
        )
    if hasattr(X, "to_pylist"):  # a column of pyarrow
        return _read(X.to_pylist(), how)
    if hasattr(X, "to_numpy"):  # a column of pandas or polars
        return _read(X.to_numpy(), how)
    if hasattr(X, "train_dataloader"):
        raise InputError(
            f"X is a {type(X).__name__}, which holds several DataLoaders: call its setup, and pass "
            "X.train_dataloader(), with validation_data=X.val_dataloader()."
        )
    if hasattr(X, "__array__") and not isinstance(X, type):  # of another library
        return _read(np.asarray(X), how)
    kept = " list(X) keeps what it yields." if isinstance(X, (Iterator, Set)) else ""
    raise InputError(
        f"X is a {type(X).__name__}; give an array or tensor of images, a list of paths or PIL "
        f"images, a Dataset of (image, target), or a DataLoader.{kept}"
    )


def holds_targets(X: Any) -> bool:
    """Whether the type of X can contain targets in addition to images."""
    if isinstance(X, (DataLoader, IterableDataset)) or as_mapping(X) is not None:
        return True
    return is_dataset(X)


def is_dataset(X: Any) -> bool:
    """Whether X is a map-style Dataset, or a list of (image, target) pairs or dicts."""
    if isinstance(X, (list, tuple)):
        return len(X) > 0 and (isinstance(X[0], (tuple, list)) or as_mapping(X[0]) is not None)
    other = isinstance(X, (str, bytes, bytearray, memoryview, Mapping, np.ndarray, Tensor, type))
    other = other or _is_column(X) or is_sparse(X)
    return hasattr(X, "__getitem__") and hasattr(X, "__len__") and not other


def _is_column(X: Any) -> bool:
    """Whether X is a column or table of pandas, polars or pyarrow."""
    return hasattr(X, "to_numpy") or hasattr(X, "to_pylist")


def is_sparse(X: Any) -> bool:
    """Whether X is a sparse matrix of scipy."""
    return hasattr(X, "toarray") and hasattr(X, "nnz")


def survey_of(inputs: Inputs, how: How | None = None) -> Survey:
    """Summary of all images; each is read and checked, unless that has been done already."""
    how = how or How()
    return inputs.survey or Survey.of(
        inputs.images, value_range=how.value_range, skip=how.skip, progress=how.progress
    )


def _from_dataset(dataset: Any, how: How, workers: Workers | None = None) -> Inputs:
    if len(dataset) == 0:
        raise InputError("X holds no images.")
    images = DatasetImages(dataset, how.keys, workers or Workers(how.num_workers, dataset))
    known = known_targets(dataset) if how.with_targets else None
    if not how.with_targets or known is not None:
        return Inputs(images, known)
    survey = Survey.of(
        images,
        value_range=how.value_range,
        skip=how.skip,
        with_targets=True,
        progress=how.progress,
    )
    if not survey.kept:
        survey.report()
    listed = names_in_lists(dataset, how.keys.label)
    return Inputs(images, stacked(survey.targets, listed), survey=survey)


def read_before(X: Any, targets: list[Any], keys: Keys) -> Inputs:
    """Targets that have been read with the images, of which only the number is kept."""
    images: Any = range(len(targets))
    together = stacked(targets, names_in_lists(X, keys.label))
    return Inputs(images, together, names=dataset_names(X, together, keys.label))


def _from_mapping(values: Mapping[Any, Any], how: How) -> Inputs:
    """A batch or an item that is a dict."""
    image, target = split_item(values, how.keys, with_target=how.with_targets, name="X")
    if as_mapping(image, how.keys) is not None and not is_file(image):
        raise InputError(f"X is a dict whose images are a {type(image).__name__}.")
    inputs = _read(image, replace(how, with_targets=False))
    if not how.with_targets:
        return inputs
    return replace(inputs, targets=np.atleast_1d(as_array(target, "target")))


def _from_stream(stream: Stream, how: How) -> Inputs:
    images: list[Any] = []
    targets: list[Any] = []
    n_bytes = 0
    for some, their_targets in stream.batches(with_targets=how.with_targets):
        images.extend(map(_own, some))
        if their_targets is not None:
            targets.extend(
                None if isinstance(image, InputError) else as_array(target, "target").copy()
                for image, target in zip(some, their_targets, strict=True)
            )
        before, n_bytes = n_bytes, n_bytes + sum(getattr(image, "nbytes", 0) for image in some)
        if before < _MUCH_MEMORY <= n_bytes:
            warn_user(
                f"The images take more than {_MUCH_MEMORY >> 30} GiB of memory: what has no random "
                "access, or a collate_fn of its own, is read once and kept. Items of a map-style "
                "Dataset are read when they are used; pass the Dataset, without the DataLoader."
            )
    source = _from_list(images, how)
    if not how.with_targets:
        return Inputs(source, None, stream.batch_size)
    survey = None
    if any(isinstance(image, InputError) for image in images):
        survey = Survey.of(source, value_range=how.value_range, skip=True)
        targets = [targets[index] for index in survey.kept]
        if not targets:
            survey.report()
    listed = names_in_lists(stream.loader, how.keys.label)
    return Inputs(source, stacked(targets, listed), stream.batch_size, survey)


def _own(image: Any) -> Any:
    """The image, copied if it holds on to memory, and a file descriptor, shared with a worker."""
    if isinstance(image, Tensor) and image.is_shared():  # type: ignore[no-untyped-call]
        return image.clone()
    return image


def _from_list(values: Sequence[Any], how: How) -> ImageSource:
    if len(values) == 0:
        raise InputError("X holds no images.")
    return how.checked((FileImages if all(map(is_path, values)) else ListImages)(values))
