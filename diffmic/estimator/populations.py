"""Class shares and costs as people give them, in the order of the classes."""

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..inference import FittedModel, PrevalenceEstimate

Floats = NDArray[np.float64]

COSTS = ("equal", "balanced", "quadratic")
LARGEST_ROUNDING = 0.02  # of the sum of shares


def prevalence_of(model: FittedModel, given: Any, names: Sequence[str]) -> Floats | None:
    """Class shares (C,) of the population that predictions are for; None: nothing was given.

    Parameters
    ----------
    model : FittedModel
    given : mapping, sequence, Series, PrevalenceEstimate or None
        Shares by class label or display name, or in the order of the classes. One of several
        exclusive classes may be left out of a mapping: it has the rest. Labels of a multi-label
        task that are left out keep their shares.
    names : sequence of str
        Display names of the classes.
    """
    if given is None:
        return None
    if isinstance(given, PrevalenceEstimate):
        if given.classes.tolist() != model.classes.tolist():
            raise InputError(
                f"prevalence is an estimate for the classes {given.classes.tolist()}; those of the "
                f"model are {model.classes.tolist()}."
            )
        given = given.shares
    if hasattr(given, "items") and hasattr(given, "index") and not isinstance(given, Mapping):
        given = dict(given.items())  # a Series of pandas
        if any(hasattr(value, "items") for value in given.values()):
            raise InputError("prevalence is a table; give one of its columns.")
    model_shares = model._known(model.shares)
    shares = (
        _named_shares(model, given, names, model_shares)
        if isinstance(given, Mapping)
        else _listed_shares(model, given)
    )
    if not np.isfinite(shares).all() or (shares < 0).any() or (shares > 1).any():
        percent = " Divide percentages by 100." if np.isfinite(shares).all() else ""
        raise InputError(f"prevalence is {shares.tolist()}; shares lie between 0 and 1.{percent}")
    if model.task.exclusive:
        total = float(shares.sum())
        if abs(total - 1) > LARGEST_ROUNDING:
            raise InputError(
                f"The shares in prevalence sum to {total:.4g}, but each image has one of the "
                f"classes {model.classes.tolist()[:20]}: give shares that sum to 1."
            )
        shares = shares / total
    # Of a class that was never seen nothing is known, whatever its share is now.
    unseen = (model_shares == 0) & (shares > 0)
    if not model.task.exclusive:
        unseen = ((model_shares == 0) | (model_shares == 1)) & (shares != model_shares)
    if unseen.any():
        which = [name for name, there in zip(names, unseen, strict=True) if there]
        images = "images of" if model.task.exclusive else "images both with and without"
        raise InputError(
            f"The model was trained without {images} {which[:10]}, so that a share of theirs "
            "cannot be taken into account."
        )
    return shares


def _named_shares(
    model: FittedModel, given: Mapping[Any, Any], names: Sequence[str], former: Floats
) -> Floats:
    shares = np.full(len(names), np.nan)
    positions = _positions(model, list(given), names, "prevalence")
    for key, position in positions.items():
        shares[position] = _number(given[key], key)
    absent = np.setdiff1d(np.arange(len(names)), list(positions.values()))
    if not model.task.exclusive:
        shares[absent] = former[absent]
    elif len(absent) == 1 and (rest := 1 - float(np.nansum(shares))) >= -LARGEST_ROUNDING:
        shares[absent] = max(0.0, rest)
    elif len(absent):
        raise InputError(
            f"prevalence lacks the classes {[names[i] for i in absent[:10]]}; give a share for "
            f"each of {list(names)[:20]}."
        )
    return shares


def _listed_shares(model: FittedModel, given: Any) -> Floats:
    n_classes = len(model.classes)
    if isinstance(given, str | bytes | AbstractSet | Iterator) or not np.iterable(given):
        raise InputError(
            f"prevalence is {given!r}; give a dict from class to share, or a list with a share for "
            f"each of the {n_classes} classes in the order of classes_."
        )
    shares = np.array([_number(value, i) for i, value in enumerate(given)], dtype=np.float64)
    if len(shares) != n_classes:
        raise InputError(
            f"prevalence has {len(shares)} shares, but there are {n_classes} classes: "
            f"{model.classes.tolist()[:20]}."
        )
    return shares


def _number(value: Any, where: Any) -> float:
    try:
        if isinstance(value, str | bytes | bool | np.bool_):
            raise TypeError
        return float(value)
    except (TypeError, ValueError) as reason:
        raise InputError(f"prevalence is {value!r} for {where!r}; give a number.") from reason


def _positions(
    model: FittedModel, keys: Sequence[Any], names: Sequence[str], what: str
) -> dict[Any, int]:
    """Position of each key among the classes, by label or else by display name."""
    labels = {label: i for i, label in enumerate(model.classes.tolist())}
    shown = {name: i for i, name in enumerate(names)}
    found: dict[Any, int] = {}
    for key in keys:
        plain = key.item() if isinstance(key, np.generic) else key
        try:
            position = labels.get(plain, shown.get(plain))
        except TypeError:
            position = None
        if position is None or (isinstance(plain, bool) and model.classes.dtype.kind != "b"):
            called = f", called {list(names)[:20]}" if list(map(str, labels)) != [*names] else ""
            raise InputError(
                f"{what} names {key!r}, which is no class; the classes are "
                f"{model.classes.tolist()[:20]}{called}."
            )
        if position in found.values():
            raise InputError(f"{what} names the class {names[position]!r} twice.")
        found[key] = position
    return found


def costs_of(model: FittedModel, given: Any, names: Sequence[str]) -> Floats | str | None:
    """Cost matrix in the order of the classes, or the name of one; None: nothing was given.

    Parameters
    ----------
    model : FittedModel
    given : array-like, pandas frame, str or None
        Costs (C, C), with the true class in rows and the decision in columns; the rows and columns
        of a frame are named by class label or display name and put in order. Multi-label: (2, 2)
        for all labels or (L, 2, 2) for each; first absent, then present.
    names : sequence of str
        Display names of the classes.
    """
    if given is None:
        return None
    if isinstance(given, str):
        if given not in COSTS:
            raise InputError(f"costs is {given!r}; give a matrix, or one of {list(COSTS)}.")
        if given == "quadratic" and model.task.name != "ordinal":
            raise InputError(
                "costs='quadratic' are squared distances between grades, but the task is "
                f"{model.task.name}, whose classes have no order."
            )
        return given
    exclusive, n = model.task.exclusive, len(model.classes)
    if hasattr(given, "columns"):
        if not exclusive:
            raise InputError(
                "costs is a table, but the task is multi-label: give an array of shape (2, 2) for "
                f"all labels, or ({n}, 2, 2) for each."
            )
        given = _in_order(model, given, names)
    try:
        costs = np.array(given, dtype=np.float64)
    except (TypeError, ValueError) as reason:
        raise InputError(f"costs cannot be read as a matrix of numbers: {reason}") from reason
    wanted = [(n, n)] if exclusive else [(2, 2), (n, 2, 2)]
    if costs.shape not in wanted:
        raise InputError(
            f"costs has shape {costs.shape}; give {' or '.join(map(str, wanted))}: a row for each "
            "true class and a column for each decision"
            + (f", in the order {model.classes.tolist()[:20]}." if exclusive else ".")
        )
    if not np.isfinite(costs).all():
        raise InputError("costs holds NaN or infinity; give finite numbers.")
    return costs if exclusive or costs.ndim == 3 else np.broadcast_to(costs, (n, 2, 2)).copy()


def _in_order(model: FittedModel, table: Any, names: Sequence[str]) -> Floats:
    """Rows and columns of a frame in the order of the classes."""
    if not hasattr(table, "index") or not hasattr(table, "loc"):
        raise InputError(
            "costs is a table without names of its rows, so that they cannot be compared with the "
            "classes. Give a pandas frame with an index, or an array."
        )
    order = []
    for axis, keys in (("rows", list(table.index)), ("columns", list(table.columns))):
        found = _positions(model, keys, names, f"costs, among its {axis},")
        absent = [name for i, name in enumerate(names) if i not in found.values()]
        if absent:
            raise InputError(f"costs lacks {axis} for the classes {absent[:10]}.")
        positions = list(found.values())
        order.append([positions.index(i) for i in range(len(names))])
    values = table.to_numpy()
    ordered: Floats = values[np.ix_(*order)]
    return ordered
