"""Display names of a fit: they belong to its classes, and other classes do not inherit them."""

from typing import Any

import numpy as np

from ..data import TrainingData
from ..data.class_names import given_names
from ..errors import InputError
from ..inference import FittedModel

Names = tuple[str, ...] | None


def display_names(model: FittedModel, class_names: Any) -> Names:
    """Display names of the classes of a model: those of the parameter ``class_names`` go first."""
    return given_names(class_names, model.classes.tolist()) or model.class_names


def check_names(data: TrainingData, earlier: FittedModel) -> None:
    """Refuse a list of names that was given for the classes of an earlier fit."""
    given = data.class_names
    if given is not None and given == earlier.class_names and not same_classes(earlier, data):
        raise InputError(
            f"class_names is still {list(given)}, as for the classes "
            f"{earlier.classes.tolist()[:20]} of the last fit, but y holds the classes "
            f"{data.encoding.classes.tolist()[:20]}. Give names for these as a dict from label to "
            "name, or set_params(class_names=None)."
        )


def names_of_fit(data: TrainingData, learnt: FittedModel | None) -> tuple[Names, Names]:
    """Display names of the classes, and the names that the data have for them.

    Those of ``learnt``, a model of the same classes from which the fit starts, hold where there are
    no new ones.
    """
    shown, own = data.class_names or data.data_names, data.data_names
    if learnt is None:
        return shown, own
    return shown or learnt.class_names, own or learnt.data_names


def same_classes(learnt: FittedModel, data: TrainingData) -> bool:
    """Whether task and classes are unchanged, so that the heads can be kept."""
    encoding, own, known = data.encoding, data.data_names, learnt.data_names or learnt.class_names
    renamed = own is not None and known is not None and own != known
    # Names for display may differ from those of the data, but not be these in another order.
    if renamed and (learnt.data_names is not None or sorted(own or ()) == sorted(known or ())):
        return False
    return learnt.task is encoding.task and np.array_equal(learnt.classes, encoding.classes)
