"""Doubt of the bundled model on real images, of the validation part."""

import numpy as np
import pytest
from scipy.stats import betabinom

from diffmic import DiffMICClassifier
from diffmic.datasets import read_csv

pytestmark = pytest.mark.real_data
N_IMAGES = 240


@pytest.fixture(scope="module")
def held_out(data_folder):
    table = read_csv(data_folder / "aptos2019_dr" / "labels.csv").part("val")
    order = np.random.RandomState(0).permutation(len(table))[:N_IMAGES]
    return [table.paths[i] for i in order], np.asarray(table.labels)[order]


@pytest.fixture(scope="module")
def classifier():
    return DiffMICClassifier.from_pretrained("diffmic-v2-aptos", device="cpu")


@pytest.mark.parametrize("stage", ["prior", "diffusion"])
def test_coverage_of_sets_lies_in_its_binomial_interval(classifier, held_out, stage):
    paths, y = held_out
    half = N_IMAGES // 2
    classifier.conformalize(paths[:half], y[:half])
    for coverage in (0.8, 0.9):
        sets = classifier.predict_set(paths[half:], coverage, stage=stage)
        measured = sets.coverage_of(y[half:])
        rank = int(np.ceil((half + 1) * coverage))
        low, high = betabinom(half, rank, half + 1 - rank).ppf([0.005, 0.995]) / half
        assert low <= measured[0]["coverage"] <= high
        assert [row["class"] for row in measured] == [None, 0, 1, 2, 3, 4]
        assert measured[0]["coverage"] <= sets.sizes.mean() < 3  # sets may be empty


def test_uncertain_images_are_wrong_more_often(classifier, held_out):
    paths, y = held_out
    doubt = classifier.predict_uncertainty(paths[:120], n_draws=8)
    right = classifier.classes_[doubt.proba.argmax(axis=1)] == y[:120]
    for by in ("entropy", "mutual_information"):
        unsure = doubt.most_uncertain(0.3, by)
        assert right[unsure].mean() < right[~unsure].mean() - 0.1
