"""Recipes by name."""

from dataclasses import fields

import pytest

from diffmic import InputError
from diffmic.model import DiffusionSettings
from diffmic.training import Recipe, resolve_recipe


def test_the_default_recipe_has_the_defaults():
    assert resolve_recipe("default") == Recipe()


def test_the_papers_recipe_is_the_papers():
    paper = resolve_recipe("paper-v2")
    assert paper.diffusion.prediction_type == "noise"
    assert (paper.n_positions, paper.alpha, paper.gamma) == (36, 10.0, 1.0)
    assert not paper.branch_losses
    assert not paper.cached
    assert paper.ema is None
    assert paper.denoiser_epochs == 1000
    assert paper.balance == 0  # images are drawn as they are


def test_a_recipe_is_taken_as_it_is():
    recipe = Recipe(alpha=3.0)
    assert resolve_recipe(recipe) is recipe


@pytest.mark.parametrize("recipe", ["paper", "", None, 3, ["default"]])
def test_an_unknown_recipe_is_an_error_that_names_the_known_ones(recipe):
    with pytest.raises(InputError, match=r"'default', 'paper-v1', 'paper-v2'.*Recipe"):
        resolve_recipe(recipe)


def test_a_recipe_cannot_be_changed_by_accident():
    with pytest.raises(AttributeError):
        Recipe().alpha = 2.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": "linear"}, "schedule is 'linear'; give 'one-cycle' or 'cosine'"),
        ({"steps_per_epoch": 0}, "steps_per_epoch is 0; it must be an integer of at least 1"),
        ({"batch_size": 1}, "batch_size is 1; it must be an integer of at least 2"),
        ({"n_cached_views": -1}, "n_cached_views is -1"),
        ({"patience": 0}, "patience is 0; it must be an integer of at least 1"),
        ({"denoiser_epochs": 0}, "denoiser_epochs is 0; it must be an integer of at least 1"),
        ({"n_positions": 2.5}, "n_positions is 2.5"),
    ],
)
def test_a_recipe_of_nonsense_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        Recipe(**changes)


@pytest.mark.parametrize("name", [field.name for field in fields(DiffusionSettings)])
def test_settings_of_nonsense_are_refused(name):
    with pytest.raises(InputError, match=rf"{name} is 'foo'; give one of \["):
        DiffusionSettings(**{name: "foo"})
