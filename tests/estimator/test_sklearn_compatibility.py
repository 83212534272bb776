"""A DiffMICClassifier among scikit-learn's tools, on arrays of images."""

import copy
import pickle

import joblib
import numpy as np
import pytest
import sklearn
import torch
from mapie.classification import SplitConformalClassifier
from numpy.testing import assert_array_equal
from sklearn.base import clone, is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    TunedThresholdClassifierCV,
    cross_val_predict,
    cross_val_score,
)
from sklearn.pipeline import Pipeline, make_pipeline, make_union
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import get_tags
from tiny import TinyBackbone, small, stripes

from diffmic import DiffMICClassifier

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")]


def tiny_classifier(**parameters):
    return DiffMICClassifier(**small(max_epochs=10, augment=None, **parameters))


def scaled(images):
    return images / 255


@pytest.mark.parametrize("backbone", ["resnet18", TinyBackbone()], ids=["name", "module"])
def test_a_clone_has_equal_parameters_and_is_not_fitted(backbone):
    classifier = tiny_classifier(backbone=backbone, class_names=("a", "b"))
    cloned = clone(classifier)
    assert not hasattr(cloned, "network_")
    for name, value in classifier.get_params().items():
        other = cloned.get_params()[name]
        if isinstance(value, torch.nn.Module):
            assert other is not value
            assert type(other) is type(value)
            pairs = zip(other.state_dict().values(), value.state_dict().values(), strict=True)
            assert all(torch.equal(a, b) for a, b in pairs)
        else:
            assert other == value, name


def test_a_clone_of_a_fitted_classifier_learns_the_same(images, new_images):
    classifier = tiny_classifier().fit(*images)
    again = clone(classifier).fit(*images)
    X = new_images[0]
    assert_array_equal(again.predict_proba(X), classifier.predict_proba(X))


def test_parameters_can_be_set_and_read():
    classifier = DiffMICClassifier()
    assert classifier.set_params(num_steps=3, backbone="resnet18") is classifier
    assert (classifier.get_params()["num_steps"], classifier.backbone) == (3, "resnet18")
    with pytest.raises(ValueError, match="steps"):
        classifier.set_params(steps=3)


def test_the_representation_shows_what_differs_from_the_defaults():
    classifier = DiffMICClassifier(num_steps=3, backbone="resnet18")
    assert repr(classifier) == "DiffMICClassifier(backbone='resnet18', num_steps=3)"
    assert "DiffMICClassifier" in classifier._repr_html_()


def test_the_tags_say_what_the_classifier_takes():
    tags = get_tags(DiffMICClassifier())
    assert is_classifier(DiffMICClassifier())
    assert not tags.input_tags.two_d_array
    assert tags.input_tags.three_d_array
    assert tags.classifier_tags.multi_class
    assert tags.classifier_tags.multi_label
    assert tags.target_tags.required
    assert tags.transformer_tags.preserves_dtype == ["float32"]


def test_a_fitted_classifier_does_not_count_features(fitted):
    assert not hasattr(fitted, "n_features_in_")


def test_cross_validation_works():
    X, y = stripes(90)
    assert np.mean(cross_val_score(tiny_classifier(), X, y, cv=3)) > 0.9


def test_every_image_gets_probabilities_from_cross_validation():
    X, y = stripes(60)
    proba = cross_val_predict(tiny_classifier(), X[:, None], y, cv=2, method="predict_proba")
    assert proba.shape == (60, 3)


def test_metadata_reach_fit_through_cross_validation():
    X, y = stripes(60)
    weights = np.where(np.arange(60) % 2, 1.0, 0.5)
    scores = cross_val_score(tiny_classifier(), X, y, cv=2, params={"sample_weight": weights})
    assert scores.shape == (2,)


def test_a_grid_search_finds_the_better_parameters():
    X, y = stripes(60)
    grid = {"learning_rate": [1e-2], "max_epochs": [1, 10]}
    search = GridSearchCV(tiny_classifier(), grid, cv=2, n_jobs=1).fit(X, y)
    assert search.best_params_ == {"learning_rate": 1e-2, "max_epochs": 10}
    assert search.predict(X).shape == (60,)


def test_a_pipeline_may_end_with_the_classifier(images, new_images):
    pipeline = Pipeline(
        [("scale", FunctionTransformer(scaled)), ("classifier", tiny_classifier())]
    ).fit(*images)
    expected = tiny_classifier().fit(scaled(images[0]), images[1])
    assert_array_equal(
        pipeline.predict_proba(new_images[0]), expected.predict_proba(scaled(new_images[0]))
    )
    assert pipeline.set_params(classifier__num_steps=1).predict(new_images[0]).shape == (30,)


def test_a_pipeline_may_use_the_embeddings(images, new_images):
    pipeline = make_pipeline(tiny_classifier(), LogisticRegression()).fit(*images)
    assert pipeline.score(*new_images) > 0.9


def test_fit_transform_gives_the_embeddings(images):
    classifier = tiny_classifier()
    assert_array_equal(classifier.fit_transform(*images), classifier.transform(images[0]))


def with_joblib(classifier, folder):
    joblib.dump(classifier, folder / "classifier.joblib")
    return joblib.load(folder / "classifier.joblib")


COPIES = pytest.mark.parametrize(
    "copied",
    [
        lambda classifier, folder: pickle.loads(pickle.dumps(classifier)),
        lambda classifier, folder: copy.deepcopy(classifier),
        lambda classifier, folder: copy.copy(classifier),
        with_joblib,
    ],
    ids=["pickle", "deepcopy", "copy", "joblib"],
)


@COPIES
@pytest.mark.parametrize("name", ["fitted", "fitted_multilabel"])
def test_a_copy_keeps_probabilities_decisions_and_record(
    request, name, new_images, copied, tmp_path
):
    classifier = request.getfixturevalue(name)
    other = copied(classifier, tmp_path)
    X = new_images[0]
    for stage in ("prior", "diffusion"):
        expected = classifier.predict_proba(X, stage=stage)
        assert_array_equal(other.predict_proba(X, stage=stage), expected)
        assert_array_equal(other.predict(X, stage=stage), classifier.predict(X, stage=stage))
    assert other.task_ is classifier.task_
    assert other.calibrations_ == classifier.calibrations_
    assert other.validation_scores_ == classifier.validation_scores_
    assert other.history_ == classifier.history_
    assert other.card_ == classifier.card_
    assert other.model_.engine.kind == classifier.model_.engine.kind


@pytest.mark.parametrize("engine", ["plain", "auto"])
@COPIES
def test_a_copy_is_run_by_an_engine_of_the_same_kind(fitted, new_images, copied, engine, tmp_path):
    classifier = copy.deepcopy(fitted).compile(engine)
    other = copied(classifier, tmp_path)
    assert other.model_.engine.kind == engine
    if engine == "plain":
        assert other.model_.engine.network is other.network_
    assert_array_equal(other.predict_proba(new_images[0]), classifier.predict_proba(new_images[0]))


def test_a_clone_is_not_fitted_and_leaves_the_original_fitted(fitted):
    assert not hasattr(clone(fitted), "model_")
    assert hasattr(fitted, "model_")


@COPIES
def test_a_copy_predicts_the_same_and_can_be_fitted_on(
    fitted, images, new_images, copied, tmp_path
):
    other = copied(fitted, tmp_path)
    expected = fitted.predict_proba(new_images[0])
    assert_array_equal(other.predict_proba(new_images[0]), expected)
    other.set_params(warm_start=True, learning_rate=1e-4, max_epochs=2).fit(*images)
    assert other.score(*new_images) > 0.8
    assert_array_equal(fitted.predict_proba(new_images[0]), expected)


@pytest.mark.parametrize("method", ["sigmoid", "isotonic", "temperature"])
def test_a_frozen_classifier_can_be_calibrated_by_scikit_learn(fitted, new_images, method):
    X, y = new_images
    calibrated = CalibratedClassifierCV(FrozenEstimator(fitted), method=method).fit(X[:, None], y)
    proba = calibrated.predict_proba(X[:, None])
    assert proba.shape == (30, 3)
    assert (proba.argmax(axis=1) == y).mean() >= 0.9


def test_mapie_makes_prediction_sets_that_cover_the_truth(fitted):
    X, y = stripes(400, seed=2)
    X = X[:, None]
    conformal = SplitConformalClassifier(fitted, confidence_level=0.9, prefit=True)
    conformal.conformalize(X[:200], y[:200])
    predicted, sets = conformal.predict_set(X[200:])
    assert_array_equal(predicted, fitted.predict(X[200:]))
    assert sets.shape == (200, 3, 1)
    assert 0.85 < sets[range(200), y[200:], 0].mean() < 0.95


def test_changing_what_is_pickled_leaves_the_estimator_alone(fitted):
    other = copy.copy(fitted)
    other.__getstate__().pop("model_")
    assert hasattr(other, "network_")


# --- Logarithms and named embeddings -------------------------------------------------------------


@pytest.mark.parametrize("stage", ["prior", "diffusion"])
@pytest.mark.parametrize("name", ["fitted", "fitted_multilabel"])
def test_logarithms_are_those_of_the_probabilities(request, name, new_images, stage):
    classifier, X = request.getfixturevalue(name), new_images[0]
    options = {"num_steps": 2, "n_draws": 1, "stage": stage}
    expected = classifier.predict_proba(X, **options)
    np.testing.assert_allclose(np.exp(classifier.predict_log_proba(X, **options)), expected)
    with pytest.raises(NotFittedError):
        DiffMICClassifier().predict_log_proba(X)


def test_a_probability_of_zero_has_no_warning(fitted, new_images, monkeypatch):
    monkeypatch.setattr(type(fitted), "predict_proba", lambda *_, **__: np.array([[0.0, 1.0]]))
    with np.errstate(all="raise"):
        assert fitted.predict_log_proba(new_images[0]).tolist() == [[-np.inf, 0.0]]


def test_embeddings_are_a_frame_of_named_columns_where_one_is_wanted(fitted, new_images):
    X, plain = new_images[0], fitted.transform(new_images[0])
    framed = copy.copy(fitted).set_output(transform="pandas")
    names = [f"diffmicclassifier{number}" for number in range(plain.shape[1])]
    assert framed.get_feature_names_out().tolist() == framed.transform(X).columns.tolist() == names
    assert_array_equal(framed.transform(X).to_numpy(), plain)
    with sklearn.config_context(transform_output="pandas"):
        assert fitted.transform(X).columns.tolist() == names
    assert isinstance(fitted.transform(X), np.ndarray)
    with pytest.raises(NotFittedError):
        DiffMICClassifier().get_feature_names_out()


def test_names_of_embeddings_go_through_pipelines_and_unions(images):
    new = tiny_classifier(feature_dim=8)
    pipeline = make_pipeline(new, LogisticRegression()).set_output(transform="pandas").fit(*images)
    assert pipeline[-1].feature_names_in_[1] == "diffmicclassifier1"
    union = make_union(new, clone(new)).fit(*images)
    assert union.get_feature_names_out()[-1] == "diffmicclassifier-2__diffmicclassifier15"
    assert cross_val_predict(new, *images, cv=2, method="predict_log_proba").shape == (60, 3)


# --- Groups, and scikit-learn's other classifiers ------------------------------------------------


def test_groups_reach_the_split_inside_of_a_fit_by_routing(monkeypatch):
    (X, y), groups, seen = stripes(40), np.repeat(np.arange(20), 2), []
    fit = DiffMICClassifier.fit

    def noticed(self, X, y, **given):
        seen.append(given)
        return fit(self, X, y, **given)

    new = DiffMICClassifier(**small(max_epochs=1))
    monkeypatch.setattr(DiffMICClassifier, "fit", noticed)
    cross_val_score(new, X, y, cv=GroupKFold(2), groups=groups, params={"groups": groups})
    with sklearn.config_context(enable_metadata_routing=True):
        routed = clone(new).set_fit_request(groups=True)
        cross_val_score(routed, X, y, cv=GroupKFold(2), params={"groups": groups})
        GridSearchCV(routed, {"max_epochs": [1]}, cv=GroupKFold(2)).fit(X, y, groups=groups)
    assert len(seen) == 2 + 2 + 3
    assert all(len(given["groups"]) in (20, 40) for given in seen)


@pytest.mark.parametrize(
    "made",
    [
        lambda new: VotingClassifier([("a", new), ("b", clone(new))], voting="soft"),
        lambda new: StackingClassifier([("a", new)], LogisticRegression(), cv=2),
        lambda new: CalibratedClassifierCV(new, cv=2),
        lambda new: TunedThresholdClassifierCV(new, cv=2),
    ],
    ids=["voting", "stacking", "calibrated", "threshold"],
)
def test_other_classifiers_of_scikit_learn_use_its_classes_and_probabilities(made):
    X, y = stripes(40, n_classes=2)
    words = np.array(["with", "without"])[y]
    other = made(DiffMICClassifier(**small(max_epochs=1))).fit(X, words)
    assert set(other.predict(X)) <= {"with", "without"}
    assert other.predict_proba(X).shape == (40, 2)
    assert other.classes_.tolist() == ["with", "without"]


def test_the_score_counts_weights(fitted, new_images):
    X, y = new_images
    right = fitted.predict(X) == y
    weights = np.arange(len(y))
    assert fitted.score(X, y, sample_weight=weights) == pytest.approx(
        right[weights > 0] @ weights[weights > 0] / weights.sum()
    )
