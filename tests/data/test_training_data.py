"""What fit is given: both parts, weights, and targets from wherever they are."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from diffmic.data import read_training_data
from diffmic.data.training_data import read_labelled
from diffmic.errors import InputError

N = 40
X = np.arange(N, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), np.uint8)
Y = np.arange(N) % 3


def read(X=X, y=Y, **options):
    defaults = {
        "sample_weight": None,
        "groups": None,
        "validation_data": None,
        "validation_fraction": 0.25,
        "class_weight": None,
        "rng": np.random.RandomState(0),
    }
    return read_training_data(X, y, **{**defaults, **options})


def numbers(part):
    """Numbers of the images of a part: each has its number for a pixel."""
    return [int(part.images[i][0, 0, 0]) for i in range(len(part.images))]


def test_parts_hold_every_image_once_with_its_own_target():
    data = read()
    train, validation = numbers(data.training), numbers(data.validation)
    assert sorted(train + validation) == list(range(N))
    assert len(validation) == 10
    for part, index in ((data.training, train), (data.validation, validation)):
        np.testing.assert_array_equal(part.targets.argmax(axis=1), Y[index])


def test_without_a_fraction_everything_is_learnt_from():
    data = read(validation_fraction=None)
    assert numbers(data.training) == list(range(N))
    assert data.validation is None


@pytest.mark.parametrize(
    "form",
    [
        lambda X, y: (X, y),
        lambda X, y: [X, y],
        lambda X, y: TensorDataset(torch.from_numpy(X)[:, None], torch.from_numpy(y)),
        lambda X, y: DataLoader(TensorDataset(torch.from_numpy(X)[:, None], torch.from_numpy(y))),
        lambda X, y: list(zip(X, y, strict=True)),
    ],
    ids=["tuple", "list", "Dataset", "DataLoader", "list of pairs"],
)
def test_validation_data_replaces_the_split(form):
    data = read(X[:30], Y[:30], validation_data=form(X[30:], Y[30:]))
    assert numbers(data.training) == list(range(30))
    assert numbers(data.validation) == list(range(30, N))
    np.testing.assert_array_equal(data.validation.targets.argmax(axis=1), Y[30:])


def test_validation_data_may_lack_classes():
    assert read(validation_data=(X[:1], Y[:1])).validation.targets.tolist() == [[1, 0, 0]]


@pytest.mark.parametrize(
    ("validation_data", "message"),
    [
        ((X[:3], Y[:2]), "3 images, but validation y has 2 entries"),
        ((X[:2], [0, 9]), r"unseen labels: \[9\]; the known classes are \[0, 1, 2\]"),
        ((X[:2], ["a", "b"]), r"unseen labels: \['a', 'b'\]"),
        ((X[:0], Y[:0]), "X holds no images"),
        ((X[:2], None), "y is missing"),
        (X[:3], "y is missing"),
        ((X[2:4] / 1.0, Y[:2]), "Divide them"),
        ((X[:2], np.eye(3)[:2]), "one label per image"),
        ("validation", "X is one image"),
    ],
)
def test_validation_data_are_checked_like_the_others(validation_data, message):
    with pytest.raises(InputError, match=message):
        read(validation_data=validation_data)


def test_targets_given_as_y_win_over_those_of_the_dataset():
    data = TensorDataset(torch.from_numpy(X)[:, None], torch.from_numpy(Y))
    np.testing.assert_array_equal(read_labelled(data, None, known_channels=1)[1], Y)
    np.testing.assert_array_equal(read_labelled(data, 2 - Y, known_channels=1)[1], 2 - Y)


def test_a_loader_lends_its_batch_size_and_workers():
    pairs = TensorDataset(torch.from_numpy(X)[:, None], torch.from_numpy(Y))
    data = read(DataLoader(pairs, batch_size=7, num_workers=1), None)
    assert (data.batch_size, data.num_workers) == (7, 1)
    assert (read().batch_size, read().num_workers) == (None, None)


def test_groups_stay_on_one_side():
    data = read(groups=np.arange(N) // 4)
    sides = [{i // 4 for i in numbers(part)} for part in (data.training, data.validation)]
    assert not sides[0] & sides[1]


def test_weights_of_the_training_part_have_a_mean_of_1():
    for options in ({}, {"sample_weight": np.arange(N)}, {"class_weight": {0: 10}}):
        weights = read(**options).training.weights
        assert weights.dtype == np.float32
        assert weights.mean() == pytest.approx(1)


@pytest.mark.parametrize("kind", [list, np.asarray, torch.from_numpy])
def test_sample_weights_go_with_their_images(kind):
    data = read(sample_weight=kind(np.arange(N) + 1.0))
    index = np.asarray(numbers(data.training))
    np.testing.assert_allclose(data.training.weights, (index + 1) / (index + 1).mean(), rtol=1e-6)


def test_class_weights_of_a_dict_go_with_their_classes():
    y = np.array(["a", "b", "c"])[Y]
    weights = read(y=y, class_weight={"a": 2, "b": 0.5}, validation_fraction=None).training.weights
    ratios = weights / weights[2]
    np.testing.assert_allclose(ratios, np.array([2, 0.5, 1])[Y], rtol=1e-6)


def test_balanced_weights_give_each_class_the_same_sum():
    y = np.repeat([0, 1, 2], [20, 15, 5])
    weights = read(y=y, class_weight="balanced", validation_fraction=None).training.weights
    np.testing.assert_allclose(np.bincount(y, weights), N / 3, rtol=1e-6)


def test_class_weights_multiply_sample_weights():
    weights = read(
        class_weight={0: 4}, sample_weight=np.arange(N) + 1, validation_fraction=None
    ).training.weights
    expected = (np.arange(N) + 1) * np.where(Y == 0, 4, 1)
    np.testing.assert_allclose(weights, expected / expected.mean(), rtol=1e-5)


def test_multilabel_class_weights_are_the_mean_of_the_labels_of_an_image():
    y = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0]] * 10)
    weights = read(y=y, class_weight={0: 3}, validation_fraction=None).training.weights
    np.testing.assert_allclose(weights[:4] / weights[1], [3, 1, 2, 1], rtol=1e-6)
    assert read(y=y, class_weight="balanced").training.weights.mean() == pytest.approx(1)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([-1.0] + [1.0] * (N - 1), r"at least 0, one each; found shape \(40,\) with \[-1\.0\]"),
        ([np.nan] + [1.0] * (N - 1), r"with \[nan\]"),
        ([np.inf] + [1.0] * (N - 1), r"with \[inf\]"),
        ([None] + [1.0] * (N - 1), r"with \[None\]"),
        (["much"] * N, r"with \['much', 'much', 'much'\]"),
        (np.ones((N, 1)), r"found shape \(40, 1\)\."),
        ([1.0] * (N + 1), "40 images, but sample_weight has 41 entries"),
        (1.0, "40 images, but sample_weight has 1 entries"),
        ([0.0] * N, "sample_weight is zero for every image"),
    ],
)
def test_sample_weights_that_are_no_weights_are_an_error(weights, message):
    with pytest.raises(InputError, match=message):
        read(sample_weight=weights)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({7: 2}, r"class_weight names \[7\], but the classes are \[0, 1, 2\]"),
        ({"0": 2}, r"class_weight names \['0'\]"),
        ("even", "class_weight is 'even'; give None, 'balanced' or a dict"),
        ([1, 2, 3], r"class_weight is \[1, 2, 3\]; give"),
        ({0: -1}, r"class_weight must hold .* with \[-1\.0\]"),
        ({0: np.nan}, r"class_weight must hold .* with \[nan\]"),
        ({0: "much"}, r"class_weight must hold .* with \['much'"),
        ({0: 0, 1: 0, 2: 0}, "class_weight is: nothing to learn from"),
    ],
)
def test_class_weights_that_are_no_weights_are_an_error(weights, message):
    with pytest.raises(InputError, match=message):
        read(class_weight=weights)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"y": Y[:-1]}, "40 images, but y has 39 entries"),
        ({"y": None}, "y is missing"),
        ({"y": np.zeros(N)}, "y holds one class"),
        ({"groups": [1, 2]}, "40 images, but groups has 2 entries"),
        ({"X": X[:0], "y": Y[:0]}, "X holds no images"),
        ({"X": X[:3], "y": Y[:3]}, "3 images of 3 classes are too few"),
    ],
)
def test_what_does_not_fit_together_is_an_error(options, message):
    with pytest.raises(InputError, match=message):
        read(**options)


def test_the_same_generator_gives_the_same_parts():
    assert numbers(read().validation) == numbers(read().validation)
    assert numbers(read().validation) != numbers(read(rng=np.random.RandomState(1)).validation)
