"""Parameters are checked before any work, and each message names the parameter and the way out."""

import copy
import inspect
import re

import numpy as np
import pytest

from diffmic import DiffMICClassifier
from diffmic.errors import InputError
from diffmic.estimator.parameters import check_num_steps, check_parameters
from diffmic.estimator.presets import PRESETS
from diffmic.model import Architecture

WHOLE = ("n_draws", "n_views", "max_epochs", "batch_size")
WHOLE_OF_ARCHITECTURE = ("feature_dim", "num_train_timesteps")
WHOLE_OR_AUTO_OF_ARCHITECTURE = ("n_regions", "region_size")

BAD = [
    *[
        (name, value, "an integer of at least 1")
        for name in WHOLE
        for value in (0, -1, 1.5, "3", None)
    ],
    *[(name, True, "an integer of at least 1") for name in (*WHOLE, "image_size")],
    *[
        ("image_size", value, "'auto' or an integer of at least 1")
        for value in (0, -1, 1.5, "many", None)
    ],
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
    ("task", "regression", r"give 'auto' or one of \['multiclass', 'multilabel', 'ordinal'\]"),
    ("task", None, "give 'auto' or one of"),
    ("architecture", "huge", r"give one of \['default', 'paper-v1', 'paper-v2', 'zoom'\] or a"),
    ("architecture", None, "give one of"),
    ("recipe", "sushi", r"give one of \['default', 'paper-v1', 'paper-v2'\] or a Recipe"),
    ("pretrained", 1, "give True, False, or a file of weights"),
    ("pretrained", None, "give True, False, or a file of weights"),
    *[(name, 3, "the key in items that are dicts") for name in ("image_key", "label_key")],
    ("class_names", "abc", "give a list with one name per class, or None"),
    ("class_names", iter("abc"), "give a list with one name per class, or None"),
    ("task", ["multiclass"], "give 'auto' or one of"),
    ("uncertain", "maybe", r"give one of \['error', 'unknown', 'positive', 'negative'\]"),
    *[
        ("precision", precision, "give 'auto' or one of")
        for precision in ("fp8", "no", None, 16, ["fp32"])
    ],
]


BAD_ARCHITECTURE = [
    *[
        (name, value, "must be an integer of at least 1")
        for name in WHOLE_OF_ARCHITECTURE
        for value in (0, -1, 1.5, "3", None, True)
    ],
    *[
        (name, value, "must be 'auto' or an integer of at least 1")
        for name in WHOLE_OR_AUTO_OF_ARCHITECTURE
        for value in (0, -1, 1.5, "many", None, True)
    ],
]


def parameters(**changes):
    return DiffMICClassifier(**changes).get_params(deep=False)


@pytest.mark.parametrize(("name", "value", "message"), BAD, ids=lambda value: str(value)[:20])
def test_a_bad_parameter_is_an_error_that_names_it_its_value_and_the_way_out(name, value, message):
    with pytest.raises(InputError, match=f"{name} is {re.escape(repr(value))}.*{message}"):
        check_parameters(parameters(**{name: value}))


@pytest.mark.parametrize(("name", "value", "message"), BAD_ARCHITECTURE)
def test_a_bad_field_of_an_architecture_is_refused_when_it_is_made(name, value, message):
    with pytest.raises(InputError, match=f"{name} is {re.escape(repr(value))}.*{message}"):
        Architecture(**{name: value})


@pytest.mark.parametrize("preset", PRESETS)
def test_the_presets_are_fine(preset):
    check_parameters(DiffMICClassifier.from_preset(preset).get_params(deep=False))


@pytest.mark.parametrize(
    "changes",
    [
        {name: 2 for name in (*WHOLE, "image_size", "num_steps")},
        {name: np.int64(7) for name in (*WHOLE, "image_size", "num_steps", "num_workers")},
        {"architecture": Architecture(num_train_timesteps=1), "num_steps": 1},
        {"architecture": Architecture(n_regions=np.int64(2), region_size=np.int32(8))},
        {"architecture": "paper-v2", "task": "ordinal"},
        {"num_steps": 1000},
        {"learning_rate": np.float32(0.1), "validation_fraction": np.float64(0.5)},
        {"learning_rate": 1, "validation_fraction": None},
        {"augment": None},
        {"augment": np.negative},
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


def test_more_steps_than_the_architecture_has_timesteps_are_an_error():
    changes = {"architecture": Architecture(num_train_timesteps=50), "num_steps": 51}
    with pytest.raises(InputError, match=r"num_steps is 51; .* which is 50"):
        check_parameters(parameters(**changes))


def test_the_constructor_has_at_most_31_parameters():
    names = set(inspect.signature(DiffMICClassifier).parameters) - {"self"}
    assert len(names) <= 31, sorted(names)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_draws", 10**9),
        ("n_views", 10**6),
        ("num_workers", 10**6),
        ("batch_size", 10**40),
        ("max_epochs", 10**40),
    ],
)
def test_work_without_end_is_refused(fitted, name, value):
    """A file of a model could ask for it."""
    classifier = copy.copy(fitted).set_params(augment="auto", **{name: value})
    with pytest.raises(InputError, match=f"{name} is .* at most"):
        check_parameters(classifier.get_params(deep=False))
    if name != "max_epochs":
        with pytest.raises(InputError, match=f"{name} is .* at most"):
            classifier.predict_proba(np.zeros((2, 32, 32), np.uint8))
