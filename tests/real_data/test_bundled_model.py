"""What the package brings does on real images what its card says."""

import numpy as np
import pytest

from diffmic import DiffMICClassifier
from diffmic.datasets import read_csv

pytestmark = pytest.mark.real_data


@pytest.fixture(scope="module")
def test_part(data_folder):
    return read_csv(data_folder / "aptos2019_dr" / "labels.csv").part("test")


def test_the_bundled_model_does_on_the_test_part_what_its_card_says(test_part):
    clf = DiffMICClassifier.from_pretrained("diffmic-v2-aptos")
    found = clf.evaluate(test_part.paths, test_part.labels, ordered=True)
    assert clf.card_.n_test == len(test_part)
    for stage, told in clf.card_.test_scores.items():
        # Another processor may round otherwise; a percent is seven images.
        assert found[stage] == pytest.approx(told, abs=0.01)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_keeps_probabilities_on_real_images(data_folder, precision):
    """Four networks as in the paper, with wide layers; briefly trained, so that none is certain."""
    table = read_csv(data_folder / "busi_ultrasound" / "labels.csv")
    training, test = table.part("train"), table.part("test")
    clf = DiffMICClassifier.from_preset(
        "paper-v2",
        backbone="test_vit",
        prior_backbone="resnet10t",
        region_backbone="resnet10t",
        pretrained=False,
        image_size=160,
        feature_dim=1024,
        max_epochs=1,
        random_state=0,
        verbose=0,
    ).fit(training.paths[::4], training.labels[::4])
    whole = clf.predict_proba(test.paths)
    half = clf.set_params(precision=precision).predict_proba(test.paths)
    assert 0 < np.abs(half - whole).max() < 0.01
    assert (half.argmax(axis=1) == whole.argmax(axis=1)).mean() >= 0.995
