"""DiffMICClassifier: its parameters, what it predicts and what it says about it."""

import copy
import inspect
import random

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import NotFittedError
from sklearn.metrics import accuracy_score
from tiny import TinyBackbone, small, stripes
from torch.utils.data import IterableDataset
from torchvision.transforms import v2

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


def test_a_preset_takes_overrides():
    classifier = DiffMICClassifier.from_preset("paper-v2", num_steps=3)
    assert (classifier.recipe, classifier.feature_dim, classifier.num_steps) == (
        "paper-v2",
        6144,
        3,
    )


def test_an_unknown_preset_names_the_close_one():
    with pytest.raises(InputError, match="paper-v2"):
        DiffMICClassifier.from_preset("paper-2")


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
        assert accuracy_score(new_images[1], fitted.predict(new_images[0], stage=stage)) > 0.9


def test_predict_gives_the_most_probable_class(fitted, new_images):
    X = new_images[0]
    expected = fitted.classes_[fitted.predict_proba(X).argmax(axis=1)]
    assert_array_equal(fitted.predict(X), expected)


def test_the_stages_have_probabilities_of_their_own(fitted, new_images):
    diffusion, prior = (
        fitted.predict_proba(new_images[0], stage=stage) for stage in ("diffusion", "prior")
    )
    assert not np.allclose(diffusion, prior)


def test_the_priors_probabilities_are_its_fused_logits_over_the_temperature(fitted, new_images):
    X = torch.from_numpy(new_images[0])[:, None].expand(-1, 3, -1, -1) / 255
    with torch.inference_mode():
        logits = fitted.network_.encode(X).fused_logits.double()
    temperature = fitted.calibrations_["prior"].temperature
    assert temperature != 1
    expected = (logits / temperature).softmax(dim=1)
    assert_allclose(fitted.predict_proba(new_images[0], stage="prior"), expected, atol=1e-6)


@pytest.mark.parametrize("name", ["num_steps", "n_samples"])
def test_options_of_sampling_can_be_given_for_one_prediction(fitted, new_images, name):
    X = new_images[0]
    other = copy.copy(fitted).set_params(**{name: 1})
    once = fitted.predict_proba(X, **{name: 1})
    assert_array_equal(once, other.predict_proba(X))
    assert not np.allclose(once, fitted.predict_proba(X), atol=1e-7)
    assert_array_equal(fitted.predict(X, **{name: 1}), other.predict(X))


@pytest.fixture
def flipping(fitted):
    """The fitted model with views that are flipped from left to right."""
    return copy.copy(fitted).set_params(augment=v2.RandomHorizontalFlip(1.0))


@pytest.mark.parametrize("stage", ["diffusion", "prior"])
def test_scores_and_logits_are_averaged_over_views(flipping, new_images, stage):
    X = new_images[0]
    calibration = flipping.calibrations_[stage]
    own, flipped = (flipping._evidence(x, stage, None, None, 1) for x in (X, X[..., ::-1].copy()))
    means = [(a + b) / 2 for a, b in zip(own, flipped, strict=True)]
    proba = flipping.predict_proba(X, stage=stage, n_views=2)
    assert_allclose(proba, calibration(*means).numpy(), atol=1e-5)
    assert not np.allclose(proba, flipping.predict_proba(X, stage=stage), atol=1e-3)


def test_views_are_the_estimators_own_unless_told_otherwise(flipping, new_images):
    X, y = new_images
    own = copy.copy(flipping).set_params(n_views=3)
    assert_array_equal(own.predict_proba(X), flipping.predict_proba(X, n_views=3))
    assert_array_equal(own.predict(X), flipping.predict(X, n_views=3))
    assert own.evaluate(X, y) == flipping.evaluate(X, y, n_views=3)


@pytest.mark.parametrize("batch_size", [2, 7])
def test_views_do_not_depend_on_the_batch(fitted, new_images, batch_size):
    augmented = copy.copy(fitted).set_params(augment="auto", n_views=3)
    expected = augmented.predict_proba(new_images[0])
    other = copy.copy(augmented).set_params(batch_size=batch_size)
    assert_allclose(other.predict_proba(new_images[0][10:]), expected[10:], atol=1e-5)


def test_a_fit_calibrates_with_the_views_of_the_estimator(images, new_images):
    settings = small(augment="auto", random_state=0)
    one, three = (DiffMICClassifier(**settings, n_views=n).fit(*images) for n in (1, 3))
    assert_array_equal(one.predict_proba(new_images[0], n_views=1).shape, (30, 3))
    assert one.calibrations_["prior"] != three.calibrations_["prior"]
    weights = one.network_.state_dict(), three.network_.state_dict()
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


def test_images_are_looked_at_as_they_are_whatever_the_views(fitted, new_images):
    other = copy.copy(fitted).set_params(n_views=5)  # of which there are none without augment
    assert_array_equal(other.transform(new_images[0]), fitted.transform(new_images[0]))
    assert_array_equal(
        other.predict_proba(new_images[0], n_views=1), fitted.predict_proba(new_images[0])
    )


def test_views_need_an_augmentation(fitted, images):
    with pytest.raises(InputError, match=r"n_views is 2 and augment is None.*or n_views=1"):
        fitted.predict_proba(images[0], n_views=2)
    with pytest.raises(InputError, match="n_views is 2 and augment is None"):
        DiffMICClassifier(**small(n_views=2, augment=None)).fit(*images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_views": 0}, "n_views is 0; it must be an integer of at least 1"),
        ({"num_steps": 0}, "num_steps"),
        ({"num_steps": 51}, "num_train_timesteps"),
        ({"n_samples": 0}, "n_samples"),
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
    hook = fitted.network_.prior.backbone.register_forward_hook(lambda *_: calls.append(1))
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


# --- Explanations -------------------------------------------------------------------------------


def test_explain_has_the_promised_shapes(fitted, new_images):
    explanation = fitted.explain(new_images[0])
    assert explanation.saliency.shape == (30, 3, 32, 32)
    assert explanation.boxes.shape == (30, 6, 4)
    assert explanation.attention.shape == (30, 6)
    assert_allclose(explanation.attention.sum(axis=1), 1, atol=1e-5)
    for proba in (explanation.global_proba, explanation.local_proba):
        assert proba.shape == (30, 3)
        assert_allclose(proba.sum(axis=1), 1, atol=1e-5)


def test_labels_that_do_not_exclude_each_other_are_explained_by_sigmoids(
    fitted_multilabel, indicators
):
    proba = fitted_multilabel.explain(indicators[0]).global_proba
    assert not np.allclose(proba.sum(axis=1), 1, atol=1e-2)


@pytest.mark.parametrize("size", [(48, 80), (100, 20)])
def test_boxes_are_in_pixels_of_the_image_as_it_was_passed(fitted, size):
    X, _ = stripes(12, size=size)
    explanation = fitted.explain(X)
    height, width = size
    assert explanation.saliency.shape == (12, 3, height, width)
    x0, y0, x1, y1 = np.moveaxis(explanation.boxes, 2, 0)
    # The saliency map has 4 × 4 cells, and a region is one of them.
    assert_allclose(x1 - x0, width / 4, rtol=1e-5)
    assert_allclose(y1 - y0, height / 4, rtol=1e-5)
    assert x0.min() >= 0
    assert y0.min() >= 0
    assert x1.max() == pytest.approx(width)
    assert y1.max() == pytest.approx(height)


def test_boxes_follow_what_is_salient(fitted, new_images):
    explanation = fitted.explain(new_images[0])
    first = explanation.boxes[:, 0].astype(int) // 8  # x, y of the first region in cells
    cells = torch.nn.functional.avg_pool2d(torch.from_numpy(explanation.saliency), 8)
    scaled = (cells - cells.amin((2, 3), keepdim=True)) / (
        cells.amax((2, 3), keepdim=True) - cells.amin((2, 3), keepdim=True)
    )
    importance = scaled.sum(dim=1)
    rank = (importance.flatten(1) > importance[range(30), first[:, 1], first[:, 0], None]).sum(1)
    assert (rank <= 1).float().mean() > 0.8  # enlarging the map blurs it: nearly always the first


def test_images_of_mixed_sizes_are_explained_each_in_its_own_pixels(fitted):
    small_image, large_image = stripes(1, size=(32, 32))[0][0], stripes(1, size=(64, 96))[0][0]
    explanation = fitted.explain([small_image, large_image])
    assert explanation.saliency.shape == (2, 3, 32, 32)
    assert_allclose(np.diff(explanation.boxes[:, :, [0, 2]])[:, 0, 0], [8, 24])
    assert_allclose(np.diff(explanation.boxes[:, :, [1, 3]])[:, 0, 0], [8, 16])


# --- Arrangements -------------------------------------------------------------------------------


def test_images_of_28_pixels_work_with_a_deep_backbone():
    X, y = stripes(30, size=28)
    classifier = fit(X, y, backbone="resnet10t", pretrained=False, max_epochs=1)
    assert classifier.image_size_ == 28
    assert classifier.network_.n_regions == 1
    assert classifier.predict_proba(X).shape == (30, 3)


def test_the_papers_arrangement_fits_and_predicts(images, new_images):
    encoder = TinyBackbone(12)
    classifier = fit(
        *images,
        backbone=encoder,
        prior_backbone=TinyBackbone(),
        region_backbone=TinyBackbone(),
        recipe="paper-v2",
        image_size=32,
        n_regions=6,
        region_size=8,
        feature_dim=32,
        batch_size=16,
    )
    assert classifier.predict_proba(new_images[0]).shape == (30, 3)
    assert classifier.transform(new_images[0]).shape == (30, 24)
    assert classifier.explain(new_images[0]).boxes.shape == (30, 6, 4)
    network = classifier.network_
    learnt = network.image_encoder.net.layers[0].weight
    assert not torch.equal(learnt.cpu(), encoder.layers[0].weight)
    assert not torch.equal(
        network.region_encoder.backbone.net.layers[0].weight,
        network.prior.regions.backbone.net.layers[0].weight,
    )


def test_class_names_must_be_as_many_as_the_classes(images):
    names = ("across", "up", "plain")
    assert fit(*images, max_epochs=1, class_names=names).class_names is names
    with pytest.raises(InputError, match="2 names"):
        fit(*images, class_names=names[:2])


@pytest.mark.parametrize("region_size", [8, 16, 20])
def test_boxes_are_as_large_as_the_regions_that_are_read(images, new_images, region_size):
    classifier = DiffMICClassifier(
        **small(region_size=region_size, region_backbone=TinyBackbone(), max_epochs=1)
    )
    classifier.fit(*images)
    x0, y0, x1, y1 = np.moveaxis(classifier.explain(new_images[0]).boxes, 2, 0)
    inside = (x1 < 32) & (y1 < 32)  # crops that pass the border end there
    assert_allclose((x1 - x0)[inside], region_size, atol=1e-4)
    assert_allclose((y1 - y0)[inside], region_size, atol=1e-4)
    assert (x1 <= 32).all()
    assert (y1 <= 32).all()


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


def test_numbers_of_numpy_are_numbers(images):
    classifier = DiffMICClassifier(
        **small(n_regions=np.int64(2), region_size=np.int32(8), max_epochs=1)
    )
    classifier.fit(*images)
    assert classifier.explain(images[0][:1]).boxes.shape == (1, 2, 4)
