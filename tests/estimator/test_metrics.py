"""score, evaluate and the kinds of tasks."""

import copy
from dataclasses import replace

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.metrics import accuracy_score, cohen_kappa_score
from tiny import small, stripes

from diffmic import DiffMICClassifier, InputError
from diffmic.tasks import ORDINAL, classification_metrics

pytestmark = pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")


@pytest.mark.parametrize("kind", ["multi-class", "multi-label"])
def test_score_is_the_accuracy_of_evaluate(request, kind, new_images):
    X, y = stripes(60, seed=7)
    wrong = np.random.RandomState(1).rand(60) < 0.3
    if kind == "multi-class":
        classifier, truth = request.getfixturevalue("fitted"), np.where(wrong, (y + 1) % 3, y)
    else:
        classifier = request.getfixturevalue("fitted_multilabel")
        indicator = (y[:, None] == [0, 1]).astype(int)
        truth = np.where(wrong[:, None] & [True, False], 1 - indicator, indicator)
    metrics = classifier.evaluate(X, truth)
    predicted = classifier.predict(X)
    assert classifier.score(X, truth) == metrics["diffusion"]["accuracy"]
    assert classifier.score(X, truth) == accuracy_score(truth, predicted)
    assert 0.3 < classifier.score(X, truth) < 0.9
    if kind == "multi-label":
        assert metrics["diffusion"]["label_accuracy"] == (predicted == truth).mean()
        assert metrics["diffusion"]["label_accuracy"] > metrics["diffusion"]["accuracy"]


@pytest.mark.parametrize("name", ["fitted", "fitted_multilabel"])
def test_evaluate_gives_the_metrics_of_the_probabilities_of_each_stage(request, name, new_images):
    classifier = request.getfixturevalue(name)
    X, y = new_images
    truth = y if name == "fitted" else (y[:, None] == [0, 1]).astype(int)
    metrics = classifier.evaluate(X, truth)
    assert list(metrics) == ["prior", "diffusion", "diffusion_alone"]
    for stage in metrics:
        expected = classification_metrics(
            truth,
            classifier.predict_proba(X, stage=stage),
            thresholds=classifier.model_.thresholds_of(stage) if truth.ndim == 2 else 0.5,
        )
        assert metrics[stage] == pytest.approx(expected)


def test_a_report_resamples_whole_groups(fitted, new_images):
    X, y = new_images
    patients = [f"p{i // 5}" for i in range(30)]
    report = fitted.evaluate(X, y, groups=patients, n_bootstrap=50)
    assert report.groups.tolist() == [i // 5 for i in range(30)]
    assert "50 resamples of the 6 groups of images" in report.to_markdown()
    assert report.n_images == 30


@pytest.mark.parametrize(
    "wrong",
    [{"groups": [1, 2]}, {"groups": [None] * 30}, {"n_bootstrap": -1}, {"n_bootstrap": 0.5}],
)
def test_groups_and_resamples_that_cannot_be_used_are_refused(fitted, new_images, wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        fitted.evaluate(*new_images, **wrong)


@pytest.mark.parametrize("name", ["fitted", "fitted_multilabel"])
def test_the_diffusion_alone_does_without_the_prior_and_is_saved(
    request, name, images, indicators, new_images, tmp_path
):
    X, y = images if name == "fitted" else indicators
    parameters = small(backbone="test_resnet", pretrained=False, max_epochs=1)
    classifier = DiffMICClassifier(**parameters).fit(X, y)
    alone = classifier.model_.alone
    assert alone.calibration.prior_weight == 0
    options = {"stage": "diffusion_alone"}
    proba = classifier.predict_proba(new_images[0], **options)
    assert not np.allclose(proba, classifier.predict_proba(new_images[0]))
    assert (alone.thresholds is None) == (name == "fitted")
    classifier.save_pretrained(tmp_path)
    loaded = DiffMICClassifier.from_pretrained(tmp_path, device="cpu")
    np.testing.assert_allclose(loaded.predict_proba(new_images[0], **options), proba, atol=1e-6)
    assert (
        loaded.predict(new_images[0], **options) == classifier.predict(new_images[0], **options)
    ).all()


def test_a_model_saved_without_a_calibration_of_the_diffusion_alone_says_so(fitted, new_images):
    older = copy.copy(fitted)
    older.model_ = replace(fitted.model_, alone=None)
    assert list(older.evaluate(*new_images)) == ["prior", "diffusion"]
    with pytest.raises(NotFittedError, match="saved without"):
        older.predict_proba(new_images[0], stage="diffusion_alone")


def test_grades_have_kappa_among_their_metrics(images, new_images):
    grades = np.array([10, 20, 31])
    classifier = DiffMICClassifier(**small(task="ordinal")).fit(images[0], grades[images[1]])
    assert classifier.task_ is ORDINAL
    metrics = classifier.evaluate(new_images[0], grades[new_images[1]])
    order = {grade: number for number, grade in enumerate(grades)}
    predicted = [order[grade] for grade in classifier.predict(new_images[0])]
    expected = cohen_kappa_score(new_images[1], predicted, weights="quadratic")
    assert metrics["diffusion"]["kappa"] == pytest.approx(expected)
    assert {"kappa"} <= metrics["prior"].keys()
    for scores in classifier.validation_scores_.values():
        assert "kappa" in scores


def test_classes_without_an_order_have_no_kappa(fitted, new_images):
    assert "kappa" not in fitted.evaluate(*new_images)["diffusion"]
    assert fitted.task_.name == "multiclass"


def test_a_task_is_saved(images, tmp_path):
    parameters = small(backbone="test_resnet", pretrained=False, task="ordinal", max_epochs=1)
    DiffMICClassifier(**parameters).fit(*images).save_pretrained(tmp_path)
    loaded = DiffMICClassifier.from_pretrained(tmp_path, device="cpu")
    assert loaded.task_ is ORDINAL
    assert loaded.task == "ordinal"


@pytest.mark.parametrize(
    ("task", "indicator"),
    [("multilabel", False), ("multiclass", True), ("ordinal", True)],
)
def test_targets_that_do_not_fit_the_task_are_refused(images, task, indicator):
    X, y = images
    targets = (y[:, None] >= [0, 1, 2]).astype(int) if indicator else y  # several labels a row
    with pytest.raises(InputError, match=task):
        DiffMICClassifier(**small(task=task)).fit(X, targets)


def test_multi_label_targets_may_be_asked_for_by_name(images):
    X, y = images
    classifier = DiffMICClassifier(**small(task="multilabel", max_epochs=1))
    classifier.fit(X, (y[:, None] == [0, 1]).astype(int))
    assert classifier.task_.name == "multilabel"
    assert set(classifier.thresholds_) == {"prior", "diffusion"}
