"""What a DiffMICClassifier predicts, and that chance has no part in it but by the seed."""

import copy
import inspect
import random

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import NotFittedError
from sklearn.metrics import accuracy_score
from tiny import small, stripes
from torch.utils.data import IterableDataset

from diffmic import DiffMICClassifier, InputError

pytestmark = pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")
METHODS = ("predict", "predict_proba", "transform", "explain", "score")


def fit(X, y, *, fit_options=(), **parameters):
    return DiffMICClassifier(**small(**parameters)).fit(X, y, **dict(fit_options))


def random_states():
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002
    return torch.get_rng_state().tolist(), (kind, keys.tolist(), *rest), random.getstate()


def test_the_constructor_only_assigns():
    parameters = {name: object() for name in inspect.signature(DiffMICClassifier).parameters}
    classifier = DiffMICClassifier(**parameters)
    assert vars(classifier) == parameters


def test_parameters_are_keyword_only():
    with pytest.raises(TypeError):
        DiffMICClassifier("resnet18")


@pytest.mark.parametrize("method", METHODS)
def test_an_unfitted_classifier_says_so(method, images):
    with pytest.raises(NotFittedError):
        getattr(DiffMICClassifier(), method)(*images[: 1 + (method == "score")])


# --- Chance -------------------------------------------------------------------------------------


@pytest.mark.parametrize("augment", ["auto", None])
def test_the_same_random_state_gives_the_same_probabilities(images, new_images, augment):
    first, second = (fit(*images, augment=augment) for _ in range(2))
    assert_array_equal(first.predict_proba(new_images[0]), second.predict_proba(new_images[0]))


def test_another_random_state_gives_other_probabilities(images, new_images):
    first, second = (fit(*images, random_state=seed) for seed in (0, 1))
    assert not np.allclose(first.predict_proba(new_images[0]), second.predict_proba(new_images[0]))


def test_a_random_state_object_is_drawn_from(images, new_images):
    first, second = (fit(*images, random_state=np.random.RandomState(5)) for _ in range(2))
    assert_array_equal(first.predict_proba(new_images[0]), second.predict_proba(new_images[0]))


@pytest.mark.parametrize("stage", ["diffusion", "prior"])
@pytest.mark.parametrize("batch_size", [2, 7, 30])
def test_probabilities_do_not_depend_on_batch_order_or_neighbours(
    fitted, new_images, batch_size, stage
):
    X = new_images[0]
    expected = fitted.predict_proba(X, stage=stage)
    other = copy.copy(fitted).set_params(batch_size=batch_size)
    order = np.random.RandomState(0).permutation(len(X))
    assert_allclose(other.predict_proba(X, stage=stage), expected, atol=1e-5)
    assert_allclose(other.predict_proba(X[order], stage=stage), expected[order], atol=1e-5)
    assert_allclose(other.predict_proba(X[5:8], stage=stage), expected[5:8], atol=1e-5)


def test_the_global_random_state_is_left_alone(images, new_images):
    before = random_states()
    classifier = fit(*images)
    assert random_states() == before
    for method in METHODS[:-1]:
        getattr(classifier, method)(new_images[0])
        assert random_states() == before, method


# --- Predictions --------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["diffusion", "prior"])
def test_rows_are_probabilities_that_sum_to_one(fitted, new_images, stage):
    proba = fitted.predict_proba(new_images[0], stage=stage)
    assert proba.shape == (30, 3)
    assert proba.dtype == np.float64
    assert (proba >= 0).all()
    assert_allclose(proba.sum(axis=1), 1, atol=1e-9)


def test_what_can_be_learnt_is_learnt(fitted, new_images):
    for stage in ("prior", "diffusion"):
        assert accuracy_score(new_images[1], fitted.predict(new_images[0], stage=stage)) >= 0.9


def test_predict_gives_the_most_probable_class(fitted, new_images):
    X = new_images[0]
    expected = fitted.classes_[fitted.predict_proba(X).argmax(axis=1)]
    assert_array_equal(fitted.predict(X), expected)


def test_the_stages_have_probabilities_of_their_own(fitted, new_images):
    diffusion, prior = (
        fitted.predict_proba(new_images[0], stage=stage) for stage in ("diffusion", "prior")
    )
    assert not np.allclose(diffusion, prior, rtol=1e-9)


def test_the_priors_probabilities_are_its_fused_logits_over_the_temperature(fitted, new_images):
    X = torch.from_numpy(new_images[0])[:, None].expand(-1, 3, -1, -1) / 255
    with torch.inference_mode():
        logits = fitted.network_.encode(X).fused_logits.double()
    temperature = fitted.calibrations_["prior"].temperature
    assert temperature != 1
    expected = (logits / temperature).softmax(dim=1)
    assert_allclose(fitted.predict_proba(new_images[0], stage="prior"), expected, atol=1e-6)


@pytest.mark.parametrize("name", ["num_steps", "n_draws"])
def test_options_of_sampling_can_be_given_for_one_prediction(fitted, new_images, name):
    X = new_images[0]
    other = copy.copy(fitted).set_params(**{name: 1})
    once = fitted.predict_proba(X, **{name: 1})
    assert_array_equal(once, other.predict_proba(X))
    assert not np.array_equal(once, fitted.predict_proba(X))
    assert_array_equal(fitted.predict(X, **{name: 1}), other.predict(X))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_views": 0}, "n_views is 0; it must be an integer of at least 1"),
        ({"num_steps": 0}, "num_steps"),
        ({"num_steps": 51}, "num_train_timesteps"),
        ({"n_draws": 0}, "n_draws"),
        ({"stage": "denoiser"}, "stage"),
    ],
)
def test_wrong_options_of_predict_proba_are_named(fitted, new_images, options, message):
    with pytest.raises(InputError, match=message):
        fitted.predict_proba(new_images[0], **options)


@pytest.mark.parametrize("shape", [(32, 32), (1, 32, 32), (32, 32, 1)])
def test_a_single_image_gives_a_single_row(fitted, new_images, shape):
    X = new_images[0]
    proba = fitted.predict_proba(X[3].reshape(shape))
    assert_allclose(proba, fitted.predict_proba(X)[3:4], atol=1e-5)
    assert fitted.predict(X[3].reshape(shape)).shape == (1,)


def test_score_is_the_accuracy(fitted, new_images):
    X, y = new_images
    wrong = np.where(np.arange(30) < 10, (y + 1) % 3, y)
    assert fitted.score(X, wrong) == accuracy_score(wrong, fitted.predict(X))
    weights = np.arange(30)
    assert fitted.score(X, wrong, sample_weight=weights) == accuracy_score(
        wrong, fitted.predict(X), sample_weight=weights
    )


def test_transform_gives_the_pooled_features(fitted, new_images):
    X = new_images[0]
    features = fitted.transform(X)
    assert (features.shape, features.dtype) == ((30, 16), np.float32)
    with torch.inference_mode():
        backbone = fitted.network_.prior.backbone
        expected = backbone.pooled(torch.from_numpy(X)[:, None].expand(-1, 3, -1, -1) / 255)
    assert_allclose(features, expected, atol=1e-5)


@pytest.mark.parametrize("num_steps", [1, 10])
def test_the_encoder_runs_once_per_batch_whatever_the_number_of_steps(
    fitted, new_images, num_steps
):
    calls = []
    backbone = fitted.model_.engine.network.prior.backbone
    hook = backbone.register_forward_hook(lambda *_: calls.append(1))
    try:
        fitted.predict_proba(new_images[0], num_steps=num_steps)
    finally:
        hook.remove()
    assert len(calls) == 1


def test_gray_and_colour_images_can_be_predicted_by_one_model(fitted, new_images):
    gray = new_images[0][:, None]
    expected = fitted.predict_proba(gray)
    assert_allclose(fitted.predict_proba(gray.repeat(3, axis=1)), expected, atol=1e-5)
    colour = fit(np.repeat(stripes(60)[0][:, None], 3, axis=1), stripes(60)[1])
    assert colour.channels_ == 3
    assert_allclose(
        colour.predict_proba(gray), colour.predict_proba(gray.repeat(3, axis=1)), atol=1e-5
    )


def test_colours_matter():
    rng = np.random.RandomState(0)
    y = np.arange(60) % 3
    X = rng.randint(0, 100, (60, 3, 32, 32)).astype(np.uint8)
    X[np.arange(60), y] += 100
    assert fit(X, y, max_epochs=10).score(X, y) > 0.9


def test_scores_of_a_stream_read_it_once(fitted, new_images):
    class Shuffled(IterableDataset):
        def __iter__(self):
            for index in np.random.default_rng().permutation(len(new_images[0])):
                yield new_images[0][index], int(new_images[1][index])

    expected = fitted.score(*new_images)
    assert [fitted.score(Shuffled()) for _ in range(3)] == [expected] * 3


def test_a_score_against_labels_of_another_kind_is_an_input_error(fitted, new_images):
    with pytest.raises(InputError, match="cannot be compared with the classes"):
        fitted.score(new_images[0], [str(label) for label in new_images[1]])
