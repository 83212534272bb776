"""Checks of the estimator's parameters, before any work is done."""

import math
from collections.abc import Iterable
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from .data.preprocessing import AUGMENTS
from .errors import InputError
from .training.precision import PRECISIONS

WHOLE = (
    "feature_dim",
    "num_train_timesteps",
    "num_steps",
    "n_samples",
    "n_views",
    "max_epochs",
    "batch_size",
    "n_iter_no_change",
)
WHOLE_OR_AUTO = ("n_regions", "region_size", "image_size")


def check_parameters(parameters: dict[str, Any]) -> None:
    """Make sure that numbers are numbers of the right kind and size.

    Raises
    ------
    InputError
        Naming the parameter, what was found and what is needed.
    """
    for name in WHOLE:
        check_whole(name, parameters[name])
    for name in WHOLE_OR_AUTO:
        if not isinstance(parameters[name], str) or parameters[name] != "auto":
            check_whole(name, parameters[name], also="'auto' or ")
    check_whole("num_workers", parameters["num_workers"], least=0)
    if parameters["batch_size"] < 2:
        raise InputError("batch_size is 1; batch norm needs at least 2 images to learn from.")
    check_num_steps(parameters["num_steps"], parameters["num_train_timesteps"])
    rate = parameters["learning_rate"]
    if not isinstance(rate, Real) or not 0 < float(rate) < math.inf:
        raise InputError(f"learning_rate is {rate!r}; it must be a number above 0.")
    fraction = parameters["validation_fraction"]
    if fraction is not None and (not isinstance(fraction, Real) or not 0 < float(fraction) < 1):
        raise InputError(
            f"validation_fraction is {fraction!r}; it must lie between 0 and 1, or be None for no "
            "validation part."
        )
    precision = parameters["precision"]
    if precision != "auto" and precision not in PRECISIONS:
        raise InputError(f"precision is {precision!r}; give 'auto' or one of {list(PRECISIONS)}.")
    pretrained = parameters["pretrained"]
    if not isinstance(pretrained, (bool, str, Path)):
        raise InputError(f"pretrained is {pretrained!r}; give True, False, or a file of weights.")
    names = parameters["class_names"]
    if names is not None and (isinstance(names, str) or not isinstance(names, Iterable)):
        raise InputError(f"class_names is {names!r}; give a list with one name per class, or None.")
    augment = parameters["augment"]
    known = augment in AUGMENTS if isinstance(augment, str) else augment is None
    if not known and not callable(augment):
        raise InputError(
            f"augment is {augment!r}; give one of {list(AUGMENTS)}, None, or a "
            "torchvision.transforms.v2 transform."
        )


def check_whole(name: str, value: Any, *, least: int = 1, also: str = "") -> None:
    """Make sure that a parameter is an integer, and not too small.

    Raises
    ------
    InputError
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or int(value) < least:
        raise InputError(f"{name} is {value!r}; it must be {also}an integer of at least {least}.")


def check_n_views(n_views: int, augment: Any) -> None:
    """Views of a fit or a prediction: more than one needs something to make it with.

    Raises
    ------
    InputError
    """
    check_whole("n_views", n_views)
    if n_views > 1 and augment is None:
        raise InputError(
            f"n_views is {n_views} and augment is None, so that there is nothing to make views "
            "with. Set augment, for example to 'auto', or n_views=1."
        )


def check_num_steps(num_steps: int, num_train_timesteps: int) -> None:
    """The sampler cannot take more steps than the schedule has.

    Raises
    ------
    InputError
    """
    if not isinstance(num_steps, Integral) or not 1 <= num_steps <= num_train_timesteps:
        raise InputError(
            f"num_steps is {num_steps!r}; it must be an integer between 1 and num_train_timesteps, "
            f"which is {num_train_timesteps}."
        )
