"""Shared fixtures."""

import os
import warnings

import numpy as np
import pytest
import torch
from tiny import small, stripes

import diffmic.classifier
from diffmic import DiffMICClassifier, DiffMICWarning


def pytest_runtest_setup(item):
    """One thread for tiny networks: two that wait for each other on a busy machine cost tenfold."""
    threads = os.environ.get(
        "OMP_NUM_THREADS", "2" if item.get_closest_marker("real_data") else "1"
    )
    torch.set_num_threads(int(threads))


@pytest.fixture(scope="session")
def images():
    """Gray images of 32 pixels with their classes, 0 to 2."""
    return stripes(60)


@pytest.fixture(scope="session")
def new_images():
    """Images that no model has seen."""
    return stripes(30, seed=1)


@pytest.fixture(scope="session")
def indicators():
    """Images with an indicator matrix: is it striped, and which way; not to be changed."""
    X, y = stripes(60)
    return X, (y[:, None] == [0, 1]).astype(int)


@pytest.fixture(scope="session")
def fitted(images):
    """A classifier that is mostly right and never quite sure; tests only look at it."""
    X, y = images
    return _fitted(X, np.where(_wrong(len(y)), (y + 1) % 3, y))


@pytest.fixture(scope="session")
def fitted_multilabel(indicators):
    """A multi-label classifier; tests only look at it."""
    X, y = indicators
    return _fitted(X, np.where(_wrong(len(y))[:, None], 1 - y, y))


def _wrong(n_images):
    """Which labels to get wrong: so that probabilities are not all 0 or 1."""
    return np.random.RandomState(0).rand(n_images) < 0.2


def _fitted(X, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DiffMICWarning)
        return DiffMICClassifier(**small(max_epochs=12, augment=None)).fit(X, y)


@pytest.fixture
def fits(monkeypatch):
    """What each fit hands to the training: state of the network, parts and options."""
    seen = []
    original = diffmic.classifier.fit_network

    def spy(network, training, validation, options, **more):
        state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        seen.append((state, training, validation, options))
        return original(network, training, validation, options, **more)

    monkeypatch.setattr(diffmic.classifier, "fit_network", spy)
    return seen
