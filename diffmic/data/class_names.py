"""Display names of classes: those a user gives, and two sources of data compared by name."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, warn_user
from ..tasks import Task
from .columns import as_array
from .labels import onehot_labels, plain_labels
from .names import Names


def given_names(class_names: Any, classes: Sequence[Any]) -> tuple[str, ...] | None:
    """Display names of the classes that a user gave, in the order of the classes; None: none.

    ``classes`` are the labels, or, for multi-label, the column indices. An InputError says that
    there is not one name for each class, or that two classes have the same.
    """
    if class_names is None:
        return None
    if isinstance(class_names, Mapping):
        named = {_plain(label): name for label, name in class_names.items()}
        if not all(label in named for label in classes):
            raise InputError(_unnamed(named, classes))
        names = [named[label] for label in classes]
    elif isinstance(class_names, str | AbstractSet | Iterator) or not np.iterable(class_names):
        raise InputError(
            f"class_names is {class_names!r}; give a list with one name per class, or None; or a "
            "dict from label to name."
        )
    else:
        names = [name.name if isinstance(name, Enum) else name for name in class_names]
    if len(names) != len(classes):
        raise InputError(
            f"class_names has {len(names)} names, but y holds {len(classes)} classes: "
            f"{[*classes]}. Give as many, a dict from label to name, or "
            "set_params(class_names=None)."
        )
    nameless = any(name is None or name != name or not str(name).strip() for name in names)
    if nameless or len(set(map(str, names))) < len(names):
        raise InputError(f"class_names is {names}; give each class a name of its own.")
    return tuple(map(str, names))


def data_names(names: Names | None, classes: Sequence[Any]) -> tuple[str, ...] | None:
    """Names of the classes that came along with the data, unless they are no more than labels."""
    if names is None or not all(label in names for label in classes):
        return None
    found = tuple(names[label] for label in classes)
    if len(set(found)) < len(found):
        twice = next(name for name in found if found.count(name) > 1)
        warn_user(
            f"Two classes or columns of the data are named {twice!r}, so the names are not used. "
            "Correct them, or pass class_names."
        )
        return None
    plain = all(name == str(label) for label, name in zip(classes, found, strict=True))
    return None if plain else found


def aligned(
    y: Any,
    theirs: Names | None,
    ours: tuple[str, ...] | None,
    *,
    classes: Sequence[Any],
    task: Task,
    where: str,
    certain: bool,
) -> Any:
    """Labels y of other data, as labels of the classes with the same names.

    Parameters
    ----------
    y : array-like
        Labels, or an indicator matrix.
    theirs : mapping or None
        Names that came along with y, by label or column; None: it has none.
    ours : tuple of str or None
        Names of the classes; None: strings are their own names, numbers have none.
    classes, task
        Class labels and task of the model.
    where : str
        What the other data are, for messages.
    certain : bool
        Whether ``ours`` are names that data had, not those that a user chose for display: then
        names that differ are an error, else a warning.
    """
    if ours is None and all(isinstance(label, str) for label in classes):
        ours = tuple(map(str, classes))
    taken = y  # what stands if names do not help
    if task.exclusive and (matrix := as_array(y, "y")).ndim == 2 and matrix.shape[1] > 1:
        y = taken = onehot_labels(matrix)
        if len(classes) == matrix.shape[1]:
            taken = np.asarray(classes)[y]
        if theirs is None:
            return taken
    if ours is None:
        return taken
    if not task.exclusive:
        return y if theirs is None else _columns(y, theirs, ours, where, certain)
    if theirs is None and isinstance(classes[0], str):
        return y
    labels = _labels(y)
    if labels is None:
        return y
    found = dict.fromkeys(labels.tolist())
    if theirs is None:
        if not all(isinstance(label, str) for label in found) or not found.keys() <= set(ours):
            return y
        theirs = {str(label): str(label) for label in found}
    class_of = dict(zip(ours, classes, strict=True))
    named = {label: theirs.get(label, str(label)) for label in found}
    if all(name in class_of and class_of[name] == label for label, name in named.items()):
        return y
    strange = [name for name in named.values() if name not in class_of]
    if strange and not certain:
        warn_user(
            f"The classes of {where} are named {_few(named.values())}, those of the model "
            f"{_few(ours)}: their labels are taken as they are. Pass y to say that they are the "
            "model's, or give the model the same class_names."
        )
        return taken
    if strange:
        raise InputError(
            f"{where} has the classes {_few(strange)}, which the training data do not have: these "
            f"are {_few(ours)}. Remove or rename them."
        )
    if all(isinstance(label, int) for label in (*found, *classes)):
        moved = next(label for label, name in named.items() if class_of[name] != label)
        warn_user(
            f"The classes of {where} are numbered otherwise than those of the training data: "
            f"{named[moved]!r} is {moved} there, and {class_of[named[moved]]} here. They are "
            "compared by name."
        )
    return np.asarray([class_of[named[label]] for label in labels.tolist()])


def _labels(y: Any) -> NDArray[Any] | None:
    """Labels (n,) of y; None if it has another shape."""
    array = as_array(y, "y")
    return plain_labels(array.reshape(-1)) if array.size == len(np.atleast_1d(array)) else None


def _columns(y: Any, theirs: Names, ours: tuple[str, ...], where: str, certain: bool) -> Any:
    """Columns of an indicator in the order of the labels with the same names."""
    columns = [theirs[number] for number in sorted(theirs)]
    if data_names(theirs, sorted(theirs)) is None or columns == list(ours):
        return y
    surplus = [name for name in columns if name not in ours]
    lacking = [name for name in ours if name not in columns]
    if not surplus and not lacking:
        return as_array(y, "y")[:, [columns.index(name) for name in ours]]
    if certain or len(surplus) < len(columns):
        raise InputError(
            f"The labels of {where} are not those of the training data, {_few(ours)}: it lacks "
            f"{_few(lacking)}, and has {_few(surplus)} besides. Give the same columns; one of NaN "
            "for a label that is not known."
        )
    if len(columns) == len(ours):
        warn_user(
            f"The labels of {where} are named {_few(columns)}, those of the model {_few(ours)}: "
            "its columns are taken in their order."
        )
    return y


def _unnamed(named: Mapping[Any, Any], classes: Sequence[Any]) -> str:
    without = [label for label in classes if label not in named]
    message = (
        f"class_names has no name for the labels {without[:10]}; the classes are {[*classes]}."
    )
    if all(value in classes for value in named.values() if isinstance(value, int | str)):
        return f"{message} Turn it round: it must lead from the label to the name."
    if all(str(label) in named for label in without):
        return f"{message} Its keys are text: {{int(label): name for label, name in ...}}."
    return message


def _plain(label: Any) -> Any:
    return label.item() if isinstance(label, np.generic) else label


def _few(names: Iterable[str]) -> str:
    found = [str(name) for name in names]
    return f"{found[:10]}" + (" and more" if len(found) > 10 else "")
