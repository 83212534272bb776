"""Several threads and one estimator: answers are of one model, fits do not disturb each other."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from tiny import small, stripes
from torch.utils.data import Dataset

from diffmic import DiffMICClassifier

pytestmark = pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")


class Waiting(Dataset):
    """Images, with labels or without, of which one is not read before it is allowed."""

    def __init__(self, X, y=None, at=20):
        self.X, self.y, self.at = X, y, at
        self.reached, self.allowed = threading.Event(), threading.Event()

    def __len__(self):
        return len(self.X)

    def __getitem__(self, index):
        if index == self.at:
            self.reached.set()
            assert self.allowed.wait(60)
        return self.X[index] if self.y is None else (self.X[index], self.y[index])


def refit(classifier):
    """Other classes, and one fewer; images of another size."""
    X, y = stripes(40, n_classes=2, size=16, seed=3)
    classifier.fit(X, np.array(["across", "up"])[y])


METHODS = {
    "predict": lambda clf, X: clf.predict(X),
    "predict_proba": lambda clf, X: clf.predict_proba(X),
    "prior": lambda clf, X: clf.predict_proba(X, stage="prior"),
    "transform": lambda clf, X: clf.transform(X),
    "explain": lambda clf, X: clf.explain(X).global_proba,
}


@pytest.mark.parametrize("method", METHODS)
def test_a_prediction_during_another_fit_is_that_of_the_model_before(images, new_images, method):
    classifier = DiffMICClassifier(**small(batch_size=8, max_epochs=2)).fit(*images)
    before = METHODS[method](classifier, new_images[0])
    source = Waiting(new_images[0])
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(METHODS[method], classifier, source)
        assert source.reached.wait(60)
        try:
            refit(classifier)
        finally:
            source.allowed.set()
        found = answer.result(60)
    assert_array_equal(found, before)
    after = METHODS[method](classifier, new_images[0])
    assert after.shape != found.shape or not np.array_equal(after, found)
    assert classifier.classes_.tolist() == ["across", "up"]


@pytest.mark.parametrize("method", ["score", "evaluate"])
def test_a_measurement_during_another_fit_is_that_of_the_model_before(images, new_images, method):
    classifier = DiffMICClassifier(**small(batch_size=8, max_epochs=2)).fit(*images)
    before = getattr(classifier, method)(*new_images)
    source = Waiting(*new_images)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(getattr(classifier, method), source, new_images[1])
        assert source.reached.wait(60)
        try:
            refit(classifier)
        finally:
            source.allowed.set()
        assert answer.result(60) == before


def test_predictions_while_the_estimator_is_fitted_again_and_again_are_of_one_model(
    images, new_images
):
    classifier = DiffMICClassifier(**small(max_epochs=1)).fit(*images)
    known = [classifier.predict_proba(new_images[0])]
    stop, answers = threading.Event(), []

    def predict():
        while not stop.is_set():
            answers.append(classifier.predict_proba(new_images[0]))

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(predict)
        try:
            for _ in range(2):
                refit(classifier)
                known.append(classifier.predict_proba(new_images[0]))
                classifier.fit(*images)
        finally:
            stop.set()
        running.result(60)
    assert len(answers) > 3
    for answer in answers:
        assert any(
            answer.shape == one.shape and np.allclose(answer, one, atol=1e-6) for one in known
        )


@pytest.mark.slow
@pytest.mark.parametrize("n_views", [1, 3])
def test_fits_in_threads_are_as_those_one_after_another(images, new_images, n_views):
    # Made here: a new backbone draws from torch's generator.
    parameters = small(max_epochs=2, augment="auto", n_views=n_views)

    def proba(seed):
        classifier = DiffMICClassifier(**parameters | {"random_state": seed})
        return classifier.fit(*images).predict_proba(new_images[0])

    expected = [proba(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for one, other in zip(pool.map(proba, range(4)), expected, strict=True):
            assert_allclose(one, other, atol=1e-6)
