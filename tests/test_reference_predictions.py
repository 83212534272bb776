"""Models that are stored give the probabilities that are stored: a change that moves them is seen.

`tests/reference/make.py` writes the stored ones, when moving them is what a change is for.
"""

import itertools

import numpy as np
import pytest
from reference.make import CASES, MODELS, images, is_there, load, stored

TOLERANCE = 1e-4  # processors and versions of torch round otherwise, by up to 2e-5
TOLERANCE_TRAINED = 1e-3  # rounding adds up while a model is trained


@pytest.fixture(scope="module", params=MODELS)
def name(request):
    if not is_there(request.param):
        pytest.skip(f"the weights of {request.param} are not in this copy")
    return request.param


@pytest.fixture(scope="module")
def clf(name):
    return load(name)


def test_probabilities_are_the_stored_ones(name, clf):
    size, kinds = MODELS[name]
    predictions = stored(name)
    assert len(predictions) == len(kinds) * len(CASES)
    for prediction in predictions:
        kind, arguments = prediction["images"], prediction["arguments"]
        proba = clf.predict_proba(images(kind, size), **arguments)
        assert np.shape(proba) == np.shape(prediction["proba"])
        moved = np.abs(np.subtract(proba, prediction["proba"])).max()
        tolerance = TOLERANCE_TRAINED if name == "small-trained" else TOLERANCE
        assert moved < tolerance, f"{kind}, {arguments}: a probability moved by {moved:.2g}"


def test_the_stored_predictions_can_tell_their_cases_apart():
    """Stages and steps differ by far more than the tolerance, so that none stands for another."""
    for name in MODELS:
        factor = 3 if name == "diffmic-v2-pneumoniamnist" else 10  # whose prior has most weight
        for one, other in pairs_of_cases(name):
            assert np.abs(np.subtract(one, other)).max() > factor * TOLERANCE, name


def pairs_of_cases(name):
    """Probabilities of the same images in two of the cases."""
    cases = [p["proba"] for p in stored(name) if p["images"] == "lesions"]
    assert len(cases) == len(CASES)
    return itertools.combinations(cases, 2)
