"""Brief training on a few dozen real images must beat chance on held-out ones."""

import numpy as np
import pytest
from scipy.stats import binomtest

from diffmic import DiffMICClassifier
from diffmic.datasets import read_csv
from diffmic.inference import STAGES
from diffmic.tasks import classification_metrics

pytestmark = pytest.mark.real_data


def few(table, per_class):
    """The first images of each class."""
    index = np.concatenate(
        [np.flatnonzero(table.labels == c)[:per_class] for c in table.label_names]
    )
    return [table.paths[i] for i in index], table.labels[index]


def beats_chance(truth, predicted):
    """Whether so many right answers among balanced classes have less than 1 % by luck."""
    right, n_classes = int((truth == predicted).sum()), len(np.unique(truth))
    return binomtest(right, len(truth), 1 / n_classes, alternative="greater").pvalue < 0.01


@pytest.mark.parametrize("name", ["busi_ultrasound", "chest_xray_pneumonia"])
def test_a_pretrained_backbone_learns_from_paths_of_a_few_dozen_images(data_folder, name):
    table = read_csv(data_folder / name / "labels.csv")
    X, y = few(table.part("train"), 28)
    X_test, y_test = few(table.part("test"), 20)
    clf = DiffMICClassifier(
        backbone="tf_efficientnet_lite0",
        image_size=96,
        max_epochs=6,
        batch_size=16,
        random_state=0,
        verbose=0,
    ).fit(X, y)
    for stage in STAGES:
        assert beats_chance(y_test, clf.predict(X_test, stage=stage)), stage


def test_small_gray_arrays_are_learnt_from_scratch(data_folder):
    data = np.load(data_folder / "medmnist" / "pneumoniamnist.npz")
    rng = np.random.RandomState(0)

    def balanced(part, per_class):
        labels = data[f"{part}_labels"].ravel()
        index = np.concatenate(
            [rng.choice(np.flatnonzero(labels == c), per_class, replace=False) for c in (0, 1)]
        )
        return data[f"{part}_images"][index], labels[index]

    clf = DiffMICClassifier(
        backbone="resnet10t", pretrained=False, max_epochs=8, random_state=0, verbose=0
    ).fit(*balanced("train", 60))
    X_test, y_test = balanced("test", 60)
    for stage in STAGES:
        assert beats_chance(y_test, clf.predict(X_test, stage=stage)), stage


def test_several_findings_at_once_are_learnt_as_multilabel_targets(data_folder):
    table = read_csv(data_folder / "chest_xray_pneumonia" / "labels.csv")

    def findings(part, per_class):
        X, y = few(table.part(part), per_class)
        return X, np.stack([y != "normal", y == "pneumonia_bacterial"], axis=1).astype(int)

    clf = DiffMICClassifier(
        backbone="tf_efficientnet_lite0",
        image_size=96,
        max_epochs=6,
        batch_size=16,
        random_state=0,
        verbose=0,
    ).fit(*findings("train", 28))
    X_test, y_test = findings("test", 20)
    rng = np.random.RandomState(0)
    for stage in STAGES:
        proba = clf.predict_proba(X_test, stage=stage)
        chance = [classification_metrics(rng.permutation(y_test), proba)["auc"] for _ in range(500)]
        assert classification_metrics(y_test, proba)["auc"] > np.quantile(chance, 0.99), stage
