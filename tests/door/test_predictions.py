"""Predictions: one row of probabilities per image, the same for any form of the images."""

import warnings

import numpy as np
import pytest
import torch
from door.arrays import any_arrays, examples, laid_out
from door.test_containers import Items
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from PIL import Image
from tiny import stripes

from diffmic.errors import InputError

shared = {"suppress_health_check": [HealthCheck.function_scoped_fixture]}
few = examples(8, **shared)

FORMS = {
    "array": lambda X: X,
    "channels first": lambda X: X[:, None],
    "channels last": lambda X: X[..., None],
    "float": lambda X: X / 255,
    "float32 tensor": lambda X: torch.from_numpy(X / 255).float(),
    "uint8 tensor": lambda X: torch.from_numpy(X.copy()),
    "list": list,
    "PIL images": lambda X: [Image.fromarray(np.ascontiguousarray(image)) for image in X],
    "Dataset": lambda X: Items([(image, 0) for image in X]),
    "colour": lambda X: np.stack([X] * 3, axis=-1),
    "loader": lambda X: torch.utils.data.DataLoader(
        Items([torch.from_numpy(image.copy())[None] for image in X]), batch_size=2
    ),
}


@pytest.mark.parametrize("form", list(FORMS))
@few
@given(st.integers(1, 4), st.integers(0, 2**31), st.data())
def test_probabilities_do_not_depend_on_the_form_of_the_images(fitted, form, n_images, seed, data):
    X = stripes(n_images, seed=seed)[0]
    expected = fitted.predict_proba(X)
    given = FORMS[form](laid_out(data.draw, X))
    found = fitted.predict_proba(given)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)


@examples(60, **shared)
@given(any_arrays())
def test_any_array_gets_probabilities_or_is_refused(fitted, X):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            proba = fitted.predict_proba(X)
        except InputError:
            return
    assert proba.shape[1] == 3
    assert np.isfinite(proba).all()
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-6)
