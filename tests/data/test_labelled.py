"""Unknown labels of multi-label tasks: what is left out, refused, counted, and split."""

import warnings

import numpy as np
import pytest

from diffmic.data import read_training_data
from diffmic.data.labelled import counts_table, label_counts
from diffmic.data.splits import validation_split
from diffmic.data.weights import by_class, class_weights
from diffmic.errors import DiffMICWarning, InputError
from diffmic.tasks import MULTILABEL

X = np.random.RandomState(0).randint(0, 256, (40, 8, 8)).astype(np.uint8)
NAN = np.nan


def partly(share=0.5, seed=0):
    """An indicator of three labels, of which a share is unknown."""
    rng = np.random.RandomState(seed)
    return np.where(rng.rand(40, 3) < share, NAN, rng.randint(0, 2, (40, 3)))


def read(y, **options):
    defaults = {
        "sample_weight": None,
        "groups": None,
        "validation_data": None,
        "validation_fraction": 0.25,
        "class_weight": None,
        "rng": np.random.RandomState(0),
    }
    return read_training_data(X, y, **{**defaults, **options})


def test_images_without_any_known_label_are_left_out_and_it_is_said():
    y = partly(0.3)
    y[[3, 17]] = NAN
    y[[a for a in range(40) if np.isnan(y[a]).all() and a not in (3, 17)]] = 1
    message = "of 2 of 40 images of X is known.* The first: image 3, image 17."
    with pytest.warns(DiffMICWarning, match=message) as warned:
        data = read(y, groups=np.arange(40) // 2)
    assert len(warned) == 1
    images = [*data.training.images, *data.validation.images]
    kept = np.delete(X, (3, 17), axis=0)
    assert sorted(int(image.sum()) for image in images) == sorted(int(x.sum()) for x in kept)


def test_a_label_that_is_never_known_is_an_error_that_names_it():
    y = partly()
    y[:, 1] = NAN
    with pytest.raises(InputError, match=r"labels \['edema'\] are not known for any training"):
        read(y, class_names=["mass", "edema", "nodule"])
    with pytest.raises(InputError, match="No label of any image of X is known"):
        read(np.full((40, 3), NAN))


def test_labels_that_never_change_are_pointed_out_in_one_warning():
    y = partly(0.2)
    y[:, 0] = np.where(np.isnan(y[:, 0]), NAN, 1)
    y[:, 2] = np.where(np.isnan(y[:, 2]), NAN, 0)
    with pytest.warns(DiffMICWarning, match=r"0 \(always present\), 2 \(never pr") as warned:
        read(y)
    assert len(warned) == 1


def test_unknown_labels_are_normal_and_give_no_warning():
    y = partly(0.3)
    y[np.isnan(y).all(axis=1)] = 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(y)


def test_both_parts_have_images_known_to_be_with_and_to_be_without_a_label():
    y = np.full((60, 3), NAN, np.float32)
    y[:, 0] = np.arange(60) % 2
    y[[3, 30], 1], y[[7, 50], 1] = 1, 0  # two known to be with, two without
    y[10:20, 2] = [0, 1] * 5
    for seed in range(10):
        parts = validation_split(y, 0.2, np.random.RandomState(seed), task=MULTILABEL)
        for part in parts:
            for label in range(3):
                assert set(y[part, label][~np.isnan(y[part, label])]) == {0, 1}


def test_counts_are_of_what_is_known():
    y = partly(0.3)
    y[np.isnan(y).all(axis=1)] = 1
    data = read(y)
    counts = [label_counts(part) for part in (data.training, data.validation)]
    for column, expected in {
        "positive": (y == 1).sum(axis=0),
        "negative": (y == 0).sum(axis=0),
        "unknown": np.isnan(y).sum(axis=0),
    }.items():
        np.testing.assert_array_equal(np.sum([c[column] for c in counts], axis=0), expected)
    table = counts_table(counts[0], ["mass", "edema", "nodule"]).splitlines()
    assert table[0].split() == ["positive", "negative", "unknown"]
    assert table[2].split() == ["edema", *(str(counts[0][c][1]) for c in counts[0])]
    assert len({len(line) for line in table}) == 1


def test_weights_do_not_see_unknown_labels():
    y = partly(0.4).astype(np.float32)
    y[np.isnan(y).all(axis=1)] = 1
    encoding = read(y).encoding
    zeros = np.nan_to_num(y)
    for kind in ("balanced", {1: 3.0}):
        expected = class_weights(zeros, encoding, kind)
        np.testing.assert_allclose(class_weights(y, encoding, kind), expected)
        np.testing.assert_allclose(by_class(y, expected), by_class(zeros, expected))


def test_the_weights_of_all_known_labels_have_the_mean_1():
    y = partly(0.4)
    y[np.isnan(y).all(axis=1)] = 1
    training = read(y, sample_weight=np.random.RandomState(0).rand(40)).training
    shares = (~training.targets.isnan()).float().mean(dim=1)
    assert float((training.weights * shares).mean()) == pytest.approx(1)


def test_uncertain_labels_of_training_and_validation_data_become_what_was_chosen():
    y = np.where(np.isnan(partly(0.3)), -1, partly(0.3))
    y[(y == -1).all(axis=1)] = 1
    with pytest.raises(InputError, match="uncertain='unknown'"):
        read(y)
    data = read(y, uncertain="unknown", validation_data=(X, y))
    np.testing.assert_array_equal(data.validation.targets, np.where(y == -1, NAN, y))
    data = read(y, uncertain="positive", validation_data=(X, y))
    np.testing.assert_array_equal(data.validation.targets, np.abs(y))


@pytest.mark.parametrize("how", ["sample_weight", "class_weight"])
def test_a_class_whose_images_have_no_weight_is_pointed_out(how):
    y = np.arange(40) % 3
    options = {"sample_weight": (y != 1).astype(float)}
    if how == "class_weight":
        options = {"class_weight": {1: 0.0}}
    with pytest.warns(DiffMICWarning, match=r"image of \['edema'\] has the weight zero") as warned:
        read(y, class_names=["mass", "edema", "nodule"], **options)
    assert len(warned) == 1


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0] * 39 + [NAN], r"with \[nan\], the first at index 39"),
        ([-1.0, *[1.0] * 39], r"with \[-1.0\], the first at index 0"),
        ([np.inf, *[1.0] * 39], r"with \[inf\], the first at index 0"),
        ([None, *[1.0] * 39], r"with \[None\], the first at index 0"),
        ([1.0] * 39, "40 images, but sample_weight has 39 entries"),
        ({"a.png": 1.0}, r"sample_weight is a dict with the keys \['a.png'\]"),
        ("balanced", "sample_weight has 1 entries"),
    ],
)
def test_weights_that_cannot_be_used_are_named(weights, message):
    with pytest.raises(InputError, match=message):
        read(np.arange(40) % 3, sample_weight=weights)
