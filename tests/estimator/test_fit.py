"""Fitting a DiffMICClassifier: the validation part, weights, early stopping, processes."""

import copy
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from tiny import RECIPE, TinyBackbone, small
from torch.utils.data import DataLoader, TensorDataset

from diffmic import DiffMICClassifier, DiffMICWarning, InputError

quiet = pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")
METRICS = {"accuracy", "balanced_accuracy", "macro_f1", "auc", "nll", "brier", "ece"}


def rows(classifier, stage):
    return [row for row in classifier.history_ if row["stage"] == stage]


# --- The validation part ------------------------------------------------------------------------


@quiet
@pytest.mark.parametrize("kind", ["tuple", "list", "Dataset", "DataLoader"])
def test_validation_data_may_be_a_pair_a_dataset_or_a_loader(images, new_images, kind):
    X, y = new_images
    dataset = TensorDataset(torch.from_numpy(X)[:, None], torch.from_numpy(y))
    given = {
        "tuple": (X, y),
        "list": [X, y],
        "Dataset": dataset,
        "DataLoader": DataLoader(dataset, batch_size=7, shuffle=True),
    }[kind]
    expected, classifier = (
        DiffMICClassifier(**small(max_epochs=2)).fit(*images, validation_data=data)
        for data in ((X, y), given)
    )
    assert_allclose(
        classifier.predict_proba(X, stage="prior"), expected.predict_proba(X, stage="prior")
    )
    accuracy = (classifier.predict(X, stage="prior") == y).mean()
    assert classifier.validation_scores_["prior"]["accuracy"] == pytest.approx(accuracy)


@quiet
def test_with_validation_data_all_images_are_trained_on(images, new_images, fits):
    DiffMICClassifier(**small(max_epochs=1)).fit(*images, validation_data=new_images)
    _, training, validation, _ = fits[0]
    assert (len(training), len(validation)) == (60, 30)


def test_validation_data_of_unknown_classes_is_an_error(images, new_images):
    with pytest.raises(InputError, match="unseen"):
        DiffMICClassifier(**small()).fit(
            *images, validation_data=(new_images[0], new_images[1] + 1)
        )


@quiet
def test_the_validation_part_is_a_stratified_share(images, fits):
    DiffMICClassifier(**small(max_epochs=1)).fit(*images)
    _, training, validation, _ = fits[0]
    assert training.targets.sum(dim=0).tolist() == [15, 15, 15]
    assert validation.targets.sum(dim=0).tolist() == [5, 5, 5]
    assert set(training.images.indices).isdisjoint(validation.images.indices)


@quiet
def test_a_group_stays_on_one_side(images, fits):
    groups = np.array([f"patient {number // 4}" for number in range(60)])
    DiffMICClassifier(**small(max_epochs=1)).fit(*images, groups=groups)
    _, training, validation, _ = fits[0]
    sides = [set(groups[part.images.indices]) for part in (training, validation)]
    assert sides[0].isdisjoint(sides[1])
    assert sides[0] | sides[1] == set(groups)


def test_one_group_alone_cannot_be_split(images):
    with pytest.raises(InputError, match="group"):
        DiffMICClassifier(**small()).fit(*images, groups=np.zeros(60))


def test_without_a_validation_part_fit_warns_and_does_not_calibrate(images):
    classifier = DiffMICClassifier(**small(validation_fraction=None, max_epochs=4))
    with pytest.warns(DiffMICWarning, match="not calibrated"):
        classifier.fit(*images)
    assert {c.temperature for c in classifier.calibrations_.values()} == {1.0}
    assert classifier.validation_scores_ == {}
    assert "validation_nll" not in classifier.history_[0]


@quiet
def test_without_a_validation_part_the_last_epoch_is_kept(images):
    recipe = replace(RECIPE, patience=1)
    parameters = small(validation_fraction=None, max_epochs=8, recipe=recipe, augment=None)
    classifier = DiffMICClassifier(**parameters).fit(*images)
    assert [len(rows(classifier, stage)) for stage in ("prior", "diffusion")] == [8, 8]
    assert classifier.score(*images) > 0.9


def test_calibration_is_fitted_on_the_validation_part(fitted):
    assert all(c.temperature != 1 for c in fitted.calibrations_.values())


# --- What fit reports ---------------------------------------------------------------------------


def test_history_has_a_row_per_epoch_of_each_stage(fitted):
    for stage in ("prior", "diffusion"):
        stage_rows = rows(fitted, stage)
        assert [row["epoch"] for row in stage_rows] == list(range(1, len(stage_rows) + 1))
        for row in stage_rows:
            assert row.keys() == {
                *("stage", "epoch", "train_loss", "seconds"),
                *("validation_score", "validation_nll", "validation_accuracy"),
            }
            assert np.isfinite([row["train_loss"], row["validation_nll"]]).all()
        assert stage_rows[-1]["train_loss"] < stage_rows[0]["train_loss"]


@pytest.mark.parametrize("name", ["fitted", "fitted_multilabel"])
def test_prior_and_diffusion_have_metrics_side_by_side(request, name):
    scores = request.getfixturevalue(name).validation_scores_
    assert set(scores) == {"prior", "diffusion", "diffusion_alone"}
    for metrics in scores.values():
        assert METRICS <= metrics.keys() == scores["prior"].keys()


@quiet
def test_verbose_0_prints_nothing(images, capfd):
    DiffMICClassifier(**small(verbose=0)).fit(*images).predict_proba(images[0])
    assert capfd.readouterr() == ("", "")


@quiet
def test_verbose_1_shows_epochs_losses_and_the_validation_score(images, capfd):
    DiffMICClassifier(**small(verbose=1, max_epochs=3)).fit(*images)
    shown = capfd.readouterr().err
    for words in ("prior", "diffusion", "3/3", "train_loss=", "val_nll=", "val_accuracy="):
        assert words in shown


# --- Early stopping -----------------------------------------------------------------------------


def fit_with_patience(images, new_images, patience, **changes):
    """Without moving average or rounding: what an epoch measured is what is kept."""
    recipe = replace(RECIPE, half_weights=False, patience=patience, **changes)
    parameters = small(recipe=recipe, max_epochs=30, learning_rate=0.05)
    return DiffMICClassifier(**parameters).fit(*images, validation_data=new_images)


@quiet
def test_early_stopping_stops_a_stage_that_no_longer_gains(images, new_images):
    classifier = fit_with_patience(images, new_images, 2, ema=None)
    nll = {stage: m["nll"] for stage, m in classifier.evaluate(*new_images).items()}
    for stage in ("prior", "diffusion"):
        scores = [row["validation_score"] for row in rows(classifier, stage)]
        best = int(np.argmax(scores))
        assert len(scores) == min(30, best + 1 + 2)
        # The best epoch's network is kept: it is the one that was calibrated, on these images.
        assert nll[stage] == pytest.approx(-max(scores), abs=1e-5)
    assert len(rows(classifier, "prior")) < 30


@quiet
@pytest.mark.slow
def test_without_patience_all_epochs_are_trained_and_the_last_is_kept(images, new_images):
    classifier = fit_with_patience(images, new_images, None, ema=None)
    nll = {stage: m["nll"] for stage, m in classifier.evaluate(*new_images).items()}
    for stage in ("prior", "diffusion"):
        scores = [row["validation_score"] for row in rows(classifier, stage)]
        assert len(scores) == 30
        assert nll[stage] == pytest.approx(-scores[-1], abs=1e-5)


@quiet
def test_a_denoiser_with_a_moving_average_is_not_stopped_early(images, new_images):
    classifier = fit_with_patience(images, new_images, 1, ema=0.1)
    assert len(rows(classifier, "prior")) < 30
    scores = [row["validation_score"] for row in rows(classifier, "diffusion")]
    assert len(scores) == 30
    nll = classifier.evaluate(*new_images)["diffusion"]["nll"]
    assert nll == pytest.approx(-scores[-1], abs=1e-5)


@quiet
def test_the_denoiser_may_have_epochs_of_its_own(images):
    recipe = replace(RECIPE, denoiser_epochs=5)
    classifier = DiffMICClassifier(**small(recipe=recipe, max_epochs=2)).fit(*images)
    assert [len(rows(classifier, stage)) for stage in ("prior", "diffusion")] == [2, 5]


# --- Machines -----------------------------------------------------------------------------------


@quiet
@pytest.mark.slow
def test_the_number_of_workers_changes_nothing(images, new_images):
    alone, helped = (
        DiffMICClassifier(**small(num_workers=n, max_epochs=1)).fit(*images) for n in (0, 2)
    )
    for stage in ("prior", "diffusion"):
        expected = alone.predict_proba(new_images[0], stage=stage)
        assert_array_equal(helped.predict_proba(new_images[0], stage=stage), expected)


@quiet
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_may_be_mixed_and_predictions_are_not(images, new_images, precision):
    classifier = DiffMICClassifier(**small(precision=precision, max_epochs=10)).fit(*images)
    assert {t.dtype for t in classifier.network_.parameters()} == {torch.float32}
    assert classifier.transform(new_images[0]).dtype == np.float32
    assert classifier.score(*new_images) > 0.9


def test_precision_changes_what_is_learnt_by_roundings(images, new_images):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DiffMICWarning)
        single, mixed = (
            DiffMICClassifier(**small(precision=p, max_epochs=1)).fit(*images).transform(images[0])
            for p in ("fp32", "bf16")
        )
    assert not np.array_equal(single, mixed)
    assert_allclose(single, mixed, atol=0.2)


@quiet
def test_the_callers_backbone_is_left_alone(images):
    backbone = TinyBackbone().eval()
    before = copy.deepcopy(backbone.state_dict())
    classifier = DiffMICClassifier(**small(backbone=backbone)).fit(*images)
    assert classifier.backbone is backbone
    assert not backbone.training
    assert all(p.requires_grad for p in backbone.parameters())
    assert all(p.grad is None for p in backbone.parameters())
    assert all(torch.equal(before[name], t) for name, t in backbone.state_dict().items())


@quiet
def test_soft_labels_of_certainty_are_the_labels(images, new_images):
    X, y = images
    plain = DiffMICClassifier(**small(max_epochs=1)).fit(X, y)
    soft = DiffMICClassifier(**small(max_epochs=1)).fit(X, y, soft_labels=np.eye(3)[y])
    for stage in ("prior", "diffusion"):
        assert_array_equal(
            soft.predict_proba(new_images[0], stage=stage),
            plain.predict_proba(new_images[0], stage=stage),
        )


@quiet
def test_the_prior_learns_soft_labels_and_the_denoiser_y(images, new_images):
    """Soft labels that name the next class, most probably."""
    X, y = images
    soft = 0.1 * np.eye(3)[y] + 0.9 * np.eye(3)[(y + 1) % 3]
    clf = DiffMICClassifier(**small(max_epochs=10, validation_fraction=None))
    clf.fit(X, y, soft_labels=soft)
    X, y = new_images
    assert np.mean(clf.predict(X, stage="prior") == (y + 1) % 3) > 0.8
    assert np.mean(clf.predict(X) == y) > 0.8
    assert_allclose(clf.shares_, np.bincount(images[1]) / len(images[1]))
