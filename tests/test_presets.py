"""Named arrangements."""

import inspect

import pytest

from diffmic import DiffMICClassifier
from diffmic.errors import InputError
from diffmic.presets import PRESETS, preset_parameters


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_names_constructor_parameters_alone(name):
    assert preset_parameters(name).keys() <= inspect.signature(DiffMICClassifier).parameters.keys()


def test_the_default_preset_is_the_default():
    preset, default = DiffMICClassifier.from_preset("default"), DiffMICClassifier()
    assert preset.get_params() == default.get_params()


def test_the_papers_preset_has_four_networks_and_the_papers_numbers():
    parameters = DiffMICClassifier.from_preset("paper-v2").get_params()
    assert parameters["backbone"] == "vit_small_patch16_224"
    assert parameters["prior_backbone"] == parameters["region_backbone"] == "resnet18"
    expected = {
        "image_size": 224,
        "n_regions": 6,
        "region_size": 32,
        "feature_dim": 6144,
        "num_train_timesteps": 1000,
        "recipe": "paper-v2",
    }
    assert expected.items() <= parameters.items()


def test_what_is_passed_beside_the_name_wins():
    clf = DiffMICClassifier.from_preset("paper-v2", feature_dim=64, random_state=3)
    assert (clf.feature_dim, clf.random_state, clf.n_regions) == (64, 3, 6)


def test_a_subclass_makes_its_own_kind():
    class Mine(DiffMICClassifier):
        pass

    assert type(Mine.from_preset("default")) is Mine


def test_changing_what_was_returned_leaves_the_preset_alone():
    preset_parameters("paper-v2").clear()
    assert preset_parameters("paper-v2")["feature_dim"] == 6144


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("paper_v2", "did you mean 'paper-v2'"),
        ("v9", "no preset 'v9'; There are: default, paper-v2"),
        (None, "no preset None; There are"),
    ],
)
def test_an_unknown_name_is_an_error_that_lists_the_known_ones(name, message):
    with pytest.raises(InputError, match=rf"{message}.*"):
        DiffMICClassifier.from_preset(name)
