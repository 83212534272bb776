"""calibrate and tune_thresholds: on a user's images, without training, and nothing is lost."""

import copy
import json
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pandas
import pytest
from numpy.testing import assert_array_equal
from sklearn.linear_model import LogisticRegression
from tiny import RECIPE, TinyBackbone, small, stripes

from diffmic import DiffMICClassifier, DiffMICWarning, InputError, ModelCard
from diffmic.estimator import calibrating
from diffmic.inference import SamplingOptions

pytestmark = pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")


def noisy(n=90, seed=3):
    """Images whose labels are often wrong, unlike those of the fit."""
    X, y = stripes(n, seed=seed)
    wrong = np.random.RandomState(seed).rand(n) < 0.5
    return X, np.where(wrong, (y + 1) % 3, y)


@pytest.fixture
def classifier(fitted):
    return copy.deepcopy(fitted)


@pytest.fixture
def binary():
    X, y = stripes(60, n_classes=2)
    y = np.where(np.random.RandomState(0).rand(60) < 0.2, 1 - y, y)
    return DiffMICClassifier(**small(max_epochs=8)).fit(X, np.array(["no", "yes"])[y])


def state(classifier):
    model = classifier.model_
    return (
        classifier.get_params(),
        *(getattr(model, name) for name in ("calibrations", "thresholds", "sampling", "shares")),
    )


def test_probabilities_fit_the_images_better_and_nothing_is_trained(classifier, fitted):
    X, y = noisy()
    before = classifier.evaluate(X, y)
    weights = {n: t.clone() for n, t in classifier.network_.state_dict().items()}
    assert classifier.calibrate(X, y) is classifier
    after = classifier.evaluate(X, y)
    for stage in ("prior", "diffusion"):
        assert after[stage]["nll"] < before[stage]["nll"] - 0.05
        assert classifier.recalibration_.nll_before[stage] == pytest.approx(before[stage]["nll"])
    assert classifier.recalibration_.n_images == 90
    np.testing.assert_allclose(classifier.shares_, np.bincount(y) / 90)
    assert all((t == weights[n]).all() for n, t in classifier.network_.state_dict().items())
    assert fitted.recalibration_ is None


def test_labels_may_come_with_the_images_and_be_frames(classifier, fitted):
    X, y = noisy(30)
    expected = copy.deepcopy(fitted).calibrate(X, y).predict_proba(X)
    items = [(image, int(label)) for image, label in zip(X, y, strict=True)]
    together = copy.deepcopy(fitted).calibrate(items)
    frame = copy.deepcopy(fitted).calibrate(X, pandas.Series(y, name="label"))
    assert_array_equal(together.predict_proba(X), expected)
    assert_array_equal(frame.predict_proba(X), expected)


def test_images_of_weight_zero_do_not_count(classifier, fitted):
    X, y = noisy(60)
    half = np.repeat([1.0, 0.0], 30)
    weighted = classifier.calibrate(X, y, sample_weight=half)
    alone = copy.deepcopy(fitted).calibrate(X[:30], y[:30])
    assert weighted.calibrations_ == alone.calibrations_
    assert weighted.recalibration_.n_images == 30


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"y": [0] * 8}, "8 images"),
        ({"y": [1] * 90}, "single class"),
        ({"y": [0, 7] * 45}, "unseen"),
        ({"y": [0, 1] * 40}, "90 images, but y has 80"),
        ({"sample_weight": [1.0]}, "sample_weight has 1"),
        ({"sample_weight": np.zeros(90)}, "zero for every image"),
        ({"groups": [1] * 90}, "single group"),
        ({"groups": [1] * 9}, "groups has 9"),
        ({"groups": [None] * 90}, "groups"),
        ({"num_steps": 0}, "num_steps is 0"),
        ({"n_views": 3}, "n_views is 3"),  # the classifier has no augmentation
        ({"aim": "youden"}, "3 exclusive classes"),
        ({"sensitivity": 0.9}, "3 exclusive classes"),
    ],
)
def test_what_cannot_be_used_is_refused_and_all_stays_as_it_was(classifier, arguments, message):
    X, y = noisy()
    before, proba = state(classifier), classifier.predict_proba(X[:5])
    y = arguments.pop("y", y)
    X = X[: len(y)] if len(y) < 10 else X
    with pytest.raises(InputError, match=message):
        classifier.calibrate(X, y, **arguments)
    assert state(classifier) == before
    assert_array_equal(classifier.predict_proba(noisy()[0][:5]), proba)


def test_an_interruption_leaves_all_as_it_was(classifier, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    before = state(classifier)
    monkeypatch.setattr(calibrating, "recalibrated", interrupted)
    with pytest.raises(KeyboardInterrupt):
        classifier.calibrate(*noisy(), n_draws=5)
    assert state(classifier) == before


def test_without_a_model_there_is_nothing_to_calibrate():
    from sklearn.exceptions import NotFittedError

    for method in ("calibrate", "tune_thresholds"):
        with pytest.raises(NotFittedError):
            getattr(DiffMICClassifier(), method)(*noisy(20))


def test_a_model_without_validation_part_is_calibrated_afterwards():
    X, y = noisy(60, seed=0)
    classifier = DiffMICClassifier(**small(validation_fraction=None)).fit(X, y)
    assert all(c.is_identity for c in classifier.calibrations_.values())
    classifier.calibrate(*noisy())
    assert not any(c.is_identity for c in classifier.calibrations_.values())
    assert classifier.calibrations_["diffusion"].prior_weight > 0  # as the recipe weighs it


def test_a_fit_that_ends_meanwhile_is_kept(classifier, monkeypatch):
    reached, allowed = threading.Event(), threading.Event()
    original = calibrating.recalibrated

    def waiting(*args, **kwargs):
        reached.set()
        assert allowed.wait(60)
        return original(*args, **kwargs)

    monkeypatch.setattr(calibrating, "recalibrated", waiting)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(classifier.calibrate, *noisy())
        assert reached.wait(60)
        try:
            classifier.fit(*stripes(40, n_classes=2))
            new = classifier.model_
        finally:
            allowed.set()
        with pytest.raises(RuntimeError, match="A fit has replaced the model"):
            answer.result(60)
    assert classifier.model_ is new


def test_an_engine_that_is_made_meanwhile_is_kept_with_the_new_calibration(classifier, monkeypatch):
    original = calibrating.recalibrated

    def compiling(*args, **kwargs):
        classifier.compile("plain")
        return original(*args, **kwargs)

    monkeypatch.setattr(calibrating, "recalibrated", compiling)
    classifier.calibrate(*noisy())
    assert classifier.model_.engine.kind == "plain"
    assert classifier.recalibration_ is not None


# --- Sampling options ----------------------------------------------------------------------------


def warned(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(w.message) for w in caught if "The calibration was fitted for" in str(w.message)]


def test_other_sampling_options_than_those_of_the_calibration_are_pointed_out_once(classifier):
    X = noisy(4)[0]
    assert not warned(lambda: classifier.predict_proba(X))
    (message,) = warned(lambda: classifier.predict_proba(X, n_draws=5))
    assert "fitted for n_draws=2" in message
    assert "n_draws=5" in message
    assert not warned(lambda: classifier.predict(X, n_draws=5))
    assert len(warned(lambda: classifier.evaluate(*noisy(20), num_steps=1))) == 1
    # The prior draws nothing.
    assert not warned(lambda: classifier.predict_proba(X, stage="prior", n_draws=7))


def test_options_that_were_calibrated_for_travel_with_the_model(classifier, tmp_path):
    X, y = noisy()
    classifier.calibrate(X, y, n_draws=5)
    assert classifier.n_draws == 5
    assert classifier.model_.sampling == SamplingOptions(3, 5, 1)
    assert not warned(lambda: classifier.predict_proba(X))
    assert warned(lambda: classifier.predict_proba(X, n_draws=2))
    classifier.save_pretrained(tmp_path)
    loaded = DiffMICClassifier.from_pretrained(tmp_path, backbone=TinyBackbone(), device="cpu")
    assert loaded.model_.sampling == SamplingOptions(3, 5, 1)
    assert not warned(lambda: loaded.predict_proba(X))
    assert warned(lambda: loaded.set_params(n_draws=2).predict_proba(X))


def test_probabilities_that_were_never_calibrated_are_not_pointed_out():
    X, y = noisy(30)
    classifier = DiffMICClassifier(**small(validation_fraction=None, max_epochs=1)).fit(X, y)
    assert not warned(lambda: classifier.predict_proba(X, n_draws=9))


# --- Files and card ------------------------------------------------------------------------------


def test_a_calibration_is_saved_and_the_card_says_on_how_many_images(classifier, tmp_path):
    X, y = noisy()
    classifier.card_ = ModelCard(test_scores=classifier.evaluate(X, y), n_test=90)
    classifier.calibrate(X, y)
    assert classifier.card_.test_scores == {}  # they were those of the former calibration
    classifier.save_pretrained(tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert "calibrated anew after the training, on 90 other images" in text
    assert "The figures on the validation part were measured before." in text
    loaded = DiffMICClassifier.from_pretrained(tmp_path, backbone=TinyBackbone(), device="cpu")
    assert loaded.recalibration_ == classifier.recalibration_
    assert_array_equal(loaded.shares_, classifier.shares_)
    assert_array_equal(loaded.predict_proba(X), classifier.predict_proba(X))
    again = copy.deepcopy(loaded)
    assert_array_equal(again.predict_proba(X), classifier.predict_proba(X))


def test_a_further_fit_begins_anew(classifier):
    classifier.calibrate(*noisy()).fit(*stripes(40))
    assert classifier.recalibration_ is None
    assert not any(c.offsets for c in classifier.calibrations_.values())


# --- Thresholds ----------------------------------------------------------------------------------


def test_a_threshold_of_two_classes_decides_everywhere(binary, tmp_path):
    X, y = stripes(80, n_classes=2, seed=2)
    y = np.array(["no", "yes"])[np.where(np.random.RandomState(1).rand(80) < 0.3, 1 - y, y)]
    proba = binary.predict_proba(X)
    assert binary.thresholds_ == {}
    binary.tune_thresholds(X, y, sensitivity=0.95)
    assert_array_equal(binary.predict_proba(X), proba)  # kept apart
    threshold = binary.thresholds_["diffusion"]
    assert threshold.shape == (1,)
    predicted = binary.predict(X)
    assert_array_equal(predicted == "yes", proba[:, 1] >= threshold[0])
    assert (predicted == "yes")[y == "yes"].mean() >= 0.95
    assert binary.score(X, y) == (predicted == y).mean()
    assert binary.evaluate(X, y)["diffusion"]["accuracy"] == pytest.approx((predicted == y).mean())
    assert_array_equal(binary.predict(X, costs="equal") == "yes", proba[:, 1] > 0.5)
    binary.save_pretrained(tmp_path)
    assert (
        "Thresholds were chosen for a sensitivity of 0.95." in (tmp_path / "README.md").read_text()
    )
    loaded = DiffMICClassifier.from_pretrained(tmp_path, backbone=TinyBackbone(), device="cpu")
    assert loaded.model_.aim == binary.model_.aim
    assert_array_equal(loaded.predict(X), predicted)


def test_a_calibration_keeps_the_aim_of_the_thresholds(binary):
    X, y = stripes(80, n_classes=2, seed=2)
    y = np.array(["no", "yes"])[np.where(np.random.RandomState(1).rand(80) < 0.3, 1 - y, y)]
    binary.calibrate(X, y)
    assert binary.thresholds_ == {}
    binary.calibrate(X, y, specificity=0.9)
    binary.calibrate(X, y, n_draws=3)
    predicted = binary.predict(X)
    assert (predicted == "no")[y == "no"].mean() >= 0.9
    assert binary.model_.aim.specificity == 0.9


def test_each_label_has_a_threshold_for_the_aim(fitted_multilabel):
    classifier = copy.deepcopy(fitted_multilabel)
    X, y = stripes(90, seed=4)
    y = (y[:, None] == [0, 1]).astype(float)
    y[::9, 0] = np.nan
    proba = classifier.predict_proba(X)
    for aim in ({}, {"aim": "youden"}, {"sensitivity": 0.9}, {"specificity": 0.9}):
        classifier.tune_thresholds(X, y, **aim)
        predicted = classifier.predict(X)
        assert_array_equal(predicted, proba >= classifier.thresholds_["diffusion"])
        for label in range(2):
            positive, negative = y[:, label] == 1, y[:, label] == 0
            assert predicted[positive, label].mean() >= aim.get("sensitivity", 0)
            assert 1 - predicted[negative, label].mean() >= aim.get("specificity", 0)


def test_it_is_said_where_an_aim_is_not_reached(fitted_multilabel):
    classifier = copy.deepcopy(fitted_multilabel)
    X, y = stripes(60, seed=4)
    rng = np.random.RandomState(0)
    y = np.column_stack([rng.rand(60) < 0.5, np.zeros(60)]).astype(int)
    before = classifier.thresholds_["prior"][1]
    with pytest.warns(DiffMICWarning, match="not reached for 2 of 2 labels.*at best.*as before"):
        classifier.tune_thresholds(X, y, sensitivity=0.95, specificity=0.95)
    assert classifier.thresholds_["prior"][1] == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"aim": "auc"}, "aim is 'auc'"),
        ({"aim": "f1", "sensitivity": 0.9}, "one or the other"),
        ({"sensitivity": 95}, "sensitivity is 95"),
        ({"specificity": 0}, "specificity is 0"),
        ({"specificity": "high"}, "specificity is 'high'"),
    ],
)
def test_aims_that_are_none_are_refused(fitted_multilabel, arguments, message):
    X, y = stripes(20)
    y = (y[:, None] == [0, 1]).astype(int)
    with pytest.raises(InputError, match=message):
        fitted_multilabel.tune_thresholds(X, y, **arguments)
    with pytest.raises(InputError, match=message):
        fitted_multilabel.calibrate(X, y, **arguments)


def test_several_exclusive_classes_have_no_thresholds(fitted):
    with pytest.raises(InputError, match=r"3 exclusive classes.*costs"):
        fitted.tune_thresholds(*noisy(30))


def test_files_hold_no_more_than_what_was_calibrated(fitted, tmp_path):
    fitted.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["recalibration"] is None
    assert config["shares"] == pytest.approx(fitted.shares_.tolist())
    assert all("offsets" not in c for c in config["calibrations"].values())


def test_a_calibration_of_ones_own_is_fitted_anew():
    X, y = noisy(60, seed=0)
    recipe = replace(RECIPE, calibration=LogisticRegression())
    classifier = DiffMICClassifier(**small(recipe=recipe)).fit(X, y)
    before = classifier.calibrations_["diffusion"]
    classifier.calibrate(*noisy())
    after = classifier.calibrations_["diffusion"]
    assert isinstance(after.part, LogisticRegression)
    assert after.stacked == before.stacked
    assert (after.part.coef_ != before.part.coef_).any()
    np.testing.assert_allclose(classifier.predict_proba(X).sum(axis=1), 1)


def test_abstention_is_of_the_images_of_the_calibration(classifier):
    X, y = noisy(200, seed=5)
    classifier.calibrate(X, y)
    left = [label is None for label in classifier.predict(X, abstain=0.3)]
    assert np.mean(left) == pytest.approx(0.3, abs=0.05)
    proba = classifier.predict_proba(X).max(axis=1)
    assert proba[left].max() <= proba[~np.array(left)].min()
    with pytest.raises(InputError, match="give one or the other"):
        classifier.predict(X, abstain=0.3, costs="equal")


def test_abstention_knows_new_thresholds(fitted_multilabel):
    classifier = copy.deepcopy(fitted_multilabel)
    X, y = stripes(200, seed=4)
    classifier.tune_thresholds(X, (y[:, None] == [0, 1]).astype(int), sensitivity=0.9)
    for prevalence in (None, [0.8, 0.1]):  # the same images pass, so the same are left open
        left = np.isnan(classifier.predict(X, abstain=0.2, prevalence=prevalence)).mean(axis=0)
        np.testing.assert_allclose(left, 0.2, atol=0.05)


def test_prediction_sets_have_to_be_prepared_again(classifier):
    classifier.conformalize(*noisy(60, seed=8))
    with pytest.warns(DiffMICWarning, match="call conformalize again"):
        classifier.calibrate(*noisy())
    with pytest.raises(InputError, match="conformalize"):
        classifier.predict_set(noisy()[0])


def test_the_diffusion_alone_is_calibrated_too(classifier):
    X, y = noisy()
    before = classifier.evaluate(X, y, n_bootstrap=0)["diffusion_alone"]["nll"]
    classifier.calibrate(X, y)
    after = classifier.evaluate(X, y, n_bootstrap=0)["diffusion_alone"]["nll"]
    assert after < before
    assert classifier.recalibration_.nll_before["diffusion_alone"] == pytest.approx(before)


def test_an_uncertainty_of_more_draws_is_no_surprise(classifier):
    assert not warned(lambda: classifier.predict_uncertainty(noisy(4)[0]))
