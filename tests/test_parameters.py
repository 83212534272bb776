"""Parameters are checked before any work, and each message names the parameter and the way out."""

import re

import numpy as np
import pytest

from diffmic import DiffMICClassifier
from diffmic.errors import InputError
from diffmic.parameters import check_num_steps, check_parameters
from diffmic.presets import PRESETS

WHOLE = (
    "feature_dim",
    "num_train_timesteps",
    "n_samples",
    "n_views",
    "max_epochs",
    "batch_size",
    "n_iter_no_change",
)
WHOLE_OR_AUTO = ("n_regions", "region_size", "image_size")

BAD = [
    *[
        (name, value, "an integer of at least 1")
        for name in WHOLE
        for value in (0, -1, 1.5, "3", None)
    ],
    *[(name, True, "an integer of at least 1") for name in (*WHOLE, *WHOLE_OR_AUTO)],
    *[
        (name, value, "'auto' or an integer of at least 1")
        for name in WHOLE_OR_AUTO
        for value in (0, -1, 1.5, "many", None)
    ],
    ("batch_size", 1, "at least 2 images"),
    ("num_steps", 0, "an integer of at least 1"),
    ("num_steps", 1001, "between 1 and num_train_timesteps, which is 1000"),
    *[("learning_rate", rate, "a number above 0") for rate in (0, -1.0, "1e-3", None)],
    *[("learning_rate", rate, "a number above 0") for rate in (float("nan"), float("inf"))],
    *[
        ("validation_fraction", fraction, "between 0 and 1, or be None")
        for fraction in (0, 1, -0.1, 1.5, 10, "0.1", float("nan"), True)
    ],
    *[
        ("augment", augment, r"give one of \['auto', 'rotations'\], None")
        for augment in ("strong", True, 3)
    ],
    *[("num_workers", workers, "an integer of at least 0") for workers in (-1, 0.5, None, True)],
    *[("precision", precision, "give 'auto' or one of") for precision in ("fp8", "no", None, 16)],
]


def parameters(**changes):
    return DiffMICClassifier(**changes).get_params(deep=False)


@pytest.mark.parametrize(("name", "value", "message"), BAD, ids=lambda value: str(value)[:20])
def test_a_bad_parameter_is_an_error_that_names_it_its_value_and_the_way_out(name, value, message):
    with pytest.raises(InputError, match=f"{name} is {re.escape(repr(value))}.*{message}"):
        check_parameters(parameters(**{name: value}))


@pytest.mark.parametrize("preset", PRESETS)
def test_the_presets_are_fine(preset):
    check_parameters(DiffMICClassifier.from_preset(preset).get_params(deep=False))


@pytest.mark.parametrize(
    "changes",
    [
        {name: 2 for name in (*WHOLE, *WHOLE_OR_AUTO, "num_steps")},
        {name: np.int64(7) for name in (*WHOLE, *WHOLE_OR_AUTO, "num_steps", "num_workers")},
        {"num_train_timesteps": 1, "num_steps": 1},
        {"num_steps": 1000},
        {"learning_rate": np.float32(0.1), "validation_fraction": np.float64(0.5)},
        {"learning_rate": 1, "validation_fraction": None},
        {"augment": None},
        {"augment": lambda image: image},
        {"precision": "bf16"},
    ],
    ids=str,
)
def test_good_parameters_pass(changes):
    check_parameters(parameters(**changes))


@pytest.mark.parametrize("num_steps", [1, 25, 50, np.int32(50)])
def test_as_many_steps_as_the_schedule_has_are_fine(num_steps):
    check_num_steps(num_steps, 50)


@pytest.mark.parametrize("num_steps", [0, -1, 51, 2.0, "10", None])
def test_more_steps_than_the_schedule_has_or_none_are_an_error(num_steps):
    with pytest.raises(InputError, match=rf"num_steps is {num_steps!r}; .* 1 and .* which is 50"):
        check_num_steps(num_steps, 50)
