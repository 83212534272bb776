"""Unknown labels of multi-label tasks have no influence, and what is known is learnt."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn import metrics
from tiny import RECIPE, TinyBackbone, small, stripes

from diffmic import DiffMICClassifier, InputError
from diffmic.inference import Calibration, best_thresholds
from diffmic.inference.calibration import mean_nll
from diffmic.tasks import MULTILABEL, classification_metrics
from diffmic.training.readings import Reading, balanced_folds, cross_fitted

DRAW = torch.Generator().manual_seed(0)
TRUTH = (torch.rand(80, 3, generator=DRAW) < 0.4).float()
KNOWN = torch.rand(80, 3, generator=DRAW) < 0.6
KNOWN[:, 0] |= ~KNOWN.any(dim=1)  # of each image something is known
TARGETS = torch.where(KNOWN, TRUTH, torch.nan)
LOGITS = 2 * TRUTH - 1 + torch.randn(80, 3, generator=DRAW)
OTHERS = torch.where(KNOWN, LOGITS, 100 * torch.randn(80, 3, generator=DRAW))  # where unknown


def test_a_loss_is_of_known_labels_and_its_gradient_too():
    logits = LOGITS.clone().requires_grad_()
    loss = MULTILABEL.loss(logits, TARGETS, label_smoothing=0.1)
    smooth = TRUTH * 0.9 + 0.05
    each = F.binary_cross_entropy_with_logits(LOGITS, smooth, reduction="none")
    torch.testing.assert_close(loss, (each * KNOWN).sum(dim=1) / 3)
    loss.sum().backward()
    assert (logits.grad[~KNOWN] == 0).all()
    assert (logits.grad[KNOWN] != 0).all()
    torch.testing.assert_close(MULTILABEL.loss(OTHERS, TARGETS, label_smoothing=0.1), loss)


def test_confidence_and_decisions_are_of_known_labels():
    right = torch.where(TRUTH > 0, LOGITS.sigmoid(), 1 - LOGITS.sigmoid())
    expected = (right * KNOWN).sum(dim=1) / KNOWN.sum(dim=1)
    torch.testing.assert_close(MULTILABEL.confidence(OTHERS, TARGETS), expected)
    correct = (((LOGITS > 0) == (TRUTH > 0)) | ~KNOWN).all(dim=1)
    assert torch.equal(MULTILABEL.correct(OTHERS, TARGETS), correct)
    nothing = torch.full((1, 3), torch.nan)
    assert MULTILABEL.loss(LOGITS[:1], nothing).tolist() == [0]
    assert torch.isfinite(MULTILABEL.confidence(LOGITS[:1], nothing)).all()


def test_calibration_and_thresholds_are_fitted_on_known_labels():
    found = Calibration.fit(OTHERS, TARGETS, MULTILABEL)
    assert found == Calibration.fit(LOGITS, TARGETS, MULTILABEL)
    each = F.binary_cross_entropy_with_logits(LOGITS, TRUTH, reduction="none")
    assert mean_nll(OTHERS, TARGETS, MULTILABEL) == pytest.approx(float(each[KNOWN].mean()))
    weights = torch.rand(80, generator=DRAW)
    expected = (each * KNOWN * weights[:, None]).sum() / (KNOWN * weights[:, None]).sum()
    assert mean_nll(OTHERS, TARGETS, MULTILABEL, weights) == pytest.approx(float(expected))
    thresholds = best_thresholds(TARGETS.numpy(), OTHERS.double().sigmoid().numpy())
    for label in range(3):
        rows = KNOWN[:, label]
        alone = TRUTH[rows, label : label + 1].numpy(), LOGITS[rows, label : label + 1].double()
        assert thresholds[label] == best_thresholds(alone[0], alone[1].sigmoid().numpy())[0]


def test_metrics_are_of_known_labels():
    proba, y = LOGITS.double().sigmoid().numpy(), TARGETS.numpy()
    found = classification_metrics(y, OTHERS.double().sigmoid().numpy())
    columns = [(TRUTH[rows, c].numpy(), proba[rows, c]) for c, rows in enumerate(KNOWN.numpy().T)]
    all_y, all_p = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    right = (proba >= 0.5) == TRUTH.numpy()
    assert found == pytest.approx(
        {
            "accuracy": (right | ~KNOWN.numpy()).all(axis=1).mean(),
            "label_accuracy": right[KNOWN.numpy()].mean(),
            "balanced_accuracy": np.mean(
                [metrics.balanced_accuracy_score(t, p >= 0.5) for t, p in columns]
            ),
            "macro_f1": np.mean([metrics.f1_score(t, p >= 0.5) for t, p in columns]),
            "auc": np.mean([metrics.roc_auc_score(t, p) for t, p in columns]),
            "nll": metrics.log_loss(all_y, all_p),
            "brier": metrics.brier_score_loss(all_y, all_p),
            **{name: found[name] for name in ("ece", "ece_mass", "ece_classwise")},
        }
    )
    pandas_like = np.where(np.isnan(y), None, y)
    assert classification_metrics(pandas_like, proba) == pytest.approx(found)


def test_images_and_labels_of_which_nothing_is_known_are_left_out_of_metrics():
    proba, y = LOGITS.double().sigmoid().numpy(), TARGETS.numpy()
    more = np.vstack([y, np.full((5, 3), np.nan)]), np.vstack([proba, np.full((5, 3), 0.9)])
    assert classification_metrics(*more) == pytest.approx(classification_metrics(y, proba))
    y = y.copy()
    y[:, 1] = np.nan
    both = classification_metrics(y[:, [0, 2]], proba[:, [0, 2]])
    kept = ~np.isnan(y).all(axis=1)
    found = classification_metrics(y[kept], proba[kept])
    assert found["auc"] == pytest.approx(both["auc"])
    assert found["macro_f1"] == pytest.approx(both["macro_f1"])
    with pytest.raises(InputError, match="No label of any image is known"):
        classification_metrics(np.full((3, 2), np.nan), np.full((3, 2), 0.5))
    with pytest.raises(InputError, match="other than 0, 1 and NaN"):
        classification_metrics([[0, -1], [1, 1]], np.full((2, 2), 0.5))


def test_cross_fitted_metrics_are_of_known_labels():
    found = [
        cross_fitted(Reading(x.double(), None, TARGETS, torch.ones(80), MULTILABEL), 0)
        for x in (LOGITS, OTHERS)
    ]
    assert found[0][0] == pytest.approx(found[1][0])
    np.testing.assert_allclose(found[0][1], found[1][1])
    assert found[0][1].mean() == pytest.approx(found[0][0]["nll"])
    folds = balanced_folds(TARGETS, 5, 0)
    assert torch.bincount(folds).tolist() == [16] * 5


# --- Fits ---------------------------------------------------------------------------------------

pytestmark = pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")


def partly(n=60, share=0.5, seed=0):
    """Images, whether they have stripes across or up, and which of it is known."""
    X, y = stripes(n, seed=seed)
    known = np.random.RandomState(seed).rand(n, 2) >= share
    known[~known.any(axis=1), 0] = True
    return X, (y[:, None] == [0, 1]).astype(int), known


@pytest.mark.parametrize("prediction_type", ["probability", "noise"])
def test_what_lies_under_a_mask_has_no_influence(prediction_type):
    recipe = replace(
        RECIPE, alpha=2.0, diffusion=replace(RECIPE.diffusion, prediction_type=prediction_type)
    )
    X, y, known = partly()
    found = []
    for garbage in (0, 1, 7):
        target = np.ma.array(np.where(known, y, garbage), mask=~known)
        classifier = DiffMICClassifier(**small(max_epochs=1, recipe=recipe)).fit(X, target)
        found.append([classifier.predict_proba(X), classifier.thresholds_["diffusion"]])
    for other in found[1:]:
        np.testing.assert_array_equal(other[0], found[0][0])
        np.testing.assert_array_equal(other[1], found[0][1])
    unknown = np.where(known, y.astype(float), np.nan)
    classifier = DiffMICClassifier(**small(max_epochs=1, recipe=recipe)).fit(X, unknown)
    np.testing.assert_array_equal(classifier.predict_proba(X), found[0][0])


def test_half_of_the_labels_are_enough_to_learn_from(capsys):
    X, y, known = partly(120)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", message="On the validation part")
        classifier = DiffMICClassifier(**small(max_epochs=12, augment=None, verbose=1))
        classifier.fit(X, np.where(known, y, np.nan))
    new, truth, seen = partly(60, seed=1)
    for stage in ("prior", "diffusion"):
        assert metrics.roc_auc_score(truth, classifier.predict_proba(new, stage=stage)) > 0.95
    counts = classifier.label_counts_
    assert set(counts) == {"training", "validation"}
    unknown = np.sum([part["unknown"] for part in counts.values()], axis=0)
    np.testing.assert_array_equal(unknown, (~known).sum(axis=0))
    assert "Labels of the training part:" in capsys.readouterr().err

    partial = np.where(seen, truth, np.nan)
    found = classifier.evaluate(new, partial)["diffusion"]
    right = (classifier.predict(new) == truth) | ~seen
    assert found["accuracy"] == pytest.approx(right.all(axis=1).mean())
    assert classifier.score(new, partial) == pytest.approx(found["accuracy"])
    weights = np.random.RandomState(0).rand(60)
    expected = np.average(right.all(axis=1), weights=weights)
    assert classifier.score(new, partial, sample_weight=weights) == pytest.approx(expected)


def test_uncertain_labels_are_what_the_parameter_says(tmp_path):
    X, y, known = partly(40)
    checked = np.where(known, y, -1)
    with pytest.raises(InputError, match="uncertain='unknown'"):
        DiffMICClassifier(**small()).fit(X, checked)
    fits = [
        DiffMICClassifier(**small(max_epochs=1, uncertain="unknown")).fit(X, checked),
        DiffMICClassifier(**small(max_epochs=1)).fit(X, np.where(known, y, np.nan)),
    ]
    np.testing.assert_array_equal(fits[0].predict_proba(X), fits[1].predict_proba(X))
    assert fits[0].score(X, checked) == fits[1].score(X, np.where(known, y, np.nan))
    fits[0].save_pretrained(tmp_path)
    loaded = DiffMICClassifier.from_pretrained(tmp_path, backbone=TinyBackbone(), device="cpu")
    assert loaded.uncertain == "unknown"
    assert loaded.label_counts_ == fits[0].label_counts_
    assert loaded.evaluate(X, checked) == fits[0].evaluate(X, checked)


def test_weights_of_images_without_known_labels_alone_measure_nothing(fitted_multilabel, images):
    with pytest.raises(InputError, match="zero for every image of which a label is known"):
        fitted_multilabel.score(images[0][:2], [[1, 0], [np.nan] * 2], sample_weight=[0, 1])
