"""Fitting a DiffMICClassifier: the validation part, weights, early stopping, going on, failing."""

import copy
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import NotFittedError
from tiny import RECIPE, TinyBackbone, small, stripes
from torch.utils.data import DataLoader, TensorDataset

import diffmic.classifier
from diffmic import DiffMICClassifier, DiffMICWarning, InputError, TrainingDivergedError
from diffmic.training.objectives import DenoiserObjective, PriorObjective

quiet = pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")
# What an epoch measured is what is kept, to the last digit.
UNROUNDED = replace(RECIPE, half_weights=False)
MEASURES = {"accuracy", "balanced_accuracy", "macro_f1", "auc", "nll", "brier", "ece"}


def rows(classifier, stage):
    return [row for row in classifier.history_ if row["stage"] == stage]


@pytest.fixture
def fits(monkeypatch):
    """What each fit hands to the training: state of the network, parts and options."""
    seen = []
    original = diffmic.classifier.fit_network

    def spy(network, training, validation, options, **more):
        state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        seen.append((state, training, validation, options))
        return original(network, training, validation, options, **more)

    monkeypatch.setattr(diffmic.classifier, "fit_network", spy)
    return seen


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
    parameters = small(validation_fraction=None, max_epochs=8, n_iter_no_change=1, augment=None)
    classifier = DiffMICClassifier(**parameters).fit(*images)
    assert [len(rows(classifier, stage)) for stage in ("prior", "diffusion")] == [8, 8]
    assert classifier.score(*images) > 0.9


@pytest.mark.parametrize(("difference", "warns"), [(0.1, True), (0.0, False), (-0.1, False)])
def test_fit_warns_just_if_the_diffusion_is_behind_its_prior(
    images, monkeypatch, difference, warns
):
    original = diffmic.classifier.fit_network

    def rigged(*arguments, **more):
        result = original(*arguments, **more)
        scores = result.validation_scores
        scores["diffusion"]["nll"] = scores["prior"]["nll"] + difference
        return result

    monkeypatch.setattr(diffmic.classifier, "fit_network", rigged)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        DiffMICClassifier(**small(max_epochs=1)).fit(*images)
    said = [str(w.message) for w in caught if issubclass(w.category, DiffMICWarning)]
    assert ["behind its prior" in message for message in said] == [True] * warns


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
def test_prior_and_diffusion_are_measured_side_by_side(request, name):
    scores = request.getfixturevalue(name).validation_scores_
    assert set(scores) == {"prior", "diffusion"}
    assert MEASURES <= scores["prior"].keys() == scores["diffusion"].keys()


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


# --- Weights ------------------------------------------------------------------------------------


@quiet
@pytest.mark.parametrize(
    ("parameters", "options"),
    [
        ({}, {"sample_weight": np.r_[np.ones(30), np.full(30, 0.1)]}),
        ({"class_weight": {0: 10, 2: 0.1}}, {}),
    ],
)
def test_weights_change_what_is_learnt(images, new_images, parameters, options):
    plain = DiffMICClassifier(**small()).fit(*images)
    weighted = DiffMICClassifier(**small(**parameters)).fit(*images, **options)
    X = new_images[0]
    for stage in ("prior", "diffusion"):
        assert not np.allclose(
            plain.predict_proba(X, stage=stage), weighted.predict_proba(X, stage=stage)
        )


@quiet
def test_equal_weights_change_nothing(images, new_images):
    plain = DiffMICClassifier(**small()).fit(*images)
    weighted = DiffMICClassifier(**small(class_weight="balanced"))
    weighted.fit(*images, sample_weight=np.full(60, 3.0))
    assert_array_equal(plain.predict_proba(new_images[0]), weighted.predict_proba(new_images[0]))


@quiet
def test_balanced_classes_get_weights_against_their_number(fits):
    X, y = stripes(60)
    keep = (y != 0) | (np.arange(60) < 20)
    DiffMICClassifier(**small(max_epochs=1, class_weight="balanced")).fit(X[keep], y[keep])
    _, training, _, _ = fits[0]
    weights = [training.weights[training.targets[:, c] == 1].unique() for c in range(3)]
    assert all(len(w) == 1 for w in weights)
    counts = np.bincount(y[keep])
    assert_allclose(float(weights[0] / weights[1]), counts[1] / counts[0], rtol=1e-5)


# --- Early stopping -----------------------------------------------------------------------------


@quiet
def test_early_stopping_stops_a_stage_that_no_longer_gains(images):
    changes = {"max_epochs": 40, "n_iter_no_change": 2, "learning_rate": 0.05}
    classifier = DiffMICClassifier(**small(recipe=UNROUNDED, **changes)).fit(*images)
    for stage in ("prior", "diffusion"):
        scores = [row["validation_score"] for row in rows(classifier, stage)]
        best = int(np.argmax(scores))
        assert len(scores) == min(40, best + 1 + 2)
        # The best epoch's network is kept: it is the one that was calibrated and measured.
        assert classifier.validation_scores_[stage]["nll"] == pytest.approx(-max(scores), abs=1e-5)
    assert len(rows(classifier, "prior")) < 40


@quiet
def test_without_early_stopping_all_epochs_are_trained_and_the_last_is_kept(images):
    changes = {"max_epochs": 6, "n_iter_no_change": 1, "learning_rate": 0.05}
    classifier = DiffMICClassifier(**small(recipe=UNROUNDED, early_stopping=False, **changes)).fit(
        *images
    )
    for stage in ("prior", "diffusion"):
        scores = [row["validation_score"] for row in rows(classifier, stage)]
        assert len(scores) == 6
        assert classifier.validation_scores_[stage]["nll"] == pytest.approx(-scores[-1], abs=1e-5)


# --- Machines -----------------------------------------------------------------------------------


@quiet
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


# --- Going on -----------------------------------------------------------------------------------


@quiet
def test_a_second_fit_starts_anew(images, new_images):
    classifier = DiffMICClassifier(**small()).fit(*images)
    expected = classifier.predict_proba(new_images[0])
    assert_array_equal(classifier.fit(*images).predict_proba(new_images[0]), expected)


@quiet
def test_warm_start_goes_on_from_the_fitted_network(images, fits):
    classifier = DiffMICClassifier(**small(warm_start=True)).fit(*images)
    learnt = copy.deepcopy(classifier.network_.state_dict())
    classifier.fit(*images)
    begun = fits[1][0]
    assert begun.keys() == learnt.keys()
    assert all(torch.equal(begun[name], learnt[name]) for name in learnt)


@quiet
@pytest.mark.parametrize("other", ["more classes", "other classes", "multi-label"])
def test_warm_start_on_other_classes_keeps_the_backbone_and_has_new_heads(images, fits, other):
    X, y = images
    classifier = DiffMICClassifier(**small(warm_start=True, max_epochs=10)).fit(X, y)
    learnt = copy.deepcopy(classifier.network_.state_dict())
    targets = {
        "more classes": np.where(np.arange(60) % 2, y, 3),
        "other classes": y + 5,
        "multi-label": (y[:, None] == [0, 1, 2]).astype(int),
    }[other]
    classifier.fit(X, targets)
    begun = fits[1][0]
    backbone = [name for name in learnt if name.startswith("prior.backbone.")]
    assert all(torch.equal(begun[name], learnt[name]) for name in backbone)
    assert begun["prior.saliency.weight"].shape[0] == (4 if other == "more classes" else 3)
    for head in ("prior.saliency.weight", "denoiser.out.weight"):
        assert not (
            begun[head].shape == learnt[head].shape and torch.equal(begun[head], learnt[head])
        )
    assert_array_equal(
        classifier.classes_, [0, 1, 2] if other == "multi-label" else np.unique(targets)
    )


@quiet
def test_warm_start_with_another_backbone_is_an_error_and_changes_nothing(images, new_images):
    classifier = DiffMICClassifier(**small(warm_start=True)).fit(*images)
    expected = classifier.predict_proba(new_images[0])
    with pytest.raises(InputError, match="warm_start"):
        classifier.set_params(backbone=TinyBackbone(12)).fit(*images)
    assert_array_equal(classifier.predict_proba(new_images[0]), expected)


@quiet
def test_a_loaded_model_can_be_fitted_on_other_classes(fitted, images, new_images, fits, tmp_path):
    fitted.save_pretrained(tmp_path)
    loaded = DiffMICClassifier.from_pretrained(tmp_path, backbone=TinyBackbone(), device="cpu")
    loaded.set_params(warm_start=True, augment=None, random_state=0)
    names = np.array(["across", "up", "plain"])
    loaded.fit(images[0], names[images[1]])
    weight = "prior.backbone.net.layers.0.weight"
    assert torch.equal(fits[0][0][weight], fitted.network_.state_dict()[weight])
    assert loaded.score(new_images[0], names[new_images[1]]) > 0.9


@quiet
def test_warm_start_keeps_the_size_for_which_the_network_was_built(images):
    classifier = DiffMICClassifier(**small(warm_start=True, max_epochs=1)).fit(*images)
    larger = np.repeat(np.repeat(images[0], 2, axis=1), 2, axis=2)
    classifier.fit(larger, images[1])
    assert classifier.image_size_ == images[0].shape[1]


def test_warm_start_without_a_class_says_that_the_heads_are_new(images):
    X, y = images
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        classifier = DiffMICClassifier(**small(warm_start=True, max_epochs=1)).fit(X, y)
        classifier.fit(X[y < 2], y[y < 2])
    said = [str(w.message) for w in caught if "heads begin anew" in str(w.message)]
    assert len(said) == 1
    assert "[0, 1]" in said[0]
    assert "[0, 1, 2]" in said[0]


@quiet
@pytest.mark.parametrize("warm_start", [True, False])
def test_a_fit_that_learns_nothing_leaves_what_was_fitted_before(images, new_images, warm_start):
    classifier = DiffMICClassifier(**small(warm_start=warm_start)).fit(*images)
    expected = classifier.predict_proba(new_images[0])
    with pytest.raises(TrainingDivergedError):
        classifier.set_params(learning_rate=1e30).fit(*images)
    assert_array_equal(classifier.predict_proba(new_images[0]), expected)


@quiet
def test_an_interrupted_warm_start_still_has_its_diffusion_stage(images, new_images, monkeypatch):
    classifier = DiffMICClassifier(**small(warm_start=True, max_epochs=4)).fit(*images)
    interrupt(monkeypatch, "prior", 3)
    with pytest.raises(KeyboardInterrupt):
        classifier.fit(*images)
    assert len(rows(classifier, "prior")) == 2
    assert np.isfinite(classifier.predict_proba(new_images[0])).all()


@quiet
def test_an_interrupted_fit_keeps_the_epochs_that_it_had(images, new_images, monkeypatch):
    interrupt(monkeypatch, "diffusion", 3)
    classifier = DiffMICClassifier(**small(max_epochs=4))
    with pytest.raises(KeyboardInterrupt):
        classifier.fit(*images)
    assert (len(rows(classifier, "prior")), len(rows(classifier, "diffusion"))) == (4, 2)
    assert np.isfinite(classifier.predict_proba(new_images[0])).all()
    assert set(classifier.validation_scores_) == {"prior", "diffusion"}


@quiet
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


# --- Divergence ---------------------------------------------------------------------------------

OBJECTIVES = {"prior": PriorObjective, "diffusion": DenoiserObjective}


def diverge(monkeypatch, stage, epoch):
    """Make the loss of a stage NaN from one of its epochs on."""
    objective = OBJECTIVES[stage]
    forward, train = objective.forward, objective.train
    epochs = []

    def counting(self, mode=True):
        epochs.append(mode)
        return train(self, mode)

    def failing(self, *batch):
        loss = forward(self, *batch)
        return loss * float("nan") if len(epochs) >= epoch else loss

    monkeypatch.setattr(objective, "train", counting)
    monkeypatch.setattr(objective, "forward", failing)


def interrupt(monkeypatch, stage, epoch):
    """Press Ctrl-C in one of a stage's epochs."""
    objective = OBJECTIVES[stage]
    train = objective.train
    epochs = []

    def counting(self, mode=True):
        epochs.append(mode)
        if len(epochs) == epoch:
            raise KeyboardInterrupt
        return train(self, mode)

    monkeypatch.setattr(objective, "train", counting)


@quiet
@pytest.mark.parametrize("epoch", [1, 4])
@pytest.mark.parametrize("stage", OBJECTIVES)
def test_a_loss_that_is_not_finite_stops_the_fit_and_the_last_good_state_is_kept(
    images, new_images, monkeypatch, stage, epoch
):
    diverge(monkeypatch, stage, epoch)
    classifier = DiffMICClassifier(**small(max_epochs=10, augment=None))
    with pytest.raises(TrainingDivergedError, match=f"{stage} stage .* in epoch {epoch};"):
        classifier.fit(*images)
    if (stage, epoch) == ("prior", 1):  # nothing was learnt
        with pytest.raises(NotFittedError):
            classifier.predict(new_images[0])
        return
    assert len(rows(classifier, stage)) == epoch - 1
    for tensor in classifier.network_.state_dict().values():
        assert torch.isfinite(tensor).all()
    prior = classifier.predict_proba(new_images[0], stage="prior")
    assert np.isfinite(prior).all()
    for reached in ("prior", "diffusion"):
        scores = [row["validation_score"] for row in rows(classifier, reached)]
        if scores:
            nll = classifier.validation_scores_[reached]["nll"]
            assert nll == pytest.approx(-max(scores), abs=1e-5)
    if stage == "prior" or epoch == 1:
        with pytest.raises(NotFittedError, match="stage='prior'"):
            classifier.predict_proba(new_images[0])
    else:
        assert np.isfinite(classifier.predict_proba(new_images[0])).all()
        assert set(classifier.validation_scores_) == {"prior", "diffusion"}
