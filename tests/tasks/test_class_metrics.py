"""Metrics of single classes are scikit-learn's."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.metrics import precision_recall_fscore_support, recall_score, roc_auc_score

from diffmic.tasks import CLASS_METRICS, class_metrics


def made(seed=0, n=80):
    rng = np.random.RandomState(seed)
    truth = (rng.rand(n, 3) < 0.4).astype(float)
    proba = (0.3 * truth + 0.7 * rng.rand(n, 3)).round(1)  # with ties
    return truth, proba, (proba > 0.5).astype(int)


def test_class_metrics_are_those_of_scikit_learn():
    truth, proba, predicted = made()
    found = class_metrics(truth, proba, predicted)
    assert tuple(found) == CLASS_METRICS
    precision, recall, f1, _ = precision_recall_fscore_support(truth, predicted)
    assert_allclose(found["precision"], precision)
    assert_allclose(found["sensitivity"], recall)
    assert_allclose(found["f1"], f1)
    expected = [recall_score(t, p, pos_label=0) for t, p in zip(truth.T, predicted.T, strict=True)]
    assert_allclose(found["specificity"], expected)
    assert_allclose(found["auc"], roc_auc_score(truth, proba, average=None))


def test_unknown_labels_are_left_out_as_if_they_were_not_there():
    truth, proba, predicted = made()
    unknown = np.random.RandomState(1).rand(*truth.shape) < 0.3
    found = class_metrics(np.where(unknown, np.nan, truth), proba, predicted)
    for c in range(3):
        rows = ~unknown[:, c]
        expected = class_metrics(*(a[rows, c : c + 1] for a in (truth, proba, predicted)))
        for name in CLASS_METRICS:
            assert found[name][c] == pytest.approx(expected[name][0])


def test_what_is_not_defined_is_nan():
    truth, proba, predicted = made()
    truth[:, 0], truth[:, 1], predicted[:, 2] = 0, 1, 0
    found = class_metrics(truth, proba, predicted)
    assert np.isnan([found[n][0] for n in ("sensitivity", "f1", "auc")]).all()
    assert np.isnan([found[n][1] for n in ("specificity", "auc")]).all()
    assert np.isnan(found["precision"][2])
    assert found["f1"][2] == found["sensitivity"][2] == 0
