"""Validation of the estimator's parameters, before training or prediction starts."""

import sys
from collections.abc import Iterable, Iterator, Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np

from ..data.augmentation import AUGMENTS, PAPERS_AUGMENTS
from ..data.items import IMAGE_KEYS, LABEL_KEYS, Keys
from ..data.ranges import ValueRange
from ..data.targets import UNCERTAIN
from ..errors import InputError
from ..hub.configuration import LARGEST_IMAGE
from ..inference import SamplingOptions
from ..model import resolve_architecture
from ..tasks import TASKS
from ..training import resolve_recipe
from ..training.callbacks import checked_callbacks
from ..training.precision import PRECISIONS

ON_ERROR = ("raise", "skip")
WHOLE = ("num_steps", "n_draws", "n_views", "max_epochs", "batch_size")
MOST_WORKERS = 256  # processes
MOST = 2**31 - 1  # of anything that is counted


def check_parameters(parameters: Mapping[str, Any]) -> None:
    """Check the type and range of all constructor parameters.

    Raises
    ------
    InputError
        A parameter is invalid; the message names it, its value and what is needed.
    """
    for name in WHOLE:
        check_whole(name, parameters[name])
    if parameters["image_size"] != "auto":
        check_whole("image_size", parameters["image_size"], also="'auto' or ")
    _check_workers(parameters["num_workers"])
    SamplingOptions(*(parameters[name] for name in ("num_steps", "n_draws", "n_views")))
    side = parameters["image_size"]
    if side != "auto" and side > LARGEST_IMAGE:
        raise InputError(
            f"image_size is {side}; the largest is {LARGEST_IMAGE}. It is the side to which images "
            "are resized, and does not have to be that of the files."
        )
    resolve_recipe(parameters["recipe"])
    architecture = resolve_architecture(parameters["architecture"])
    check_num_steps(parameters["num_steps"], architecture.num_train_timesteps)
    if parameters["task"] not in ("auto", *TASKS):
        raise InputError(f"task is {parameters['task']!r}; give 'auto' or one of {list(TASKS)}.")
    rate = parameters["learning_rate"]
    if not isinstance(rate, (int, float, np.number)) or not 0 < rate < sys.float_info.max:
        raise InputError(f"learning_rate is {rate!r}; it must be a number above 0.")
    fraction = parameters["validation_fraction"]
    if fraction is not None and (not isinstance(fraction, Real) or not 0 < float(fraction) < 1):
        raise InputError(
            f"validation_fraction is {fraction!r}; it must lie between 0 and 1, or be None for no "
            "validation part."
        )
    check_precision(parameters["precision"])
    pretrained = parameters["pretrained"]
    if not isinstance(pretrained, (bool, str, Path)):
        raise InputError(f"pretrained is {pretrained!r}; give True, False, or a file of weights.")
    if parameters["uncertain"] not in ("error", *UNCERTAIN):
        raise InputError(
            f"uncertain is {parameters['uncertain']!r}; give one of {['error', *UNCERTAIN]}."
        )
    names = parameters["class_names"]
    if isinstance(names, str | Iterator) or not isinstance(names, Iterable | None):
        raise InputError(f"class_names is {names!r}; give a list with one name per class, or None.")
    ValueRange.of(parameters["value_range"])
    if parameters["on_error"] not in ON_ERROR:
        raise InputError(
            f"on_error is {parameters['on_error']!r}; give one of {list(ON_ERROR)}: whether fit "
            "raises an error for an image that cannot be read, or leaves it out."
        )
    if not isinstance(parameters["verbose"], bool):
        check_whole("verbose", parameters["verbose"], least=0)
    checked_callbacks(parameters["callbacks"])
    keys_of(parameters)
    limit = parameters["time_limit"]
    is_number = isinstance(limit, Real) and not isinstance(limit, bool)
    if limit is not None and (not is_number or not 0 < limit < sys.float_info.max):
        raise InputError(f"time_limit is {limit!r}; give a number of seconds above 0, or None.")
    folder = parameters["checkpoint_dir"]
    if folder is not None and (not isinstance(folder, str | Path) or not str(folder).strip()):
        raise InputError(f"checkpoint_dir is {folder!r}; give the path of a folder, or None.")
    augment = parameters["augment"]
    known = augment is None or (
        isinstance(augment, str) and augment in (*AUGMENTS, *PAPERS_AUGMENTS)
    )
    if not known and not callable(augment):
        raise InputError(
            f"augment is {augment!r}; give one of {list(AUGMENTS)}, None, or a "
            f"torchvision.transforms.v2 transform; or the papers': {', '.join(PAPERS_AUGMENTS)}."
        )


def check_whole(name: str, value: Any, *, least: int = 1, also: str = "") -> None:
    """Check that a parameter is an integer of at least ``least``, and of 31 bits.

    Raises
    ------
    InputError
        It is not; ``also`` names values that are allowed besides.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or int(value) < least:
        raise InputError(f"{name} is {value!r}; it must be {also}an integer of at least {least}.")
    if int(value) > MOST:
        raise InputError(f"{name} is {value!r}; it must be {also}an integer of at most {MOST}.")


def _check_workers(num_workers: Any) -> None:
    check_whole("num_workers", num_workers, least=0)
    if num_workers > MOST_WORKERS:
        raise InputError(f"num_workers is {num_workers}; it must be at most {MOST_WORKERS}.")


def check_precision(precision: Any) -> None:
    """Check that a precision is known.

    Raises
    ------
    InputError
        Unknown precision.
    """
    if precision not in ("auto", *PRECISIONS):
        raise InputError(f"precision is {precision!r}; give 'auto' or one of {list(PRECISIONS)}.")


def keys_of(parameters: Mapping[str, Any]) -> Keys:
    """Keys of images and targets in items that are dicts.

    Raises
    ------
    InputError
        ``image_key`` or ``label_key`` is neither a string nor None.
    """
    for name in ("image_key", "label_key"):
        value = parameters[name]
        if value is not None and not isinstance(value, str):
            raise InputError(
                f"{name} is {value!r}; give the key in items that are dicts, or None for one of "
                f"{IMAGE_KEYS if name == 'image_key' else LABEL_KEYS}."
            )
    return Keys(parameters["image_key"], parameters["label_key"])


def check_prediction(parameters: Mapping[str, Any]) -> None:
    """Check the parameters that predictions use.

    Raises
    ------
    InputError
        ``batch_size`` or ``num_workers`` is invalid.
    """
    check_whole("batch_size", parameters["batch_size"])
    _check_workers(parameters["num_workers"])


def sampling_options(
    parameters: Mapping[str, Any], asked: Mapping[str, int | None], num_train_timesteps: int
) -> SamplingOptions:
    """Sampling options of a prediction: those passed to the method, else the estimator's.

    Raises
    ------
    InputError
        An option is invalid.
    """
    options: dict[str, Any] = {
        name: parameters[name] if asked.get(name) is None else asked[name]
        for name in ("num_steps", "n_draws", "n_views")
    }
    check_num_steps(options["num_steps"], num_train_timesteps)
    check_whole("n_draws", options["n_draws"])
    check_n_views(options["n_views"], parameters["augment"])
    return SamplingOptions(**options)


def check_n_views(n_views: int, augment: Any) -> None:
    """Check the number of test-time views: more than one needs an augmentation.

    Raises
    ------
    InputError
        It is no integer of at least 1, or ``augment`` is None and there are several views.
    """
    check_whole("n_views", n_views)
    if n_views > 1 and augment is None:
        raise InputError(
            f"n_views is {n_views} and augment is None, but test-time views need an augmentation. "
            "Set augment, for example to 'auto', or n_views=1."
        )


def check_num_steps(num_steps: int, num_train_timesteps: int) -> None:
    """Check that the sampler takes no more steps than the noise schedule has timesteps.

    Raises
    ------
    InputError
        ``num_steps`` is no integer in 1..num_train_timesteps.
    """
    if not isinstance(num_steps, Integral) or not 1 <= num_steps <= num_train_timesteps:
        raise InputError(
            f"num_steps is {num_steps!r}; it must be an integer between 1 and num_train_timesteps, "
            f"which is {num_train_timesteps}."
        )
