"""Other populations, costs and grades, through the estimator."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import NotFittedError
from sklearn.metrics import cohen_kappa_score
from tiny import TinyBackbone, small, stripes

from diffmic import DiffMICClassifier, DiffMICWarning, InputError
from diffmic.inference import Calibration, PrevalenceEstimate

pytestmark = pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")
SHARES = {"across": 0.2, "up": 0.1, "none": 0.7}


@pytest.fixture(scope="module")
def named():
    """Classes that are words, with other names for display."""
    X, y = stripes(60)
    y = np.where(np.random.RandomState(0).rand(60) < 0.2, (y + 1) % 3, y)
    classifier = DiffMICClassifier(
        **small(max_epochs=8), class_names={"across": "Across", "up": "Upright", "none": "None"}
    )
    return classifier.fit(X, np.array(["across", "up", "none"])[y])


@pytest.fixture(scope="module")
def graded():
    X, y = stripes(80)
    y = np.where(np.random.RandomState(0).rand(80) < 0.3, (y + 1) % 3, y)
    return DiffMICClassifier(**small(max_epochs=8, task="ordinal")).fit(X, y + 1)


def corrected(classifier, X, shares, stage="diffusion"):
    joint = classifier.predict_proba(X, stage=stage) * shares / classifier.shares_
    return joint / joint.sum(axis=1, keepdims=True)


def test_shares_are_those_of_the_training_part(fits):
    X, y = stripes(60)
    weights = 1.0 + (y == 2)
    clf = DiffMICClassifier(**small(max_epochs=1, class_weight={0: 3.0}))
    clf.fit(X, y, sample_weight=weights)
    (_, training, _, _) = fits[-1]
    counts = training.targets.sum(dim=0).numpy() * [3.0, 1.0, 2.0]
    assert_allclose(clf.shares_, counts / counts.sum(), rtol=1e-5)


@pytest.mark.parametrize("stage", ["prior", "diffusion"])
def test_probabilities_are_those_of_saerens(named, new_images, stage):
    X = new_images[0]
    expected = corrected(named, X, [SHARES[name] for name in named.classes_], stage)
    found = named.predict_proba(X, prevalence=SHARES, stage=stage)
    assert_allclose(found, expected)
    assert_allclose(found.sum(axis=1), 1)
    assert_allclose(np.exp(named.predict_log_proba(X, prevalence=SHARES, stage=stage)), expected)
    likeliest = named.classes_[expected.argmax(axis=1)]
    assert_array_equal(named.predict(X, prevalence=SHARES, stage=stage), likeliest)
    metrics = named.evaluate(X, likeliest, prevalence=SHARES)[stage]
    assert metrics["accuracy"] == 1


def test_shares_may_be_given_in_many_ways(named, new_images):
    X = new_images[0][:5]
    expected = named.predict_proba(X, prevalence=SHARES)
    shares = [SHARES[name] for name in named.classes_]
    for given in (
        shares,
        tuple(shares),
        np.array(shares),
        pandas.Series(SHARES),
        {"Across": 0.2, "Upright": 0.1, "None": 0.7},
        {"across": 0.2, "up": 0.1},  # the rest is for the third
    ):
        assert_allclose(named.predict_proba(X, prevalence=given), expected)


def test_the_shares_of_the_training_change_nothing(named, new_images):
    X = new_images[0]
    same = named.predict_proba(X, prevalence=named.shares_)
    assert_allclose(same, named.predict_proba(X), atol=1e-12)


def test_a_class_that_does_not_occur_has_no_probability(named, new_images):
    proba = named.predict_proba(new_images[0], prevalence={"across": 0, "up": 0.5, "none": 0.5})
    assert (proba[:, named.classes_.tolist().index("across")] == 0).all()
    assert np.isfinite(proba).all()


@pytest.mark.parametrize(
    ("prevalence", "message"),
    [
        ({"across": 0.5, "sideways": 0.5}, "'sideways', which is no class.*'Across'"),
        ({"across": 1.0}, r"lacks the classes \['None', 'Upright'\]"),
        ({"across": 0.9, "up": 0.9}, "lacks|sum to"),
        ({"across": 0.1, "Across": 0.1, "up": 0.8}, "twice"),
        ([0.5, 0.5], "2 shares, but there are 3"),
        ([0.5, 0.4, 0.4], "sum to 1.3"),
        ([20, 10, 70], "Divide percentages by 100"),
        ([-0.2, 0.2, 1.0], "between 0 and 1"),
        ([np.nan, 0.5, 0.5], "between 0 and 1"),
        (["a", "b", "c"], "give a number"),
        ([True, False, False], "give a number"),
        (0.3, "give a dict"),
        ("even", "give a dict"),
        ({0.2, 0.1, 0.7}, "give a dict"),
        (iter([0.2, 0.1, 0.7]), "give a dict"),
        ([[0.2, 0.1, 0.7]], "give a number|1 shares"),
        (pandas.DataFrame({"across": [0.2]}), "table|number"),
    ],
)
def test_shares_that_cannot_be_used_are_refused(named, new_images, prevalence, message):
    for method in ("predict_proba", "predict", "predict_log_proba"):
        if hasattr(prevalence, "__next__") and method != "predict_proba":
            continue
        with pytest.raises(InputError, match=message):
            getattr(named, method)(new_images[0][:2], prevalence=prevalence)


def test_a_model_without_shares_says_what_to_do(fitted, new_images):
    older = copy.copy(fitted)
    older.model_ = replace(fitted.model_, shares=None)
    X = new_images[0][:2]
    for call in (
        lambda: older.predict_proba(X, prevalence=[0.2, 0.3, 0.5]),
        lambda: older.estimate_prevalence(X),
        lambda: older.predict(X, costs="balanced"),
    ):
        with pytest.raises(InputError, match=r"calibrate\(X, y\)"):
            call()
    assert older.predict(X, costs="equal").tolist() == fitted.predict(X).tolist()
    assert older.predict(X, costs=1 - np.eye(3)).tolist() == fitted.predict(X).tolist()


def test_a_share_of_a_class_that_was_never_seen_is_refused(fitted, new_images):
    blind = copy.copy(fitted)
    blind.model_ = replace(fitted.model_, shares=np.array([0.5, 0.5, 0.0]))
    with pytest.raises(InputError, match=r"trained without images of \['2'\]"):
        blind.predict_proba(new_images[0], prevalence=[0.2, 0.3, 0.5])
    blind.predict_proba(new_images[0], prevalence=[0.7, 0.3, 0.0])
    with pytest.raises(InputError, match="weighs an error by one over the share"):
        blind.predict(new_images[0], costs="balanced")


def test_labels_have_shares_of_their_own(fitted_multilabel, new_images):
    X = new_images[0]
    p, s = fitted_multilabel.predict_proba(X), fitted_multilabel.shares_
    found = fitted_multilabel.predict_proba(X, prevalence={0: 0.9})
    odds = p[:, 0] / (1 - p[:, 0]) * (0.9 / 0.1) / (s[0] / (1 - s[0]))
    assert_allclose(found[:, 0], odds / (1 + odds))
    assert_allclose(found[:, 1], p[:, 1])
    # A threshold is an operating point: it moves along.
    assert_array_equal(
        fitted_multilabel.predict(X, prevalence=[0.9, 0.2]), fitted_multilabel.predict(X)
    )
    assert not fitted_multilabel.predict(X, prevalence=[0.0, 0.2])[:, 0].any()


# --- Estimated shares ----------------------------------------------------------------------------


def test_shares_of_another_population_are_estimated(named):
    X, y = stripes(600, seed=5)
    y = np.where(np.random.RandomState(0).rand(600) < 0.2, (y + 1) % 3, y)
    shifted = np.r_[
        np.flatnonzero(y == 0)[:40], np.flatnonzero(y == 1), np.flatnonzero(y == 2)[:60]
    ]
    named = copy.deepcopy(named).calibrate(X, np.array(["across", "up", "none"])[y])
    found = named.estimate_prevalence(X[shifted], n_bootstrap=30)
    assert isinstance(found, PrevalenceEstimate)
    assert found.converged
    true = np.bincount(y[shifted]) / len(shifted)
    for name, share in zip(("across", "up", "none"), true, strict=True):
        assert abs(found.to_dict()[name] - share) < 0.15  # it was 0.33 in training
    assert (found.standard_error > 0).all()
    frame = found.to_frame()
    assert frame.index.tolist() == ["Across", "None", "Upright"]
    assert frame.columns.tolist() == ["share", "training_share", "standard_error"]
    # It can be passed on, and gains likelihood.
    words = np.array(["across", "up", "none"])[y[shifted]]
    before = named.evaluate(X[shifted], words)["diffusion"]["nll"]
    assert named.evaluate(X[shifted], words, prevalence=found)["diffusion"]["nll"] < before - 0.02


def test_an_estimate_depends_on_neither_order_nor_batches(named, new_images):
    X = new_images[0]
    found = named.estimate_prevalence(X)
    assert_allclose(named.estimate_prevalence(X[::-1].copy()).shares, found.shares, atol=1e-6)
    assert found.standard_error is None
    assert found.n_images == len(X)
    one = named.estimate_prevalence(X[:1])
    assert one.shares.sum() == pytest.approx(1)


def test_uncalibrated_probabilities_are_pointed_out(fitted, new_images):
    plain = copy.copy(fitted)
    plain.model_ = replace(
        fitted.model_, calibrations={"prior": Calibration(), "diffusion": Calibration()}
    )
    with pytest.warns(DiffMICWarning, match="not calibrated"):
        plain.estimate_prevalence(new_images[0])


def test_what_is_no_number_of_resamples_is_refused(named, new_images):
    for n in (-1, 1, 2.5, "many"):
        with pytest.raises(InputError, match="n_bootstrap"):
            named.estimate_prevalence(new_images[0], n_bootstrap=n)
    with pytest.raises(InputError, match="stage"):
        named.estimate_prevalence(new_images[0], stage="both")
    with pytest.raises(NotFittedError):
        DiffMICClassifier().estimate_prevalence(new_images[0])


def test_an_estimate_of_other_classes_is_refused(named, fitted, new_images):
    with pytest.raises(InputError, match="an estimate for the classes"):
        named.predict_proba(new_images[0], prevalence=fitted.estimate_prevalence(new_images[0]))


# --- Costs ---------------------------------------------------------------------------------------


def test_costs_are_aligned_by_name(named, new_images):
    X = new_images[0]
    order = named.classes_.tolist()
    costs = np.array([[0, 1, 5], [2, 0, 1], [9, 3, 0]], float)
    expected = named.classes_[(named.predict_proba(X) @ costs).argmin(axis=1)]
    assert_array_equal(named.predict(X, costs=costs), expected)
    frame = pandas.DataFrame(costs, index=order, columns=order)
    shuffled = frame.loc[["up", "across", "none"], ["none", "up", "across"]]
    assert_array_equal(named.predict(X, costs=shuffled), expected)
    shown = shuffled.rename(columns={"up": "Upright"}, index={"none": "None"})
    assert_array_equal(named.predict(X, costs=shown), expected)
    # To take an image for "up" costs nothing, whatever it is.
    free = pandas.DataFrame(1.0, index=order, columns=order).assign(up=0.0)
    assert set(named.predict(X, costs=free)) == {"up"}


def test_balanced_costs_divide_by_the_shares(named, new_images):
    X = new_images[0]
    expected = named.classes_[(named.predict_proba(X) / named.shares_).argmax(axis=1)]
    assert_array_equal(named.predict(X, costs="balanced"), expected)
    metrics = named.evaluate(X, named.predict(X, costs="balanced"), costs="balanced")
    assert metrics["diffusion"]["accuracy"] == metrics["diffusion"]["macro_f1"] == 1
    # They do not depend on the population.
    assert_array_equal(named.predict(X, costs="balanced", prevalence=SHARES), expected)
    assert_array_equal(named.predict(X, costs="equal"), named.predict(X))


def test_costs_of_labels(fitted_multilabel, new_images):
    X = new_images[0]
    proba = fitted_multilabel.predict_proba(X)
    found = fitted_multilabel.predict(X, costs=[[0, 1], [4, 0]])
    assert_array_equal(found, (proba >= 0.2).astype(int))
    each = [[[0, 1], [4, 0]], [[0, 4], [1, 0]]]
    assert_array_equal(fitted_multilabel.predict(X, costs=each), (proba >= [0.2, 0.8]).astype(int))
    balanced = fitted_multilabel.predict(X, costs="balanced")
    assert_array_equal(balanced, (proba >= fitted_multilabel.shares_).astype(int))
    assert_array_equal(fitted_multilabel.predict(X, costs="equal"), (proba >= 0.5).astype(int))


@pytest.mark.parametrize(
    ("costs", "message"),
    [
        ("cheap", "give a matrix, or one of"),
        ("quadratic", "no order"),
        (np.eye(2), r"shape \(2, 2\); give \(3, 3\): a row for each true class"),
        (np.full((3, 3), np.nan), "finite"),
        ([["a"] * 3] * 3, "matrix of numbers"),
        ([1, 2, 3], r"shape \(3,\)"),
        (pandas.DataFrame(np.eye(3)), "among its rows, names 0"),
        (pandas.DataFrame(np.eye(3), index=["up", "up", "none"]), "twice"),
        (pandas.DataFrame(np.eye(2), index=["up", "none"]), r"lacks rows.*\['Across'\]"),
        (SimpleNamespace(columns=["up", "none", "across"]), "without names of its rows"),  # polars
    ],
)
def test_costs_that_cannot_be_used_are_refused(named, new_images, costs, message):
    with pytest.raises(InputError, match=message):
        named.predict(new_images[0][:2], costs=costs)


def test_costs_of_labels_that_cannot_be_used_are_refused(fitted_multilabel, new_images):
    for costs in (np.eye(3), np.zeros((3, 2, 2)), pandas.DataFrame(np.eye(2))):
        with pytest.raises(InputError, match="2, 2"):
            fitted_multilabel.predict(new_images[0], costs=costs)


# --- Grades --------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["prior", "diffusion"])
def test_grades_are_decided_by_cut_points_on_the_expected_grade(graded, new_images, stage):
    X = new_images[0]
    expected = graded.predict_grade(X, stage=stage)
    proba = graded.predict_proba(X, stage=stage)
    assert_allclose(expected, proba @ [1, 2, 3])  # in units of the labels
    cuts = graded.thresholds_[stage]
    assert cuts.shape == (2,)
    assert_array_equal(
        graded.predict(X, stage=stage), 1 + (expected[:, None] - 1 >= cuts).sum(axis=1)
    )
    assert_array_equal(
        graded.predict(X, costs="quadratic", stage=stage), expected.round().astype(int)
    )
    y = np.random.RandomState(0).randint(1, 4, len(X))
    kappa = cohen_kappa_score(y, graded.predict(X, stage=stage), weights="quadratic")
    assert graded.evaluate(X, y)[stage]["kappa"] == pytest.approx(kappa)


def test_cut_points_are_saved_and_older_files_without_them_decide_as_they_did(
    graded, new_images, tmp_path
):
    import json

    graded.save_pretrained(tmp_path)
    loaded = DiffMICClassifier.from_pretrained(tmp_path, backbone=TinyBackbone(), device="cpu")
    assert_array_equal(loaded.predict(new_images[0]), graded.predict(new_images[0]))
    assert_array_equal(loaded.thresholds_["prior"], graded.thresholds_["prior"])
    config = json.loads((tmp_path / "config.json").read_text())
    lacks = {"thresholds": {}, "diffusion_alone": None}
    (tmp_path / "config.json").write_text(json.dumps(config | lacks))
    older = DiffMICClassifier.from_pretrained(tmp_path, backbone=TinyBackbone(), device="cpu")
    proba = older.predict_proba(new_images[0])
    assert_array_equal(older.predict(new_images[0]), 1 + proba.argmax(axis=1))
    for wrong in ([0.5], [1.5, 0.5], [0.5, 9.0], [0.5, "a"]):
        broken = config | {"thresholds": {stage: wrong for stage in ("prior", "diffusion")}}
        (tmp_path / "config.json").write_text(json.dumps(broken))
        with pytest.raises(ValueError, match="thresholds of"):
            DiffMICClassifier.from_pretrained(tmp_path, backbone=TinyBackbone(), device="cpu")


def test_cut_points_follow_the_mean_grade_of_a_population(graded, new_images):
    X, prevalence = new_images[0], [0.1, 0.1, 0.8]
    proba = graded.predict_proba(X, prevalence=prevalence)
    cuts = graded.model_.thresholds_of("diffusion", np.array(prevalence))
    predicted = 1 + ((proba @ [0, 1, 2])[:, None] >= cuts).sum(axis=1)
    assert_array_equal(graded.predict(X, prevalence=prevalence), predicted)
    assert_allclose(graded.predict_grade(X, prevalence=prevalence), proba @ [1, 2, 3])


def test_a_calibration_chooses_new_cut_points(graded):
    graded = copy.deepcopy(graded)
    before = graded.thresholds_["diffusion"]
    X, y = stripes(90, seed=7)
    graded.calibrate(X, np.where(np.random.RandomState(0).rand(90) < 0.6, 1, y + 1))
    assert (graded.thresholds_["diffusion"] != before).any()


def test_an_ordered_categorical_is_ordinal_and_an_unordered_one_is_not():
    X, y = stripes(40)
    words = np.array(["none", "mild", "severe"])[y]
    order = ["none", "mild", "severe"]
    ordered = pandas.Categorical(words, order, ordered=True)
    for labels in (ordered, pandas.Series(ordered), pandas.DataFrame({"grade": ordered})):
        clf = DiffMICClassifier(**small(max_epochs=1)).fit(X, labels)
        assert clf.task_.name == "ordinal"
        assert clf.classes_.tolist() == order
    grades = clf.predict_grade(X)
    assert_allclose(grades, clf.predict_proba(X) @ [0, 1, 2])
    assert grades.min() >= 0
    assert grades.max() <= 2
    plain = pandas.Categorical(words, order)
    assert DiffMICClassifier(**small(max_epochs=1)).fit(X, plain).task_.name == "multiclass"
    multiclass = DiffMICClassifier(**small(max_epochs=1, task="multiclass")).fit(X, ordered)
    assert multiclass.task_.name == "multiclass"


def test_two_grades_have_one_cut_point():
    X, y = stripes(40, n_classes=2)
    clf = DiffMICClassifier(**small(max_epochs=2, task="ordinal")).fit(X, y)
    assert clf.thresholds_["prior"].shape == (1,)
    same = clf.predict(X)
    assert_array_equal(clf.predict(X, prevalence=[0.9, 0.1]), same)
    clf.tune_thresholds(X, y, sensitivity=1.0)
    assert clf.predict(X)[y == 1].all()


def test_without_a_validation_part_the_expected_grade_is_rounded():
    X, y = stripes(40)
    clf = DiffMICClassifier(**small(max_epochs=1, task="ordinal", validation_fraction=None))
    clf.fit(X, y)
    assert clf.thresholds_["prior"].tolist() == [0.5, 1.5]


def test_classes_without_order_have_no_grade(fitted, fitted_multilabel, new_images):
    for classifier in (fitted, fitted_multilabel):
        with pytest.raises(InputError, match="are no grades"):
            classifier.predict_grade(new_images[0])


def test_an_enumeration_of_polars_has_an_order_but_does_not_say_that_it_means_it():
    polars = pytest.importorskip("polars")
    X, y = stripes(40)
    order = ["none", "mild", "severe"]
    enum = polars.Series(np.array(order)[y].tolist(), dtype=polars.Enum(order))
    plain = DiffMICClassifier(**small(max_epochs=1)).fit(X, enum)
    assert plain.task_.name == "multiclass"
    asked = DiffMICClassifier(**small(max_epochs=1, task="ordinal")).fit(X, enum)
    assert asked.classes_.tolist() == order
    shares = polars.Series([0.2, 0.1, 0.7])
    assert_allclose(
        asked.predict_proba(X, prevalence=shares),
        asked.predict_proba(X, prevalence=[0.2, 0.1, 0.7]),
    )
    with pytest.raises(InputError, match="without names of its rows"):
        asked.predict(X, costs=polars.DataFrame({name: [0.0, 1.0, 1.0] for name in order}))
