"""The validation part: disjoint, complete; training has every class; no group on both sides."""

import math
import time

import numpy as np
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffmic.data.splits import validation_split
from diffmic.errors import DiffMICWarning, InputError
from diffmic.tasks import MULTILABEL

FRACTIONS = st.floats(0.02, 0.9)
SEEDS = st.integers(0, 2**32 - 1)


def one_hot(labels, n_classes=None):
    return np.eye(n_classes or max(labels) + 1, dtype=np.float32)[labels]


def split(targets, fraction, seed, **options):
    return validation_split(targets, fraction, np.random.RandomState(seed), **options)


def assert_parts(targets, train, validation):
    """Both parts hold something, together everything, and training holds every class."""
    assert len(train) > 0
    assert len(validation) > 0
    assert sorted([*train, *validation]) == list(range(len(targets)))
    assert ((targets[train].sum(axis=0) > 0) == (targets.sum(axis=0) > 0)).all()


@given(st.lists(st.integers(0, 4), min_size=2, max_size=60), FRACTIONS, SEEDS)
def test_parts_are_disjoint_and_complete_with_every_class_in_training(labels, fraction, seed):
    targets = one_hot(labels, 5)
    try:
        train, validation = split(targets, fraction, seed)
    except InputError as error:
        assert "too few" in str(error)  # noqa: PT017
        return
    assert_parts(targets, train, validation)


@given(st.integers(2, 5), st.integers(4, 30), st.floats(0.05, 0.5), SEEDS)
def test_even_classes_are_shared_out_evenly(n_classes, per_class, fraction, seed):
    labels = np.repeat(np.arange(n_classes), per_class)
    _, validation = split(one_hot(labels), fraction, seed)
    size = max(n_classes, math.ceil(fraction * len(labels)))
    counts = np.bincount(labels[validation], minlength=n_classes)
    assert counts.sum() == size
    assert counts.max() - counts.min() <= 1


def test_the_only_image_of_a_class_is_learnt_from():
    for seed in range(20):
        train, _ = split(one_hot([0] * 10 + [1] * 10 + [2]), 0.3, seed)
        assert 20 in train


def test_a_large_fraction_leaves_an_image_of_a_small_class_to_learn_from():
    targets = one_hot([0] * 50 + [1] * 2)
    for seed in range(20):
        assert_parts(targets, *split(targets, 0.9, seed))


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9)), min_size=2, max_size=60),
    FRACTIONS,
    SEEDS,
)
def test_groups_never_cross(pairs, fraction, seed):
    labels, groups = map(list, zip(*pairs, strict=True))
    targets = one_hot(labels, 3)
    try:
        train, validation = split(targets, fraction, seed, groups=groups)
    except InputError as error:
        assert "too few" in str(error)  # noqa: PT017
        return
    assert_parts(targets, train, validation)
    assert not {groups[i] for i in train} & {groups[i] for i in validation}


@pytest.mark.parametrize("kind", [str, float, lambda g: f"patient {g}"])
def test_groups_may_be_of_any_kind(kind):
    labels = np.arange(40) % 2
    expected = split(one_hot(labels), 0.25, 0, groups=np.arange(40) // 4)
    found = split(one_hot(labels), 0.25, 0, groups=[kind(i // 4) for i in range(40)])
    np.testing.assert_array_equal(found[1], expected[1])


def test_classes_are_alike_in_both_parts_though_groups_hold_one_class_each():
    labels = np.repeat(np.arange(40) % 2, 5)
    for seed in range(10):
        _, validation = split(one_hot(labels), 0.2, seed, groups=np.repeat(np.arange(40), 5))
        assert 0.35 < labels[validation].mean() < 0.65


def test_a_group_that_alone_has_a_class_is_learnt_from():
    labels, groups = [0, 1] * 10 + [2, 2], [*range(20), 99, 99]
    for seed in range(20):
        train, _ = split(one_hot(labels), 0.5, seed, groups=groups)
        assert {20, 21} <= set(train)


def test_many_classes_of_one_group_each_leave_the_other_groups_to_choose_from():
    labels = [*np.repeat(np.arange(20), 2), *np.tile([20, 21], 20)]
    groups = [*np.repeat(np.arange(20), 2), *np.repeat(np.arange(20, 40), 2)]
    targets = one_hot(labels)
    train, validation = split(targets, 0.4, 0, groups=groups)
    assert_parts(targets, train, validation)
    assert set(np.asarray(labels)[validation]) == {20, 21}


def test_a_large_fraction_leaves_a_group_to_learn_from():
    targets = one_hot([0, 1, 0, 1])
    assert_parts(targets, *split(targets, 0.9, 0, groups=[1, 1, 2, 2]))


@given(
    st.lists(st.lists(st.integers(0, 1), min_size=3, max_size=3), min_size=2, max_size=40),
    FRACTIONS,
    SEEDS,
)
def test_multilabel_parts_are_disjoint_and_complete_with_every_label_in_training(y, fraction, seed):
    targets = np.asarray(y, np.float32)
    try:
        train, validation = split(targets, fraction, seed, task=MULTILABEL)
    except InputError as error:
        assert "too few" in str(error)  # noqa: PT017
        return
    assert_parts(targets, train, validation)


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.35])
def test_the_share_of_images_is_the_fraction_though_groups_differ_in_size(fraction):
    rng = np.random.RandomState(0)
    groups = np.repeat(np.arange(60), rng.geometric(0.15, 60))
    labels = rng.randint(0, 3, 60)[groups]
    for seed in range(10):
        _, validation = split(one_hot(labels), fraction, seed, groups=groups)
        assert abs(len(validation) / len(labels) - fraction) < 0.02
        shares = np.bincount(labels[validation]) / np.bincount(labels)
        assert np.abs(shares - fraction).max() < 0.05


def test_one_large_group_does_not_make_the_validation_part_large():
    groups = np.repeat(np.arange(21), [60, *[2] * 20])
    labels = np.arange(100) % 2
    for seed in range(20):
        _, validation = split(one_hot(labels), 0.2, seed, groups=groups)
        assert len(validation) == 20


@pytest.mark.parametrize("n_rare", [2, 3])
def test_a_class_of_few_groups_has_an_image_on_each_side(n_rare):
    labels = np.repeat(np.arange(50) < n_rare, 3).astype(int)
    groups = np.repeat(np.arange(50), 3)
    for seed in range(20):
        for part in split(one_hot(labels), 0.1, seed, groups=groups):
            assert set(labels[part]) == {0, 1}


def rare_labels(n):
    """An indicator of a common label and of five that two to four images have."""
    rng = np.random.RandomState(0)
    targets = np.zeros((n, 6), np.float32)
    targets[:, 0] = rng.rand(n) < 0.5
    for label, count in enumerate((2, 2, 3, 3, 4), 1):
        targets[rng.choice(n, count, replace=False), label] = 1
    return targets


@pytest.mark.parametrize("n", [80, 3000])
def test_rare_labels_have_an_image_on_each_side(n):
    targets = rare_labels(n)
    for seed in range(5):
        parts = split(targets, 0.1, seed, task=MULTILABEL)
        assert all((targets[part].sum(axis=0) > 0).all() for part in parts)
        assert abs(len(parts[1]) / n - 0.1) < 0.03


def test_rare_labels_of_groups_have_an_image_on_each_side():
    targets, groups = rare_labels(400), np.arange(400) // 4
    having = [len(set(groups[targets[:, label] > 0])) for label in range(6)]
    assert min(having) >= 2
    for seed in range(5):
        train, validation = split(targets, 0.1, seed, groups=groups, task=MULTILABEL)
        assert not set(groups[train]) & set(groups[validation])
        assert all((targets[part].sum(axis=0) > 0).all() for part in (train, validation))


def test_a_rare_class_has_an_image_on_each_side():
    labels = np.repeat([0, 1, 2], [200, 100, 2])
    for seed in range(20):
        for part in split(one_hot(labels), 0.1, seed):
            assert set(labels[part]) == {0, 1, 2}


def test_many_images_are_split_in_a_moment():
    targets = (np.random.RandomState(0).rand(50_000, 14) < 0.05).astype(np.float32)
    start = time.perf_counter()
    _, validation = split(targets, 0.1, 0, task=MULTILABEL)
    assert time.perf_counter() - start < 10
    assert abs(len(validation) - 5000) < 50
    shares = targets[validation].sum(axis=0) / targets.sum(axis=0)
    assert np.abs(shares - 0.1).max() < 0.01


def test_multilabel_groups_never_cross():
    targets = np.random.RandomState(0).randint(0, 2, (60, 4)).astype(np.float32)
    groups = np.arange(60) // 3
    train, validation = split(targets, 0.2, 0, groups=groups, task=MULTILABEL)
    assert not set(groups[train]) & set(groups[validation])
    assert len(validation) == 12


@pytest.mark.parametrize(
    "options", [{}, {"groups": np.arange(40) // 2}, {"task": MULTILABEL}], ids=str
)
def test_the_same_seed_gives_the_same_split_and_another_seed_another(options):
    targets = one_hot(np.arange(40) % 4)
    first, second, other = (split(targets, 0.25, seed, **options)[1] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


def test_the_global_random_state_stays_as_it_was():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    split(one_hot(np.arange(40) % 4), 0.25, 0)
    split(one_hot(np.arange(40) % 4), 0.25, 0, groups=np.arange(40) // 2)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize(
    ("targets", "options", "found"),
    [
        (one_hot([0, 1]), {}, "2 images of 2 classes"),
        (one_hot([0, 0, 1, 1]), {"groups": [5, 5, 5, 5]}, r"4 images in 1 group\(s\)"),
        (one_hot([0, 0, 1, 1]), {"groups": [1, 1, 2, 2]}, r"4 images in 2 group\(s\)"),
        (np.eye(3, dtype=np.float32), {"task": MULTILABEL}, r"3 images"),
    ],
)
def test_too_few_images_are_an_error_with_a_way_out(targets, options, found):
    with pytest.raises(InputError, match=f"{found}.* too few.*validation_data.*=None"):
        split(targets, 0.2, 0, **options)


@pytest.mark.parametrize("container", [np.array, pandas.DataFrame, list])
def test_groups_of_one_column_are_groups(container):
    groups = [[patient] for patient in "aabbccdd"]
    training, validation = split(one_hot([0, 1] * 4), 0.25, 0, groups=container(groups))
    assert sorted([*training, *validation]) == list(range(8))
    assert not {groups[i][0] for i in training} & {groups[i][0] for i in validation}


@pytest.mark.parametrize("unknown", ["", "NA", "None", -1])
def test_unknown_patients_that_are_one_group_are_pointed_out(unknown):
    as_group = str if isinstance(unknown, str) else int
    groups = [unknown] * 2 + [as_group(i // 2) for i in range(6)]
    with pytest.warns(DiffMICWarning, match=f"groups holds {unknown!r}.*2 images stay together"):
        split(one_hot([0, 1] * 4), 0.25, 0, groups=groups)


def test_groups_of_two_types_are_an_error():
    with pytest.raises(InputError, match="groups mixes texts and other values, such as '1' and 1"):
        split(one_hot([0, 1] * 4), 0.25, 0, groups=[1, "1"] * 4)


@pytest.mark.parametrize("groups", [[1, np.nan, 2, 2], ["a", None, "b", "b"], [[1, 2]] * 4])
def test_missing_groups_are_an_error(groups):
    with pytest.raises(
        InputError, match=r"groups has shape \(.*one group per image, with none mis"
    ):
        split(one_hot([0, 1, 0, 1]), 0.5, 0, groups=groups)
