"""What a fit says of itself: nothing here is rigged but chance."""

import re
import warnings
from dataclasses import replace

import numpy as np
import pytest
from tiny import RECIPE, small

from diffmic import DiffMICClassifier, DiffMICWarning


def warned(X, y, **parameters):
    """A fit, and what it has warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        classifier = DiffMICClassifier(**small(**parameters)).fit(X, y)
    said = [str(w.message) for w in caught if issubclass(w.category, DiffMICWarning)]
    return classifier, said


@pytest.fixture(scope="module")
def of_coin_tosses():
    """Classifiers of labels that have nothing to do with the images, and their warnings."""
    fits = []
    for seed in range(6):
        rng = np.random.RandomState(seed)
        X, y = (255 * rng.rand(120, 32, 32)).astype(np.uint8), rng.randint(0, 3, 120)
        fits.append(warned(X, y, random_state=seed, recipe=replace(RECIPE, steps_per_epoch=40)))
    return fits


def test_coin_tosses_are_warned_of_where_the_diffusion_is_behind_and_never_twice(of_coin_tosses):
    numbers = [len(said) for _, said in of_coin_tosses]
    assert max(numbers) == 1  # of some: weighed together, both stages are mostly level
    scores = [classifier.validation_scores_ for classifier, _ in of_coin_tosses]
    assert np.mean([s["diffusion"]["nll"] - s["prior"]["nll"] for s in scores]) < 0.02
    for message in (message for _, said in of_coin_tosses for message in said):
        assert "validation_scores_, which is cross-fitted" in message


def test_the_warning_is_what_the_metrics_say(of_coin_tosses):
    for classifier, said in of_coin_tosses:
        scores, no_weight = classifier.validation_scores_, "calibration gives them no weight"
        behind = scores["diffusion"]["nll"] - scores["prior"]["nll"]
        unused = 1 / classifier.calibrations_["diffusion"].temperature < 0.01
        assert any(no_weight in message for message in said) == unused
        if said and not unused:
            told, error = map(
                float,
                re.findall(r"larger by ([\d.]+), with a standard error of ([\d.]+)\.", said[0])[0],
            )
            assert told == pytest.approx(behind, abs=1e-4)
            assert told > error


def test_the_diffusion_alone_is_no_better_than_tossing_a_coin(of_coin_tosses):
    alone = [c.validation_scores_["diffusion_alone"]["nll"] for c, _ in of_coin_tosses]
    assert np.mean(alone) > np.log(3) - 0.02


def test_the_warning_points_to_the_line_that_called_fit(images):
    y = np.random.RandomState(0).randint(0, 2, 60)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        DiffMICClassifier(**small(validation_fraction=None, max_epochs=1)).fit(images[0], y)
    (warning,) = [w for w in caught if issubclass(w.category, DiffMICWarning)]
    assert "not calibrated" in str(warning.message)
    assert warning.filename == __file__
