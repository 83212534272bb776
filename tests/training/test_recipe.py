"""Recipes by name."""

import pytest

from diffmic import InputError
from diffmic.training import Recipe, resolve_recipe


def test_the_default_recipe_has_the_defaults():
    assert resolve_recipe("default") == Recipe()


def test_the_papers_recipe_is_the_papers():
    paper = resolve_recipe("paper-v2")
    assert paper.diffusion.parameterization == "noise"
    assert (paper.n_positions, paper.alpha, paper.gamma) == (36, 10.0, 1.0)
    assert not paper.branch_losses
    assert not paper.cached
    assert paper.ema is None


def test_a_recipe_is_taken_as_it_is():
    recipe = Recipe(alpha=3.0)
    assert resolve_recipe(recipe) is recipe


@pytest.mark.parametrize("recipe", ["paper", "", None, 3, ["default"]])
def test_an_unknown_recipe_is_an_error_that_names_the_known_ones(recipe):
    with pytest.raises(InputError, match=r"'default', 'paper-v2'.*Recipe"):
        resolve_recipe(recipe)


def test_a_recipe_cannot_be_changed_by_accident():
    with pytest.raises(AttributeError):
        Recipe().alpha = 2.0
