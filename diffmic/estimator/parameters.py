"""Validation of the estimator's parameters, before training or prediction starts."""

import sys
from collections.abc import Iterable, Iterator, Mapping
from numbers import Integral
from pathlib import Path
from typing import Any

from ..conventions import is_number
from ..data.augmentation import AUGMENTS, PAPERS_AUGMENTS
from ..data.items import IMAGE_KEYS, LABEL_KEYS, Keys
from ..data.ranges import ValueRange
from ..data.targets import UNCERTAIN
from ..errors import InputError
from ..hub.configuration import LARGEST_IMAGE
from ..inference import FittedModel, SamplingOptions
from ..model import resolve_architecture
from ..tasks import TASKS
from ..training import resolve_recipe
from ..training.callbacks import checked_callbacks
from ..training.precision import PRECISIONS

ON_ERROR = ("raise", "skip")
SAMPLING = ("num_steps", "n_draws", "n_views")
MOST_WORKERS = 256  # processes
MOST = 2**31 - 1  # of anything that is counted


def check_parameters(parameters: Mapping[str, Any]) -> None:
    """Check the type and range of all constructor parameters."""
    SamplingOptions(*(parameters[name] for name in SAMPLING))
    check_whole("max_epochs", parameters["max_epochs"])
    check_prediction(parameters)
    if (side := parameters["image_size"]) != "auto":
        check_whole("image_size", side, also="'auto' or ")
        if side > LARGEST_IMAGE:
            raise InputError(
                f"image_size is {side}; the largest is {LARGEST_IMAGE}. It is the side to which "
                "images are resized, and does not have to be that of the files."
            )
    resolve_recipe(parameters["recipe"])
    architecture = resolve_architecture(parameters["architecture"])
    check_num_steps(parameters["num_steps"], architecture.num_train_timesteps)
    if parameters["task"] not in ("auto", *TASKS):
        raise InputError(f"task is {parameters['task']!r}; give 'auto' or one of {list(TASKS)}.")
    rate = parameters["learning_rate"]
    if not is_number(rate) or not 0 < rate < sys.float_info.max:
        raise InputError(f"learning_rate is {rate!r}; it must be a number above 0.")
    fraction = parameters["validation_fraction"]
    if fraction is not None and not (is_number(fraction) and 0 < float(fraction) < 1):
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
    if limit is not None and not (is_number(limit) and 0 < limit < sys.float_info.max):
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

    ``also`` names values that are allowed besides.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or int(value) < least:
        raise InputError(f"{name} is {value!r}; it must be {also}an integer of at least {least}.")
    if int(value) > MOST:
        raise InputError(f"{name} is {value!r}; it must be {also}an integer of at most {MOST}.")


def check_precision(precision: Any) -> None:
    """Check that a precision is known."""
    if precision not in ("auto", *PRECISIONS):
        raise InputError(f"precision is {precision!r}; give 'auto' or one of {list(PRECISIONS)}.")


def keys_of(parameters: Mapping[str, Any]) -> Keys:
    """Keys of images and targets in items that are dicts, after a check."""
    for name in ("image_key", "label_key"):
        value = parameters[name]
        if value is not None and not isinstance(value, str):
            raise InputError(
                f"{name} is {value!r}; give the key in items that are dicts, or None for one of "
                f"{IMAGE_KEYS if name == 'image_key' else LABEL_KEYS}."
            )
    return Keys(parameters["image_key"], parameters["label_key"])


def check_prediction(parameters: Mapping[str, Any]) -> None:
    """Check the parameters that predictions use beside their sampling options."""
    check_whole("batch_size", parameters["batch_size"])
    check_whole("num_workers", workers := parameters["num_workers"], least=0)
    if workers > MOST_WORKERS:
        raise InputError(f"num_workers is {workers}; it must be at most {MOST_WORKERS}.")


def sampling_options(
    model: FittedModel, parameters: Mapping[str, Any], asked: Mapping[str, int | None]
) -> SamplingOptions:
    """Sampling options of a prediction: those passed to the method, else the estimator's."""
    given = {name: value for name, value in asked.items() if value is not None}
    options = {name: given.get(name, parameters[name]) for name in SAMPLING}
    check_num_steps(options["num_steps"], model.plan.architecture.num_train_timesteps)
    found = SamplingOptions(**options)
    check_n_views(found.n_views, parameters["augment"])
    return found


def check_n_views(n_views: int, augment: Any) -> None:
    """Check that there is an augmentation if there is more than one test-time view."""
    if n_views > 1 and augment is None:
        raise InputError(
            f"n_views is {n_views} and augment is None, but test-time views need an augmentation. "
            "Set augment, for example to 'auto', or n_views=1."
        )


def check_num_steps(num_steps: int, num_train_timesteps: int) -> None:
    """Check that the sampler takes no more steps than the noise schedule has timesteps."""
    if not isinstance(num_steps, Integral) or not 1 <= num_steps <= num_train_timesteps:
        raise InputError(
            f"num_steps is {num_steps!r}; it must be an integer between 1 and num_train_timesteps, "
            f"which is {num_train_timesteps}."
        )
