"""Named arrangements."""

import inspect

import pytest
import torch
from torch import nn

from diffmic import DiffMICClassifier
from diffmic.errors import InputError
from diffmic.estimator.presets import PRESETS, preset_parameters
from diffmic.model import Architecture, resolve_architecture
from diffmic.training import precision, resolve_recipe


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_names_constructor_parameters_alone(name):
    assert preset_parameters(name).keys() <= inspect.signature(DiffMICClassifier).parameters.keys()


def test_the_default_preset_is_the_default():
    preset, default = DiffMICClassifier.from_preset("default"), DiffMICClassifier()
    assert preset.get_params() == default.get_params()


def test_the_papers_preset_has_four_networks_and_the_papers_numbers():
    clf = DiffMICClassifier.from_preset("paper-v2")
    assert (clf.backbone, clf.image_size) == ("vit_small_patch16_224", 224)
    assert (clf.num_steps, clf.n_draws, clf.n_views) == (10, 1, 1)
    architecture = resolve_architecture(clf.architecture)
    assert architecture.prior_backbone == architecture.region_backbone == "resnet18"
    assert (architecture.n_regions, architecture.region_size) == (6, 32)
    assert (architecture.feature_dim, architecture.num_train_timesteps) == (6144, 1000)


def test_the_papers_preset_trains_as_long_as_the_paper_and_all_networks():
    clf = DiffMICClassifier.from_preset("paper-v2")
    recipe = resolve_recipe(clf.recipe)
    assert recipe.denoiser_epochs == 1000
    assert clf.max_epochs < recipe.denoiser_epochs  # of the prior alone
    assert recipe.patience >= recipe.denoiser_epochs  # all epochs are run, the best one is kept
    assert not recipe.cached
    assert (recipe.feature_noise, recipe.n_cached_views, recipe.balance) == (0.0, 0, 0.0)
    assert (recipe.denoiser_learning_rate, recipe.batch_size, recipe.alpha) == (1e-3, 32, 10.0)
    assert recipe.diffusion.prediction_type == "noise"
    assert clf.precision == "auto"  # mixed while training, where the hardware supports it


def test_the_papers_encoders_are_mixed_where_the_hardware_supports_it(monkeypatch):
    clf = DiffMICClassifier.from_preset("paper-v2")
    network, cpu = nn.Linear(2, 2), torch.device("cpu")
    for amx, name in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(precision, "has_amx", lambda amx=amx: amx)
        assert precision.training_precision(clf.precision, cpu, network).name == name


def test_what_is_passed_beside_the_name_wins():
    own = Architecture(feature_dim=64)
    clf = DiffMICClassifier.from_preset("paper-v2", architecture=own, random_state=3)
    assert (clf.architecture, clf.random_state, clf.recipe) == (own, 3, "paper-v2")


def test_a_subclass_makes_its_own_kind():
    class Mine(DiffMICClassifier):
        pass

    assert type(Mine.from_preset("default")) is Mine


def test_changing_what_was_returned_leaves_the_preset_alone():
    preset_parameters("paper-v2").clear()
    assert preset_parameters("paper-v2")["architecture"] == "paper-v2"


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
