"""Display names of classes that come along with the data: datasets, tables."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import ChainDataset, ConcatDataset, DataLoader, Subset

from ..errors import InputError, warn_user
from .columns import column_names
from .items import LABEL_KEYS

Names = Mapping[Any, str]


def dataset_names(
    dataset: Any, targets: NDArray[Any], label_key: str | None = None
) -> Names | None:
    """Display names of the labels of a Dataset, from raw label (or column) to name.

    Names are taken only where they fit the labels that the items gave. They do not if ``targets``
    of the Dataset says something else than its items, or if some names have no label and nothing
    shows that the labels are those which the names were made for.
    ``targets`` (n,), (n, 1) or (n, L) are those that its items gave, ``label_key`` is their key in
    items that are dicts.
    """
    if targets.dtype.kind not in "biuf" or targets.ndim > 2:
        return None
    names = stated_names(dataset, label_key)
    if names is None:
        _point_out_nameless_parts(dataset, label_key)
        return None
    if targets.ndim == 2 and targets.shape[1] > 1:
        return names if set(names) == set(range(targets.shape[1])) else None
    found, stated = set(targets.ravel().tolist()), stated_targets(dataset, label_key)
    if stated is not None and stated.size != targets.size:
        stated = None  # of another kind, such as indicator rows
    agrees = stated is not None and np.array_equal(stated.ravel(), targets.ravel())
    if found <= set(names) and (agrees or (stated is None and found == set(names))):
        return names
    if len(found) > 1:
        why = (
            "its 'targets' differ from the labels of its items"
            if stated is not None and not agrees
            else f"its items hold the labels {sorted(found)[:10]}"
        )
        warn_user(
            f"The Dataset names the classes {list(names.values())[:10]}, but {why}, so the names "
            "are not used. Pass class_names to name the classes."
        )
    return None


def _point_out_nameless_parts(dataset: Any, label_key: str | None) -> None:
    """Warn of joined Datasets of which some name their classes and some do not."""
    dataset = _whole(dataset)
    parts = getattr(dataset, "datasets", ())
    if not isinstance(dataset, (ConcatDataset, ChainDataset)):
        return
    nameless = [i for i, part in enumerate(parts) if stated_names(part, label_key) is None]
    if nameless and len(nameless) < len(parts):
        warn_user(
            f"Parts {nameless[:10]} of the {type(dataset).__name__} do not name their classes, as "
            "others do, so the names are not used. Pass class_names to name the classes."
        )


def stated_names(dataset: Any, label_key: str | None = None) -> Names | None:
    """Names of the labels that a Dataset states, whether or not its items hold such labels."""
    dataset = _whole(dataset)
    if isinstance(dataset, (ConcatDataset, ChainDataset)):
        all_names = [stated_names(part, label_key) for part in dataset.datasets]
        named = [names for names in all_names if names is not None]
        different = [names for names in named if names != named[0]]
        if different:
            raise InputError(
                f"The parts of the {type(dataset).__name__} number their classes differently: "
                f"{list(named[0].items())[:10]} and {list(different[0].items())[:10]}, so one "
                "number would stand for two classes. Give all parts the same class_to_idx, or a "
                "target_transform that gives names."
            )
        return named[0] if named and len(named) == len(all_names) else None
    features: Any = getattr(dataset, "features", None)
    info = getattr(dataset, "info", None)
    if (key := _column(features, label_key)) is not None:
        return _by_number(getattr(_element(features[key]), "names", None))
    return (
        _inverted(getattr(dataset, "class_to_idx", None))
        or _by_number(getattr(dataset, "classes", None))
        or _by_number(info.get("label") if isinstance(info, Mapping) else None)  # of MedMNIST
        or _by_number(getattr(dataset, "pathologies", None))  # of torchxrayvision
    )


def stated_targets(dataset: Any, label_key: str | None = None) -> NDArray[Any] | None:
    """Targets that a Dataset states beside its items, which may hold others; None: it has none."""
    if isinstance(dataset, DataLoader):
        return stated_targets(dataset.dataset, label_key)
    if isinstance(dataset, Subset):
        stated = stated_targets(dataset.dataset, label_key)
        return None if stated is None else stated[np.asarray(dataset.indices)]
    if isinstance(dataset, ConcatDataset):
        parts = [stated_targets(part, label_key) for part in dataset.datasets]
        known = [part for part in parts if part is not None]
        return np.concatenate(known) if known and len(known) == len(parts) else None
    key = _column(getattr(dataset, "features", None), label_key)
    if key is not None and hasattr(dataset, "with_format"):
        if _length(dataset) is None:  # a stream, whose labels are read with its images
            return None
        columns = [dataset.with_format(None)[key][:]]  # as stored, whatever its transform does
    else:
        columns = [getattr(dataset, name, None) for name in ("targets", "labels")]
    for column in columns:
        try:
            stated = np.asarray(column)
        except ValueError:  # rows of different lengths
            continue
        if stated.dtype.kind in "biuf" and stated.ndim > 0 and len(stated) == _length(dataset):
            return stated
    return None


def names_in_lists(dataset: Any, label_key: str | None = None) -> Names | None:
    """Names of the classes of which each item of a Hugging Face dataset holds a list; else None."""
    features: Any = getattr(_whole(dataset), "features", None)
    key = _column(features, label_key)
    if key is None or _element(features[key]) is features[key]:
        return None
    return stated_names(dataset, label_key)


def _whole(dataset: Any) -> Any:
    """The Dataset of a DataLoader, of which a Subset may be a part."""
    while isinstance(dataset, (DataLoader, Subset)):
        dataset = dataset.dataset
    return dataset


def _element(feature: Any) -> Any:
    """What a list of Hugging Face features holds (``Sequence``, ``List``, [...]); else itself."""
    if isinstance(feature, list) and len(feature) == 1:
        return feature[0]
    return getattr(feature, "feature", feature)


def _length(dataset: Any) -> int | None:
    try:
        return len(dataset)
    except TypeError:  # a stream
        return None


def _column(features: Any, label_key: str | None) -> str | None:
    """Key of the labels among the features of a Hugging Face dataset; None for any other."""
    if not isinstance(features, Mapping):
        return None
    keys = LABEL_KEYS if label_key is None else (label_key,)
    return next((key for key in keys if key in features), None)


def table_names(y: Any) -> Names | None:
    """Names of the columns of an indicator table, by their number; None for any other y.

    The labels in a column of a Hugging Face dataset have the names that the dataset states.
    """
    features = getattr(getattr(y, "source", None), "features", None)
    if isinstance(features, Mapping):
        return _by_number(getattr(features.get(getattr(y, "column_name", None)), "names", None))
    columns = column_names(y)
    return dict(enumerate(columns)) if len(columns) > 1 else None


def _by_number(names: Any) -> Names | None:
    """Names by label, from a sequence of names or a mapping of either direction."""
    if isinstance(names, Mapping):
        return _inverted(names) or _of_numbers(names)
    if isinstance(names, np.ndarray):
        names = names.tolist()
    if not isinstance(names, Sequence) or isinstance(names, str) or not _all_strings(names):
        return None
    return dict(enumerate(names)) or None


def _inverted(numbers: Any) -> Names | None:
    """Names by label, from labels by name."""
    if not isinstance(numbers, Mapping) or not _all_strings(numbers):
        return None
    if not all(isinstance(number, (int, np.integer)) for number in numbers.values()):
        return None
    names = {int(number): name for name, number in numbers.items()}
    return names if names and len(names) == len(numbers) else None


def _of_numbers(names: Mapping[Any, Any]) -> Names | None:
    """Names by label, of which numbers may be written as words, as MedMNIST does."""
    if not _all_strings(names.values()):
        return None
    try:
        return {int(number): name for number, name in names.items()} or None
    except (TypeError, ValueError):
        return None


def _all_strings(values: Iterable[Any]) -> bool:
    return all(isinstance(value, str) for value in values)
