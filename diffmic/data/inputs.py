"""What people pass as X: arrays, tensors, paths, PIL images, Datasets, DataLoaders."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    default_collate,
    default_convert,
)
from tqdm.auto import tqdm

from ..errors import InputError
from .images import (
    CHANNELS,
    as_image,
    as_tensor,
    channels_first,
    check_image_file,
    checked_range,
    read_image,
)
from .streams import Stream, split_item

PLAIN = (SequentialSampler, RandomSampler, BatchSampler, type(None))  # all items, each once


class ImageSource(Protocol):
    """Images by number, each a Tensor (C, H, W), uint8 or float in 0–1."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Tensor: ...


@dataclass(frozen=True)
class Inputs:
    """What was passed, understood.

    Attributes
    ----------
    images : ImageSource
    targets : ndarray or None
        Targets that came with a Dataset or DataLoader, where they were asked for.
    batch_size, num_workers : int or None
        Of a DataLoader.
    """

    images: ImageSource
    targets: Any = None
    batch_size: int | None = None
    num_workers: int | None = None


def read_inputs(X: Any, *, with_targets: bool = False, known_channels: int | None = None) -> Inputs:
    """Understand X, whichever of the accepted kinds it is.

    Parameters
    ----------
    X : array, tensor, list, Dataset or DataLoader
        Images; a DataLoader's ``dataset`` is read, in its own order. An IterableDataset is walked
        through once and kept in memory; :class:`Stream` reads it as it comes.
    with_targets : bool
        Whether the targets of a Dataset or DataLoader are wanted.
    known_channels : int or None
        When predicting: the channels of the images of the fit. An array of three dimensions is
        then one image where it has channels last or the fit's images were of colour, else
        (n, H, W); one of two dimensions is one image.

    Raises
    ------
    InputError
        Nothing to read, or images that cannot be used.
    """
    if isinstance(X, Inputs):
        return X
    if (stream := Stream.of(X)) is not None:
        return _from_stream(stream, with_targets)
    if isinstance(X, DataLoader):
        inputs = read_inputs(_items_of(X), with_targets=with_targets)
        return Inputs(inputs.images, inputs.targets, X.batch_size, X.num_workers)
    if isinstance(X, (np.ndarray, Tensor)):
        if getattr(X.dtype, "kind", "") in ("O", "U", "S", "T"):
            return Inputs(_from_list(list(np.atleast_1d(X))))
        return Inputs(ArrayImages(as_batch(X, known_channels=known_channels)))
    if isinstance(X, (str, Path, Image.Image)):
        if known_channels is None:
            raise InputError(f"X is one image, {str(X)!r}; give a list, with one entry per image.")
        return Inputs(_from_list([X]))
    if _is_dataset(X):
        return _from_dataset(X, with_targets)
    if isinstance(X, (list, tuple)):
        return Inputs(_from_list(X))
    if hasattr(X, "to_numpy"):  # a pandas column of paths
        if getattr(X, "ndim", 1) != 1:
            raise InputError(
                f"X is a table with the columns {[str(column) for column in X.columns][:10]}; give "
                "the column of image paths, or an array of images."
            )
        return read_inputs(X.to_numpy(), known_channels=known_channels)
    raise InputError(
        f"X is a {type(X).__name__}; give an array or tensor of images, a list of paths or PIL "
        "images, a Dataset of (image, target), or a DataLoader."
    )


def holds_targets(X: Any) -> bool:
    """Whether X is of a kind that can hold targets beside its images."""
    return isinstance(X, (DataLoader, IterableDataset)) or _is_dataset(X)


def _is_dataset(X: Any) -> bool:
    """A map-style Dataset, or a list that does as one: of (image, target) pairs or of dicts."""
    if isinstance(X, (list, tuple)):
        return len(X) > 0 and isinstance(X[0], (tuple, dict))
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
                f"X has shape {tuple(images.shape)}, which is no colour image, and the model was "
                "fitted on those. For gray images of shape (n, H, W) pass X[:, None]."
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


def check_every_image(images: ImageSource, progress: str | None = None) -> None:
    """Read all images once, so that one that cannot be used is found before any work is done.

    Raises
    ------
    InputError
        Naming the image.
    """
    if isinstance(images, (ArrayImages, ListImages)):  # seen when they were passed
        return
    for index in tqdm(range(len(images)), desc=progress, disable=progress is None, leave=False):
        images[index]


class ArrayImages:
    """Images of one array; uint8 stays uint8."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


class FileImages:
    """Images of files, decoded when they are used; the headers are looked at right away."""

    def __init__(self, paths: Sequence[str | Path]) -> None:
        self.paths = [Path(path) for path in paths]
        for path in self.paths:
            check_image_file(path)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return read_image(self.paths[index])


class ListImages:
    """Images of a list: PIL images, arrays, tensors or paths, of any sizes."""

    def __init__(self, images: Sequence[Any]) -> None:
        self.images = images
        for index, image in enumerate(images):
            as_image(image, name=f"image {index}")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return as_image(self.images[index], name=f"image {index}")


class DatasetImages:
    """Images of a map-style Dataset of images, (image, target) pairs or dicts."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Tensor:
        return as_image(split_item(self.dataset[index])[0], name=f"image {index}")


def dataset_targets(dataset: Any) -> Any:
    """Targets of a Dataset: from its ``targets``, where it has them, else read one by one."""
    known = _known_targets(dataset)
    if known is not None:
        return known
    targets = []
    for index in range(len(dataset)):
        target = split_item(dataset[index])[1]
        if target is None:
            raise InputError(
                f"Item {index} of the Dataset has no target; fit needs (image, target) pairs, "
                "dicts with 'image' and 'label', or y."
            )
        targets.append(np.asarray(target))
    return _stacked(targets)


def _stacked(targets: list[Any]) -> Any:
    shapes = {target.shape for target in targets}
    if len(shapes) > 1:
        raise InputError(
            f"The targets have different shapes: {sorted(shapes)[:3]}. Give one label per image, "
            "or a row of 0 and 1 of the same length."
        )
    return np.stack(targets)


def _known_targets(dataset: Any) -> Any:
    if isinstance(dataset, Subset):
        known = _known_targets(dataset.dataset)
        return None if known is None else known[np.asarray(dataset.indices)]
    if isinstance(dataset, TensorDataset) and len(dataset.tensors) > 1:
        return dataset.tensors[1].cpu().numpy()
    targets = getattr(dataset, "targets", None)
    if targets is None or getattr(dataset, "target_transform", None) is not None:
        return None
    targets = np.asarray(targets)
    return targets if targets.shape[:1] == (len(dataset),) else None


def _from_dataset(dataset: Any, with_targets: bool) -> Inputs:
    if len(dataset) == 0:
        raise InputError("X holds no images.")
    images = DatasetImages(dataset)
    images[0]  # an error in the first image is an error before any work
    return Inputs(images, dataset_targets(dataset) if with_targets else None)


def _from_stream(stream: Stream, with_targets: bool) -> Inputs:
    images: list[Any] = []
    targets: list[Any] = []
    for some, their_targets in stream.batches():
        images.extend(some)
        targets.extend(map(np.asarray, [] if their_targets is None else their_targets))
    source = _from_list(images)
    if with_targets and len(targets) != len(images):
        raise InputError(
            f"X gives {len(images)} images with {len(targets)} targets; fit needs (image, target) "
            "pairs, dicts with 'image' and 'label', or y."
        )
    return Inputs(source, _stacked(targets) if with_targets else None, stream.loader.batch_size)


class CollatedItems(Dataset[Any]):
    """Items of a Dataset as a DataLoader's own ``collate_fn`` makes them, one at a time."""

    def __init__(self, dataset: Any, collate_fn: Callable[[list[Any]], Any]) -> None:
        self.dataset, self.collate_fn = dataset, collate_fn

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        image, target = split_item(self.collate_fn([self.dataset[index]]))
        return image[0] if target is None else (image[0], target[0])


def _items_of(loader: "DataLoader[Any]") -> Any:
    """The items that a DataLoader gives, in the order of its dataset."""
    dataset, sampler = loader.dataset, getattr(loader.batch_sampler, "sampler", loader.sampler)
    if isinstance(sampler, SubsetRandomSampler):
        dataset = Subset(dataset, [int(index) for index in sampler.indices])
        sampler = SequentialSampler(dataset)
    special = [type(s).__name__ for s in (sampler, loader.batch_sampler) if type(s) not in PLAIN]
    if special:
        raise InputError(
            f"The DataLoader has a {special[0]}, but its dataset is read, each item "
            "once. Pass torch.utils.data.Subset(dataset, indices) for some of its images, and "
            "sample_weight or class_weight to make some count more."
        )
    plain = (default_collate, default_convert)
    return dataset if loader.collate_fn in plain else CollatedItems(dataset, loader.collate_fn)


def _from_list(values: Sequence[Any]) -> ImageSource:
    if len(values) == 0:
        raise InputError("X holds no images.")
    if not all(isinstance(value, (str, Path)) for value in values):
        return ListImages(values)
    images = FileImages(values)
    images[0]  # an error in the first image is an error before any work
    return images
