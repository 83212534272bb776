"""Uncertainty, abstention and prediction sets of fitted classifiers."""

import copy
from dataclasses import fields, replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.torch import load_file, save_file
from scipy.stats import entropy, ttest_rel
from tiny import small, stripes

from diffmic import DiffMICClassifier, InputError, ModelFileError
from diffmic.hub.files import digest
from diffmic.inference import Uncertainty, draw_probabilities

pytestmark = pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")
BOTH = pytest.mark.parametrize("name", ["fitted", "fitted_multilabel"])


def labels_for(name, y):
    return y if name == "fitted" else (y[:, None] == [0, 1]).astype(int)


@BOTH
def test_measures_have_their_shapes_and_bounds(request, name, new_images):
    classifier, X = request.getfixturevalue(name), new_images[0]
    found = classifier.predict_uncertainty(X, n_draws=6)
    n, c = found.proba.shape
    shape = (n,) if name == "fitted" else (n, c)
    for measure in ("entropy", "mutual_information", "interval_width", "p_value"):
        values = getattr(found, measure)
        assert values.shape == shape
        assert np.isfinite(values).all()
        assert (values >= 0).all()
    assert (found.mutual_information <= found.entropy).all()
    assert found.mutual_information.max() > 0
    assert (found.p_value <= 1).all()
    assert found.distance.shape == found.farther.shape == (n,)
    assert_array_equal(found.proba, classifier.predict_proba(X, n_draws=6))


def test_entropy_width_and_test_are_of_the_draws(fitted, new_images):
    X = new_images[0]
    found = fitted.predict_uncertainty(X, n_draws=5)
    assert_allclose(found.entropy, entropy(found.proba, axis=1))
    images = fitted.model_
    from diffmic.estimator.prediction import evidence_for

    evidence = evidence_for(images, fitted.get_params(), X, "diffusion", {"n_draws": 5})
    draws = draw_probabilities(images, evidence)
    assert_allclose(draws.sum(axis=2), 1)
    for i in range(5):
        second, first = np.argsort(found.proba[i])[-2:]
        expected = ttest_rel(draws[i, :, first], draws[i, :, second]).pvalue
        assert found.p_value[i] == pytest.approx(expected)
        low, high = np.quantile(draws[i, :, first], [0.025, 0.975])
        assert found.interval_width[i] == pytest.approx(high - low)
        information = entropy(draws[i].mean(axis=0)) - entropy(draws[i], axis=1).mean()
        assert found.mutual_information[i] == pytest.approx(min(information, found.entropy[i]))


def test_uncertainty_does_not_depend_on_neighbours(fitted, new_images):
    X = new_images[0]
    whole, one = (fitted.predict_uncertainty(images, n_draws=4) for images in (X, X[7:8]))
    for field in fields(Uncertainty):
        if field.name not in ("classes", "exclusive"):
            assert_allclose(
                getattr(one, field.name)[0], getattr(whole, field.name)[7], rtol=1e-4, atol=1e-5
            )


def test_the_distance_tells_what_the_model_was_not_made_for(fitted, new_images):
    noise = np.random.RandomState(0).randint(0, 256, (10, 32, 32)).astype(np.uint8)
    own = fitted.predict_uncertainty(new_images[0], n_draws=2)
    strange = fitted.predict_uncertainty(noise, n_draws=2)
    assert strange.distance.min() > np.median(own.distance)
    assert strange.farther.max() < 0.1 < own.farther.max()


def test_draws_that_all_agree_leave_no_doubt_between_them(fitted, new_images):
    certain = copy.copy(fitted)
    calibrations = {s: replace(c, temperature=1e9) for s, c in fitted.calibrations_.items()}
    certain.model_ = replace(fitted.model_, calibrations=calibrations)
    with np.errstate(all="raise"):
        found = certain.predict_uncertainty(new_images[0], n_draws=3)
    assert found.mutual_information.max() < 1e-6
    assert found.interval_width.max() < 1e-6
    assert np.isfinite(found.p_value).all()


@BOTH
def test_the_most_uncertain_are_as_many_as_asked_for(request, name, new_images):
    found = request.getfixturevalue(name).predict_uncertainty(new_images[0], n_draws=3)
    for by in ("entropy", "p_value"):
        marked = found.most_uncertain(0.2, by)
        assert (marked.sum(axis=0) == 6).all()
    values = found.entropy.reshape(30, -1)[:, 0]
    marked = found.most_uncertain(0.2).reshape(30, -1)[:, 0]
    assert values[marked].min() >= values[~marked].max()
    unlike = found.most_uncertain(0.5, "farther")
    assert found.farther[unlike].max() <= found.farther[~unlike].min()
    for wrong in ({"share": 1.5}, {"share": True}, {"share": 0.1, "by": "proba"}):
        with pytest.raises(InputError):
            found.most_uncertain(**wrong)


def test_uncertainty_is_a_table(fitted, fitted_multilabel, new_images):
    frame = fitted.predict_uncertainty(new_images[0], n_draws=2).to_frame()
    assert frame.columns[:3].tolist() == ["predicted", "proba", "entropy"]
    assert len(frame) == 30
    frame = fitted_multilabel.predict_uncertainty(new_images[0], n_draws=2).to_frame()
    assert {"proba_0", "entropy_1", "p_value_0", "distance"} <= set(frame.columns)


@pytest.mark.parametrize("n_draws", [1, 0, 2.5, True])
def test_one_draw_cannot_disagree(fitted, new_images, n_draws):
    with pytest.raises(InputError, match="n_draws"):
        fitted.predict_uncertainty(new_images[0], n_draws=n_draws)


# --- Abstention ----------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [False, True])
def test_the_least_certain_share_of_the_validation_part_is_left_open(images, new_images, words):
    X, y = images
    if words:
        y = np.array(["no", "yes", "maybe"])[y]
    held_out = stripes(60, seed=9)[0]
    classifier = DiffMICClassifier(**small(max_epochs=1))
    truth = y[np.random.RandomState(0).permutation(60)]
    classifier.fit(X, y, validation_data=(held_out, truth))
    for stage in ("prior", "diffusion", "diffusion_alone"):
        found = classifier.predict(held_out, abstain=0.25, stage=stage)
        assert found.dtype == object
        left = np.array([label is None for label in found])
        assert left.mean() == pytest.approx(0.25, abs=0.02)
        proba = classifier.predict_proba(held_out, stage=stage).max(axis=1)
        assert proba[left].max() < proba[~left].min()
        assert_array_equal(found[~left], classifier.predict(held_out, stage=stage)[~left])
        assert type(found[~left][0]) is (str if words else int)


def test_a_decision_to_abstain_does_not_depend_on_other_images(fitted, new_images):
    X = new_images[0]
    whole = fitted.predict(X, abstain=0.4)
    assert None in whole
    assert whole[:5].tolist() == [fitted.predict(X[i : i + 1], abstain=0.4)[0] for i in range(5)]


def test_multi_label_decisions_are_left_open_one_by_one(fitted_multilabel, new_images):
    X = new_images[0]
    found, whole = fitted_multilabel.predict(X, abstain=0.3), fitted_multilabel.predict(X)
    assert found.dtype == float
    open_ = np.isnan(found)
    assert open_.any()
    assert not open_.all()
    assert_array_equal(found[~open_], whole[~open_])
    distance = np.abs(
        fitted_multilabel.predict_proba(X) - fitted_multilabel.thresholds_["diffusion"]
    )
    for label in range(2):
        if open_[:, label].any():
            assert (
                distance[open_[:, label], label].mean() < distance[~open_[:, label], label].mean()
            )


@BOTH
def test_abstaining_on_nothing_leaves_nothing_open(request, name, new_images):
    classifier = request.getfixturevalue(name)
    found = classifier.predict(new_images[0], abstain=0)
    assert_array_equal(found.astype(int), classifier.predict(new_images[0]))


@pytest.mark.parametrize("abstain", [1, -0.1, "0.1", True, float("nan")])
def test_a_share_that_is_none_is_refused(fitted, new_images, abstain):
    with pytest.raises(InputError, match="abstain"):
        fitted.predict(new_images[0], abstain=abstain)


def test_without_a_validation_part_there_is_nothing_to_abstain_by(images, new_images):
    classifier = DiffMICClassifier(**small(max_epochs=1, validation_fraction=None)).fit(*images)
    with pytest.raises(InputError, match="most_uncertain"):
        classifier.predict(new_images[0], abstain=0.1)
    found = classifier.predict_uncertainty(new_images[0], n_draws=2)
    assert found.distance is found.farther is None
    assert "distance" not in found.to_frame()
    with pytest.raises(InputError, match="distance"):
        found.most_uncertain(0.1, "distance")


# --- Prediction sets -----------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("stage", ["prior", "diffusion", "diffusion_alone"])
def test_sets_hold_the_truth_of_new_images(request, name, stage):
    classifier = copy.copy(request.getfixturevalue(name))
    X, y = stripes(160, seed=4)
    y = labels_for(name, y)
    rng = np.random.RandomState(0)
    y = np.where(rng.rand(*y.shape) < 0.15, (y + 1) % (2 if y.ndim == 2 else 3), y)
    assert classifier.conformalize(X[:80], y[:80]) is classifier
    sets = classifier.predict_set(X[80:], 0.8, stage=stage)
    assert sets.included.shape == (80, len(classifier.classes_))
    measured = sets.coverage_of(y[80:])
    assert measured[0]["coverage"] > 0.65
    assert [row["class"] for row in measured[1:]] == classifier.classes_.tolist()
    larger = classifier.predict_set(X[80:], 0.95, stage=stage)
    assert (larger.included >= sets.included).all()


@BOTH
def test_doubt_is_saved_with_the_model(request, name, indicators, images, new_images, tmp_path):
    X, y = images if name == "fitted" else indicators
    classifier = DiffMICClassifier(
        **small(backbone="test_resnet", pretrained=False, max_epochs=1)
    ).fit(X, y)
    classifier.conformalize(*stripes(40, seed=3)[:1], labels_for(name, stripes(40, seed=3)[1]))
    classifier.save_pretrained(tmp_path, dtype="float16")
    loaded = DiffMICClassifier.from_pretrained(tmp_path, device="cpu")
    new = new_images[0]
    own, other = (c.predict_uncertainty(new, n_draws=3) for c in (classifier, loaded))
    assert_allclose(other.distance, own.distance, rtol=0.05)
    assert_allclose(other.farther, own.farther, atol=0.1)
    for before, after in (
        (classifier.predict_set(new, 0.8).included, loaded.predict_set(new, 0.8).included),
        (classifier.predict(new, abstain=0.5), loaded.predict(new, abstain=0.5)),
    ):
        same = (before == after) | ((before != before) & (after != after))
        assert same.mean() > 0.9  # weights in half precision
    assert loaded.model_.doubt.conformal.sampling == classifier.model_.doubt.conformal.sampling


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["doubt"].update(shapes={}),
        lambda c: c["doubt"].update(shapes=None),
        lambda c: c["doubt"].pop("sampling"),
        lambda c: c.update(doubt=[]),
        lambda c: c["doubt"]["shapes"].update({"doubt.other": [2]}),
        lambda c: c["doubt"]["shapes"].update({"doubt.confidence.prior": [101, 7]}),
        lambda c: c["doubt"]["shapes"].update({"doubt.reference.mean": [10**9]}),
        lambda c: c["doubt"]["shapes"].pop("doubt.reference.mean"),
        lambda c: c["doubt"].update(sampling={"n_draws": 3}),
    ],
)
def test_a_configuration_that_misstates_the_doubt_is_refused(fitted, tmp_path, change):
    from hub.test_saved_model import edit, load
    from tiny import TinyBackbone

    fitted.save_pretrained(tmp_path)
    edit(tmp_path, change)
    with pytest.raises(ModelFileError):
        load(tmp_path, backbone=TinyBackbone())


def test_without_a_word_of_it_in_the_configuration_there_is_no_doubt(fitted, tmp_path):
    from hub.test_saved_model import edit, load
    from tiny import TinyBackbone

    fitted.save_pretrained(tmp_path)
    edit(tmp_path, lambda c: c.pop("doubt"))
    assert load(tmp_path, backbone=TinyBackbone()).model_.doubt is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("confidence.prior", float("nan")),
        ("reference.variances", -1.0),
        ("reference.held_out", float("inf")),
    ],
)
def test_doubt_with_damaged_values_is_refused(fitted, tmp_path, name, value):
    from hub.test_saved_model import edit, load
    from tiny import TinyBackbone

    fitted.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    tensors[f"doubt.{name}"][1] = value
    save_file(tensors, file)
    edit(tmp_path, lambda c: c.update(weights_sha256=digest(file.read_bytes())))
    with pytest.raises(ModelFileError, match="held-out images is damaged"):
        load(tmp_path, backbone=TinyBackbone())


def test_sets_need_images_that_nothing_has_seen_and_enough_of_them(fitted, new_images):
    X, y = new_images
    with pytest.raises(InputError, match="conformalize"):
        fitted.predict_set(X)
    classifier = copy.copy(fitted).conformalize(X, y)
    with pytest.raises(InputError, match="at least 100 images"):
        classifier.predict_set(X, 0.99)
    for coverage in (0, 1, "0.9", True, float("nan")):
        with pytest.raises(InputError, match="coverage"):
            classifier.predict_set(X, coverage)
    with pytest.raises(InputError, match="stage"):
        classifier.predict_set(X, stage="posterior")
