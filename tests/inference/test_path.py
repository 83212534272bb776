"""The label map at each step of the sampler."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import RECIPE, small, stripes

from diffmic import DiffMICClassifier
from diffmic.diffusion import scores_by_distance
from diffmic.model import DiffusionSettings

pytestmark = pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")
LAST = replace(RECIPE, diffusion=DiffusionSettings(readout="last"))


@pytest.mark.parametrize("recipe", [RECIPE, LAST], ids=["mean", "last"])
def test_the_scores_follow_from_the_maps(recipe):
    X, y = stripes(40)
    clf = DiffMICClassifier(**small(max_epochs=1, recipe=recipe, num_steps=5)).fit(X, y)
    found = clf.explain(X[:4])
    n_regions = found.boxes.shape[1]
    assert found.noisy_maps.shape == found.clean_maps.shape == (4, 5, n_regions, 3)
    np.testing.assert_array_equal(found.noisy_maps[0, 0], found.noisy_maps[1, 0])  # the same noise
    model = clf.model_
    conditions = model.engine.encode(torch.from_numpy(X[:4])[:, None].expand(-1, 3, -1, -1) / 255)
    draws = model.engine.sample(conditions, model.noise(2), num_steps=5)
    clean = torch.from_numpy(found.clean_maps)
    if recipe is RECIPE:
        expected = scores_by_distance(clean.mean(dim=1))
    else:  # the last step goes to the estimate itself
        expected = scores_by_distance(clean[:, -1])
    torch.testing.assert_close(draws.mean(dim=1), expected, rtol=1e-4, atol=1e-5)


def test_maps_do_not_depend_on_the_batch():
    X, y = stripes(40)
    clf = DiffMICClassifier(**small(max_epochs=1)).fit(X, y)
    together, alone = clf.explain(X[:5]), clf.explain(X[3:4])
    np.testing.assert_allclose(together.clean_maps[3], alone.clean_maps[0], atol=1e-5)
    assert clf.explain(X[:2], num_steps=2, n_draws=1).clean_maps.shape[1] == 2
