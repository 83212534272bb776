"""Fitted attributes: read-only views of the fitted model, which is frozen."""

import copy
from dataclasses import FrozenInstanceError, fields

import pytest
from sklearn.exceptions import NotFittedError
from tiny import small

from diffmic import DiffMICClassifier
from diffmic.estimator.attributes import FittedAttributes
from diffmic.inference import FittedModel

ATTRIBUTES = sorted(
    name
    for name, value in vars(FittedAttributes).items()
    if isinstance(value, property) and name.endswith("_")
)


def test_the_fitted_attributes_are_those_that_the_documentation_names():
    assert (
        sorted(
            [
                "calibrations_",
                "channels_",
                "class_names_",
                "classes_",
                "history_",
                "image_size_",
                "label_counts_",
                "network_",
                "recalibration_",
                "seed_",
                "shares_",
                "task_",
                "thresholds_",
                "validation_scores_",
                "versions_",
            ]
        )
        == ATTRIBUTES
    )
    for name in (*ATTRIBUTES, "model_", "card_"):
        assert name in DiffMICClassifier.__doc__


@pytest.mark.parametrize("name", [*ATTRIBUTES, "model_", "card_"])
def test_before_a_fit_there_are_no_fitted_attributes(name):
    classifier = DiffMICClassifier(**small())
    assert not hasattr(classifier, name)
    if name in ATTRIBUTES:
        with pytest.raises(NotFittedError, match="not fitted yet"):
            getattr(classifier, name)


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_fitted_attributes_are_read_only(fitted, name):
    classifier = copy.copy(fitted)
    value = getattr(classifier, name)
    with pytest.raises(AttributeError):
        setattr(classifier, name, value)
    after = getattr(classifier, name)
    assert after is value or after == value


@pytest.mark.parametrize("name", [field.name for field in fields(FittedModel)])
def test_a_fitted_model_is_frozen(fitted, name):
    with pytest.raises(FrozenInstanceError):
        setattr(fitted.model_, name, None)


def test_a_fit_leaves_just_the_model_and_the_card(fitted):
    own = set(vars(fitted)) - set(fitted.get_params(deep=False))
    assert own - {"_origin"} == {"model_", "card_"}  # _origin: the model that a fit starts from
