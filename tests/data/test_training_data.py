"""What fit is given: both parts, weights, and targets from wherever they are."""

import warnings

import numpy as np
import pandas
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, TensorDataset

from diffmic.data import ValueRange, read_labelled, read_training_data
from diffmic.datasets import PublicDataset, Source
from diffmic.errors import DiffMICWarning, InputError
from diffmic.tasks import MULTICLASS, MULTILABEL

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
        np.testing.assert_array_equal(part.targets.argmax(dim=1), Y[index])


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
    np.testing.assert_array_equal(data.validation.targets.argmax(dim=1), Y[30:])


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
        ((X[:2], 1 - np.eye(3)[:2]), "a label per image"),
        ("validation", "X is one image"),
    ],
)
def test_validation_data_are_checked_like_the_others(validation_data, message):
    with pytest.raises(InputError, match=message):
        read(validation_data=validation_data)


def test_targets_given_as_y_win_over_those_of_the_dataset():
    data = TensorDataset(torch.from_numpy(X)[:, None], torch.from_numpy(Y))
    np.testing.assert_array_equal(
        read_labelled(data, None, known_channels=1, task=MULTICLASS)[1], Y
    )
    np.testing.assert_array_equal(
        read_labelled(data, 2 - Y, known_channels=1, task=MULTICLASS)[1], 2 - Y
    )


def test_a_loader_lends_its_batch_size():
    pairs = TensorDataset(torch.from_numpy(X)[:, None], torch.from_numpy(Y))
    assert read(DataLoader(pairs, batch_size=7), None).batch_size == 7
    assert read().batch_size is None


def test_y_beside_a_loader_that_shuffles_is_refused():
    images = TensorDataset(torch.from_numpy(X)[:, None])
    with pytest.raises(InputError, match="shuffles, so y cannot be in its order"):
        read(DataLoader(images, batch_size=7, shuffle=True), Y)
    assert len(read(DataLoader(images, batch_size=7), Y).training) > 0


def test_groups_stay_on_one_side():
    data = read(groups=np.arange(N) // 4)
    sides = [{i // 4 for i in numbers(part)} for part in (data.training, data.validation)]
    assert not sides[0] & sides[1]


def test_weights_of_the_training_part_have_a_mean_of_1():
    for options in ({}, {"sample_weight": np.arange(N)}, {"class_weight": {0: 10}}):
        weights = read(**options).training.weights
        assert weights.dtype == torch.float32
        assert float(weights.mean()) == pytest.approx(1)


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


def test_class_weights_may_be_given_by_display_name():
    named, weight = {"class_names": ["a", "b", "c"]}, {"a": 2, "b": 0.5}
    by_name = read(class_weight=weight, validation_fraction=None, **named).training.weights
    by_label = read(class_weight={0: 2, 1: 0.5}, validation_fraction=None, **named).training.weights
    np.testing.assert_array_equal(by_name, by_label)
    with pytest.raises(InputError, match=r"contains \['d'\].*named \['a', 'b', 'c'\]"):
        read(class_weight={"d": 1}, validation_fraction=None, **named)


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
    assert float(read(y=y, class_weight="balanced").training.weights.mean()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([-1.0] + [1.0] * (N - 1), r"at least 0, one each; found shape \(40,\) with \[-1\.0\]"),
        ([np.nan] + [1.0] * (N - 1), r"with \[nan\]"),
        ([np.inf] + [1.0] * (N - 1), r"with \[inf\]"),
        ([None] + [1.0] * (N - 1), r"with \[None\]"),
        (["much"] * N, r"with \['much', 'much', 'much'\]"),
        (np.ones((N, 2)), r"found shape \(40, 2\)\."),
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
        ({7: 2}, r"class_weight contains \[7\], but the classes are \[0, 1, 2\]"),
        ({"0": 2}, r"class_weight contains \['0'\]"),
        ("even", "class_weight is 'even'; give None, 'balanced' or a dict"),
        ([1, 2, 3], r"class_weight is \[1, 2, 3\]; give"),
        ({0: -1}, r"class_weight must hold .* with \[-1\.0\]"),
        ({0: np.nan}, r"class_weight must hold .* with \[nan\]"),
        ({0: "much"}, r"class_weight must hold .* with \['much'"),
        ({0: 0, 1: 0, 2: 0}, "class_weight is: there is nothing to learn from"),
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


def test_what_fits_a_task_is_asked_for_by_name():
    data = read(task="ordinal")
    assert data.encoding.task.name == "ordinal"
    with pytest.raises(InputError, match="task='multilabel' needs an indicator matrix"):
        read(task="multilabel")


def test_labels_of_an_evaluation_must_fit_the_task():
    indicator = np.eye(3, dtype=int)[Y]
    found = read_labelled(X, indicator, known_channels=1, task=MULTILABEL)[1]
    np.testing.assert_array_equal(found, indicator)
    with pytest.raises(InputError, match="the task is multilabel"):
        read_labelled(X, Y, known_channels=1, task=MULTILABEL)
    with pytest.raises(InputError, match="task needs a label per image"):
        read_labelled(X, 1 - indicator, known_channels=1, task=MULTICLASS)


def test_columns_whose_index_is_in_another_order_are_pointed_out():
    paths, labels = pandas.Series(list(X)), pandas.Series(Y)
    turned = labels.iloc[::-1]
    with pytest.warns(DiffMICWarning, match=r"X and y have the same .*pass y.loc\[X.index\]"):
        data = read(X=paths, y=turned)
    assert len(data.training) + len(data.validation) == N
    with pytest.warns(DiffMICWarning, match="y and sample_weight have the same index"):
        read(y=labels, sample_weight=turned + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(X=paths, y=labels)
        read(X=paths, y=labels.set_axis(range(100, 100 + N)))
        read(X=paths.iloc[::-1], y=turned)


@pytest.mark.parametrize("joined", [list, tuple])
def test_several_loaders_are_refused_with_the_way_out(joined):
    loader = DataLoader(TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)), 8)
    with pytest.raises(InputError, match=r"X is a list of DataLoaders.*ConcatDataset"):
        read(X=joined([loader, loader]), y=None)


def test_a_data_module_is_refused_with_the_way_out():
    class Module:
        def train_dataloader(self):
            raise AssertionError

    with pytest.raises(InputError, match=r"X.train_dataloader\(\), with validation_data=X.val_"):
        read(X=Module(), y=None)


def onehot_frame(labels, columns=("b", "a", "c")):
    return pandas.DataFrame(np.eye(3, dtype=int)[labels], columns=list(columns))


def test_columns_name_the_classes_of_rows_with_a_single_1():
    data = read(y=onehot_frame(Y), task="multiclass", validation_data=(X, onehot_frame(Y)))
    assert data.data_names == ("b", "a", "c")
    np.testing.assert_array_equal(data.training.targets.argmax(dim=1), Y)


def test_columns_in_another_order_are_compared_by_name():
    turned = onehot_frame(Y)[["c", "b", "a"]]
    with pytest.warns(DiffMICWarning, match="compared by name"):
        data = read(y=onehot_frame(Y), task="multiclass", validation_data=(X, turned))
    np.testing.assert_array_equal(data.validation.targets.argmax(dim=1), Y)


@pytest.mark.parametrize("labels", [[3, 5, 9], ["u", "v", "w"]])
def test_rows_with_a_single_1_without_names_are_in_the_order_of_the_classes(labels):
    found = read_labelled(X, np.eye(3)[Y], known_channels=1, task=MULTICLASS, classes=labels)[1]
    np.testing.assert_array_equal(found, np.asarray(labels)[Y])


@pytest.mark.parametrize("container", [np.array, pandas.DataFrame, list, torch.tensor])
def test_weights_of_one_column_are_weights(container):
    weights = np.arange(1, N + 1.0)
    column = container(weights[:, None].tolist())
    expected = read(sample_weight=weights).training.weights
    assert read(sample_weight=column).training.weights.tolist() == expected.tolist()


# Weights: those of classes are counted in the training part, and stay there.


def test_balanced_weights_are_counted_in_the_training_part_alone():
    y, y_validation = np.repeat([0, 1], N // 2), np.repeat([0, 1], [36, 4])
    data = read(y=y, validation_data=(X, y_validation), class_weight="balanced")
    assert data.training.weights.tolist() == [1.0] * N
    assert data.validation.weights.tolist() == [1.0] * N


@pytest.mark.parametrize("class_weight", ["balanced", {0: 5}])
def test_the_validation_part_of_a_split_has_sample_weights_alone(class_weight):
    y, weights = np.repeat([0, 1, 2], [28, 8, 4]), np.arange(N) + 1.0
    data = read(y=y, sample_weight=weights, class_weight=class_weight)
    np.testing.assert_allclose(data.validation.weights, weights[numbers(data.validation)])
    assert read(y=y, class_weight=class_weight).validation.weights.tolist() == [1.0] * 10


def test_balanced_weights_of_a_split_follow_the_counts_of_its_training_part():
    y = np.repeat([0, 1], [30, 10])
    groups = np.concatenate([np.arange(30), np.repeat([30, 31], [2, 8])])
    training = read(y=y, groups=groups, class_weight="balanced").training
    sums = np.bincount(training.targets.argmax(dim=1), training.weights)
    np.testing.assert_allclose(sums, len(training) / 2, rtol=1e-6)


def test_a_validation_part_without_weight_is_an_error():
    groups = np.repeat([0, 1], N // 2)
    weights = 1.0 - groups
    for seed in range(10):
        rng = np.random.RandomState(seed)
        with pytest.raises(InputError, match=r"zero for every image of the (validation|training)"):
            read(
                y=np.arange(N) % 2,
                groups=groups,
                sample_weight=weights,
                validation_fraction=0.5,
                rng=rng,
            )


# Which of (X, y) and two items validation_data is.


PICTURES = torch.from_numpy(X)[:, None]
TWO_ITEMS = {
    "pairs": lambda: [(PICTURES[3], 0), (PICTURES[4], 1)],
    "a tuple of pairs": lambda: ((PICTURES[3], 0), (PICTURES[4], 1)),
    "lists": lambda: [[PICTURES[3], 0], [PICTURES[4], 1]],
    "arrays": lambda: [(X[3], np.int64(0)), (X[4], np.int64(1))],
    "PIL images": lambda: [(Image.fromarray(X[3]), 0), (Image.fromarray(X[4]), 1)],
    "tensor labels": lambda: [(PICTURES[i], torch.tensor(i - 3)) for i in (3, 4)],
    "triples": lambda: [(PICTURES[3], 0, "patient"), (PICTURES[4], 1, "patient")],
    "dicts": lambda: [{"image": PICTURES[i], "label": i - 3} for i in (3, 4)],
}
A_PAIR = {
    "arrays": lambda: (X[3:5], Y[3:5]),
    "a list of arrays": lambda: [X[3:5], Y[3:5]],
    "lists": lambda: ([X[3], X[4]], [0, 1]),
    "tuples": lambda: ((X[3], X[4]), (0, 1)),
    "PIL images": lambda: ([Image.fromarray(X[3]), Image.fromarray(X[4])], [0, 1]),
    "pairs with other labels": lambda: ([(X[3], 7), (X[4], 7)], [0, 1]),
    "a Dataset": lambda: (TensorDataset(PICTURES[3:5]), [0, 1]),
    "a Dataset with targets": lambda: (TensorDataset(PICTURES[3:5], torch.tensor([0, 1])), None),
}


@pytest.mark.parametrize("form", [*TWO_ITEMS.values(), *A_PAIR.values()])
def test_validation_data_of_two_images_are_understood(form):
    validation = read(validation_data=form()).validation
    assert numbers(validation) == [3, 4]
    assert validation.targets.argmax(dim=1).tolist() == [0, 1]


@pytest.mark.parametrize("kind", [list, tuple])
def test_files_tell_two_items_from_a_pair(tmp_path, kind):
    files = [str(tmp_path / f"{i}.png") for i in (3, 4)]
    for i, file in zip((3, 4), files, strict=True):
        Image.fromarray(X[i]).save(file)
    labels = ["a", "b"]
    items = [kind(item) for item in zip(files, labels, strict=True)]
    for validation_data in ((kind(files), kind(labels)), items):
        validation = read(y=np.array(["a", "b"])[Y % 2], validation_data=validation_data).validation
        assert numbers(validation) == [3, 4]
        assert validation.targets.argmax(dim=1).tolist() == [0, 1]


def test_validation_data_that_could_be_either_are_an_error_with_a_way_out(tmp_path):
    file = tmp_path / "a.png"
    Image.fromarray(X[0]).save(file)
    with pytest.raises(InputError, match=r"not clear .*\(np.array\(images\), np.array\(labels\)\)"):
        read(validation_data=[(str(file), str(file)), (str(file), str(file))])


# Reading: each item once, and each cause one warning.


class Counted(Dataset):
    """A Dataset that counts how often its items are read."""

    def __init__(self, **attributes):
        self.n_read = 0
        vars(self).update(attributes)

    def __len__(self):
        return N

    def __getitem__(self, index):
        self.n_read += 1
        return PICTURES[index], int(Y[index])


@pytest.mark.parametrize("wrap", [lambda data: data, lambda data: DataLoader(data, batch_size=4)])
@pytest.mark.parametrize("attributes", [{}, {"targets": Y.tolist()}])
def test_items_are_read_once_before_training(wrap, attributes):
    data = Counted(**attributes)
    found = read(wrap(data), None)
    assert data.n_read == N
    assert found.image_shape == (1, 4, 4)
    assert sorted(numbers(found.training) + numbers(found.validation)) == list(range(N))


def test_items_of_validation_data_are_read_once_before_training():
    data = Counted()
    read(validation_data=data)
    assert data.n_read == N


def test_a_column_of_labels_gives_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read(y=Y[:, None]).training
    np.testing.assert_array_equal(found.targets, read().training.targets)


def test_one_hot_rows_are_pointed_out_once():
    with pytest.warns(DiffMICWarning) as warned:
        read(y=np.eye(3, dtype=int)[Y])
    assert [str(warning.message)[:31] for warning in warned] == ["Each row of y has a single 1. A"]
    assert warned[0].filename == __file__


def twelve_bits(tmp_path, maximum=4095):
    """Files of 16 bits whose pixels use 12."""
    rng = np.random.RandomState(0)
    files = [tmp_path / f"{i}.png" for i in range(12)]
    for file in files:
        pixels = rng.randint(0, maximum + 1, (8, 8))
        pixels[0, 0] = maximum
        Image.fromarray(pixels.astype(np.uint16)).save(file)
    return files


def test_floats_that_use_a_small_part_of_their_range_are_pointed_out_once(tmp_path):
    floats = [np.asarray(Image.open(file)) / np.float32(65535) for file in twelve_bits(tmp_path)]
    with pytest.warns(DiffMICWarning, match=r"0\.0625 .*4095 of 65535.*perhaps 4095") as warned:
        read(np.stack(floats), np.arange(12) % 2)
    assert len(warned) == 1
    assert warned[0].filename == __file__


@pytest.mark.parametrize(
    "form",
    [
        lambda files: files,
        lambda files: [Image.open(file) for file in files],
        lambda files: [np.asarray(Image.open(file)) for file in files],
        lambda files: [(Image.open(file), 0) for file in files],
        lambda files: np.stack([np.asarray(Image.open(file)) for file in files]),
        lambda files: torch.stack([torch.tensor(np.asarray(Image.open(f))) for f in files]),
    ],
    ids=["files", "PIL images", "list of arrays", "items", "array", "tensor"],
)
@pytest.mark.parametrize("maximum", [4095, 3000, 255])
def test_the_range_of_images_that_use_few_of_16_bits_is_found(tmp_path, form, maximum):
    files = twelve_bits(tmp_path, maximum)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = read(form(files), np.arange(12) % 2)
    top = 255 if maximum == 255 else 4095
    assert data.training.value_range == data.validation.value_range == ValueRange(0, top)
    for part in (data.training, data.validation):
        prepared = part.prepared(8)
        for i in range(len(part)):
            image = prepared[i]["image"]
            assert float(image.max()) == pytest.approx(maximum / top)


@pytest.mark.parametrize("maximum", [0, 8192, 65535])
def test_images_that_use_their_bits_or_are_all_black_give_no_warning(tmp_path, maximum):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(twelve_bits(tmp_path, maximum), np.arange(12) % 2)


# A part of the data.


def test_a_part_prepares_its_images_and_gives_their_labels():
    part = read(sample_weight=np.arange(N) + 1.0).validation
    prepared = part.prepared(8, augment=lambda image: 255 - image, seed=3)
    first = numbers(part)[0]
    assert len(prepared) == len(part) == 10
    assert prepared[0]["image"].shape == (3, 8, 8)
    assert int(prepared[0]["image"].max()) == 255 - first
    assert prepared.seed == 3
    targets, weights = part.labels(torch.tensor([0]), torch.device("cpu"))
    assert targets.argmax(dim=1).tolist() == [Y[first]]
    assert weights.tolist() == [first + 1]


def test_held_out_images_of_weight_zero_are_not_measured():
    weights = (np.arange(N) % 2).astype(float)
    validation = read(sample_weight=weights, validation_fraction=0.5).validation
    assert len(validation) > 5
    assert all(number % 2 for number in numbers(validation))


def test_groups_that_are_in_both_parts_are_counted():
    X, y = np.zeros((8, 8, 8), np.uint8), np.arange(8) % 2
    splits = np.array(["train", "val"])[[0, 0, 0, 0, 0, 1, 1, 1]]
    patients = np.array(list("aabbccde"))
    source = Source("t", "u", "l", "c", "f")
    table = PublicDataset(X, y, {0: "a", 1: "b"}, splits, patients, source, ())
    with pytest.warns(DiffMICWarning, match="1 of the 3 groups of validation_data"):
        read(table.part("train"), None, validation_data=table.part("val"))
    with pytest.warns(DiffMICWarning, match="validation_data are the training images"):
        read(X, y, validation_data=(X, y))
    with warnings.catch_warnings():
        warnings.simplefilter("error", DiffMICWarning)
        read(X[:5], y[:5], validation_data=table.part("val"), groups=list("fghij"))
