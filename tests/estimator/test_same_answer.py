"""The same image has the same answer, whatever is asked beside it, before it, by whom and how."""

import copy
import multiprocessing
import pickle
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from processes import probabilities
from tiny import TinyBackbone, small, stripes

from diffmic import DiffMICClassifier, DiffMICWarning
from diffmic.datasets import make_lesions
from diffmic.model import Architecture
from diffmic.training import resolve_recipe

pytestmark = pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")
X, Y = stripes(40)
NEW = stripes(11, seed=5)[0]
V1 = replace(
    resolve_recipe("paper-v1"),
    denoiser_epochs=4,
    **{"ema_decay": None, "ema": 0.2, "denoiser_learning_rate": 1e-2, "patience": None},
)
ZOOM = {
    "backbone": "test_resnet",
    "pretrained": False,
    "architecture": Architecture(regions="zoom", feature_dim=16, num_train_timesteps=100),
    "image_size": 64,
    "max_epochs": 1,
    "random_state": 0,
    "verbose": 0,
}


def made(kind):
    """A classifier of a kind that is prepared for sets, and images it has not seen."""
    if kind == "zoom":
        images, y = make_lesions(40, image_size=200, random_state=0)
        clf = DiffMICClassifier(**ZOOM).fit(images[:30], y[:30])
        return clf.conformalize(images[20:], y[20:]), images[30:]
    labels = (Y[:, None] == [0, 1, 2]).astype(int) if kind == "multi-label" else Y
    changes = {
        "multi-class": {},
        "multi-label": {},
        "views": {"n_views": 3, "augment": "auto"},
        "v1": {"recipe": V1, "augment": None},
    }[kind]
    clf = DiffMICClassifier(**small(**changes)).fit(X, labels)
    return clf.conformalize(*stripes(20, seed=3)[:1], labels[:20]), NEW


@pytest.fixture(scope="module", params=["multi-class", "multi-label", "views", "v1", "zoom"])
def asked(request):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DiffMICWarning)
        classifier, images = made(request.param)
        return classifier, images, answers(classifier, images)


def answers(classifier, images):
    """Everything that a model says of each image, as float arrays with a row for each."""
    found = {
        "diffusion": classifier.predict_proba(images),
        "prior": classifier.predict_proba(images, stage="prior"),
        "embeddings": classifier.transform(images),
        "sets": classifier.predict_set(images).included,
    }
    for said in (classifier.explain(images), classifier.predict_uncertainty(images, n_draws=4)):
        for field in fields(said):
            value = getattr(said, field.name)
            if isinstance(value, np.ndarray) and len(value) == len(images):
                found[field.name] = value
    return {name: np.asarray(values, float) for name, values in found.items()}


def assert_same(found, expected, atol=1e-5):
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        scale = max(1.0, np.abs(values).max())  # of logits, pixels and distances
        assert_allclose(found[name], values, atol=atol * scale, err_msg=name)


def alone(classifier, images):
    each = [answers(classifier, images[i : i + 1]) for i in range(len(images))]
    return {name: np.concatenate([one[name] for one in each]) for name in each[0]}


def shuffled(classifier, images):
    order = np.random.RandomState(0).permutation(len(images))
    found = answers(copy.copy(classifier).set_params(batch_size=4), images[order])
    return {name: values[np.argsort(order)] for name, values in found.items()}


def in_threads(classifier, images):
    """From four threads at once, of which two ask other questions."""
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(answers, classifier, images)
        pool.submit(classifier.predict_proba, images[::-1], n_draws=3)
        pool.submit(classifier.explain, images[:2])
        second = pool.submit(answers, classifier, images)
        assert_same(second.result(), first.result())
        return first.result()


def with_two_threads_of_torch(classifier, images):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        return answers(classifier, images)
    finally:
        torch.set_num_threads(before)


def while_another_is_fitted(classifier, images):
    with ThreadPoolExecutor(1) as pool:
        other = DiffMICClassifier(**small(max_epochs=2, random_state=7, augment="auto"))
        fit = pool.submit(other.fit, X, Y)
        found = answers(classifier, images)
        fit.result()
    return found


WAYS = {
    "again": answers,
    "alone": alone,
    "shuffled, in other batches": shuffled,
    "read by workers": lambda clf, images: answers(
        copy.copy(clf).set_params(num_workers=2), images
    ),
    "as a list": lambda clf, images: answers(clf, list(images)),
    "pickled": lambda clf, images: answers(pickle.loads(pickle.dumps(clf)), images),
    "by the plain engine": lambda clf, images: answers(copy.copy(clf).compile("plain"), images),
    "in threads": in_threads,
    "with two threads of torch": with_two_threads_of_torch,
    "while another is fitted": while_another_is_fitted,
}


@pytest.mark.parametrize("way", WAYS)
def test_the_answer_is_the_same(asked, way):
    classifier, images, expected = asked
    assert_same(WAYS[way](classifier, images), expected)


def test_a_saved_model_gives_the_same_answers(asked, tmp_path):
    classifier, images, expected = asked
    named = isinstance(classifier.backbone, str)
    for dtype, atol in (("float32", 1e-6), ("float16", 2e-2)):
        classifier.save_pretrained(tmp_path / dtype, dtype=dtype)
        loaded = DiffMICClassifier.from_pretrained(
            tmp_path / dtype, backbone=None if named else TinyBackbone(), device="cpu"
        )
        if dtype == "float32":
            assert_same(answers(loaded, images), expected, atol)
        else:
            for stage in ("diffusion", "prior"):
                found = loaded.predict_proba(images, stage=stage)
                assert_allclose(found, expected[stage], atol=atol)


@pytest.mark.slow
@pytest.mark.parametrize("start", multiprocessing.get_all_start_methods())
def test_a_pool_of_processes_gives_the_same_answers(start):
    classifier, images = made("multi-class")
    expected = classifier.predict_proba(images)
    with ProcessPoolExecutor(2, multiprocessing.get_context(start)) as pool:
        for found in pool.map(probabilities, [classifier] * 3, [images] * 3, timeout=300):
            assert_allclose(found, expected, atol=1e-6)
