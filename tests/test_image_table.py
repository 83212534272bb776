"""Tables of image files, and matrices whose columns have names."""

import copy
import pickle

import numpy as np
import pytest
from PIL import Image
from sklearn.model_selection import train_test_split
from tiny import small, stripes

from diffmic import DiffMICClassifier
from diffmic.data.names import table_names
from diffmic.errors import InputError
from diffmic.image_table import ImageTable, NamedColumns

COLUMNS = ["a", "b", "c"]
VALUES = np.arange(12).reshape(4, 3)


def columns_of(y):
    names = table_names(y)
    return None if names is None else list(names.values())


@pytest.mark.parametrize(
    "keep",
    [
        lambda y: y[:2],
        lambda y: y[[3, 0]],
        lambda y: y[np.array([True, False, True, False])],
        lambda y: y[np.array([1, 2]), ...],
        lambda y: train_test_split(y, random_state=0)[0],
        lambda y: y.copy(),
        lambda y: y.astype(np.float32),
        copy.copy,
        copy.deepcopy,
        lambda y: pickle.loads(pickle.dumps(y)),
        lambda y: y > 3,
        lambda y: -y,
        lambda y: y + y,
        lambda y: np.maximum(y, 0),
    ],
)
def test_names_stay_with_rows_and_with_what_is_done_to_each_value(keep):
    kept = keep(NamedColumns(VALUES, COLUMNS))
    assert columns_of(kept) == COLUMNS
    np.testing.assert_array_equal(kept, keep(VALUES))


@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        (np.s_[:, ::-1], ["c", "b", "a"]),
        (np.s_[:, [2, 0]], ["c", "a"]),
        (np.s_[1:, 1:], ["b", "c"]),
    ],
)
def test_names_go_with_chosen_columns(chosen, names):
    found = NamedColumns(VALUES, COLUMNS)[chosen]
    assert columns_of(found) == names
    np.testing.assert_array_equal(found, VALUES[chosen])


@pytest.mark.parametrize(
    "change",
    [
        lambda y: y[:, 0],
        lambda y: y[:, :1],
        lambda y: y[1],
        lambda y: y.T,
        lambda y: np.roll(y, 1, axis=1),
        lambda y: np.take(y, [2, 1, 0], axis=1),
        lambda y: y.reshape(6, 2),
        lambda y: np.concatenate([y, y], axis=1),
        lambda y: y.sum(axis=1),
        lambda y: y[None],
        lambda y: y + NamedColumns(VALUES, ["c", "a", "b"]),
    ],
)
def test_whatever_else_is_made_has_no_names_rather_than_wrong_ones(change):
    found = change(NamedColumns(VALUES, COLUMNS))
    assert columns_of(found) is None


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    X, y = stripes(36)
    for i, image in enumerate(X):
        Image.fromarray(image).save(folder / f"{i}.png")
    labels = np.stack([y == 0, y != 1], axis=1).astype(int)
    splits = np.array(["train"] * 24 + ["val"] * 12)
    groups = np.array([f"P{i // 2}" for i in range(36)])
    paths = [folder / f"{i}.png" for i in range(36)]
    return ImageTable(paths, labels, ["edema", "mass"], splits, groups)


def test_names_of_the_columns_of_a_table_become_those_of_the_classes(table, fits):
    clf = DiffMICClassifier(**small(max_epochs=1)).fit(table.paths, table.labels)
    assert list(clf.class_names_) == ["edema", "mass"]


def test_a_table_is_labelled_images_with_groups(table, fits):
    part, other = table.part("train"), table.part("val")
    clf = DiffMICClassifier(**small(max_epochs=1)).fit(part)
    assert list(clf.class_names_) == ["edema", "mass"]
    _, training, validation, _ = fits[-1]
    indices = [set(np.asarray(p.images.indices)) for p in (training, validation)]
    patients = [{part.groups[i] for i in index} for index in indices]
    assert patients[0]
    assert patients[1]
    assert not patients[0] & patients[1]
    clf.fit(part, validation_data=other)
    assert len(fits[-1][2]) == 12
    assert clf.predict_proba(other).shape == (12, 2)
    assert clf.evaluate(other) == clf.evaluate(other.paths, other.labels)


def test_several_splits_are_not_learnt_together(table):
    clf = DiffMICClassifier(**small())
    with pytest.raises(InputError, match=r"splits \['train', 'val'\].*table.part\('val'\)"):
        clf.fit(table)
    with pytest.raises(InputError, match="splits"):
        clf.fit(table.part("train"), validation_data=table)
