"""Display names: those that are given, and two sources of data that are compared by name."""

import enum
import warnings

import numpy as np
import pandas
import pytest
from torch.utils.data import Dataset

from diffmic.data import read_labelled, read_training_data
from diffmic.data.class_names import aligned, data_names, given_names
from diffmic.errors import DiffMICWarning, InputError
from diffmic.tasks import MULTICLASS, MULTILABEL

X = np.random.RandomState(0).randint(0, 256, (30, 8, 8)).astype(np.uint8)
Y = np.arange(30) % 3


class Folder(Dataset):
    """Images of classes by name, numbered in the order of ``names``, as ImageFolder does it."""

    def __init__(self, names, of=("benign", "malignant", "normal"), n=30):
        self.class_to_idx = {name: number for number, name in enumerate(names)}
        self.targets = [self.class_to_idx[of[i % len(of)]] for i in range(n)]

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        return X[index], self.targets[index]


def read(data, y=None, **options):
    defaults = {
        "sample_weight": None,
        "groups": None,
        "validation_data": None,
        "validation_fraction": 0.25,
        "class_weight": None,
        "rng": np.random.RandomState(0),
    }
    return read_training_data(data, y, **{**defaults, **options})


@pytest.mark.parametrize(
    "given",
    [
        ["a", "b", "c"],
        ("a", "b", "c"),
        pandas.Index(["a", "b", "c"]),
        {2: "c", 0: "a", 1: "b"},
        {np.int64(n): name for n, name in enumerate("abcd")},
    ],
)
def test_names_are_given_in_order_or_by_label(given):
    assert given_names(given, [0, 1, 2]) == ("a", "b", "c")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["a", "b"], r"class_names has 2 names, but y holds 3 classes: \[0, 1, 2\].*dict.*=None"),
        ({0: "a", 2: "c"}, r"no name for the labels \[1\]; the classes are \[0, 1, 2\]"),
        ({"a": 0, "b": 1, "c": 2}, "Turn it round"),
        ({"0": "a", "1": "b", "2": "c"}, "Its keys are text"),
        (["a", "b", "a"], "give each class a name of its own"),
        (["a", None, "b"], "give each class a name of its own"),
        ({"a", "b", "c"}, "give a list with one name per class"),
        ((name for name in "abc"), "give a list with one name per class"),
    ],
)
def test_names_that_do_not_fit_are_refused(given, message):
    with pytest.raises(InputError, match=message):
        given_names(given, [0, 1, 2])


def test_names_of_data_are_taken_where_they_say_more_than_the_labels():
    assert data_names({0: "a", 1: "b", 2: "c"}, [0, 1]) == ("a", "b")
    assert data_names(None, [0, 1]) is None
    assert data_names({0: "a"}, [0, 1]) is None
    assert data_names({0: "0", 1: "1"}, [0, 1]) is None
    assert data_names({0: "a", 1: "a"}, [0, 1]) is None


def test_names_come_from_a_dataset_a_table_and_an_enumeration():
    assert read(Folder(["benign", "malignant", "normal"])).data_names == (
        "benign",
        "malignant",
        "normal",
    )
    frame = pandas.DataFrame({"edema": Y == 0, "mass": Y > 0})
    assert read(X, frame, task="multilabel").data_names == ("edema", "mass")
    finding = enum.Enum("Finding", ["BENIGN", "MALIGNANT", "NORMAL"])
    found = read(X, [finding(1 + label) for label in Y])
    assert found.data_names == ("BENIGN", "MALIGNANT", "NORMAL")
    assert found.encoding.classes.tolist() == [1, 2, 3]
    assert read(Folder(["benign", "malignant", "normal"]), Y).data_names is None  # y is another


def align(y, theirs, ours=("benign", "malignant", "normal"), **options):
    defaults = {"classes": [0, 1, 2], "task": MULTICLASS, "where": "X", "certain": True}
    return aligned(y, theirs, ours, **{**defaults, **options})


def test_labels_with_the_same_names_stay_as_they_are():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for y in (Y, Y.tolist(), pandas.Series(Y), Y[:, None]):
            found = align(y, {0: "benign", 1: "malignant", 2: "normal", 3: "other"})
            np.testing.assert_array_equal(np.ravel(found), Y)
            np.testing.assert_array_equal(np.ravel(align(y, None)), Y)
            np.testing.assert_array_equal(np.ravel(align(y, {0: "a", 1: "b"}, None)), Y)


def test_labels_of_other_numbers_are_compared_by_name_and_it_is_said():
    theirs = {0: "normal", 1: "benign", 2: "malignant"}
    with pytest.warns(DiffMICWarning, match="'normal' is 0 there, and 2 here.*by name") as warned:
        found = align([0, 1, 2, 0], theirs)
    assert found.tolist() == [2, 0, 1, 2]
    assert len(warned) == 1
    assert warned[0].filename == __file__


def test_a_class_that_the_training_data_do_not_have_is_refused():
    with pytest.raises(InputError, match=r"X has the classes \['other'\].*do not have"):
        align([0, 3], {0: "benign", 1: "malignant", 2: "normal", 3: "other"})
    with pytest.raises(InputError, match=r"X has the classes \['cat', 'dog'\]"):
        align([0, 1], {0: "cat", 1: "dog"})
    align([0, 1], {0: "benign", 1: "malignant", 2: "other"})  # of which there is no image


def test_names_for_display_may_differ_from_those_of_the_data():
    with pytest.warns(DiffMICWarning, match="taken as they are. Pass y to say"):
        found = align([0, 1], {0: "cat", 1: "dog"}, certain=False)
    assert found == [0, 1]
    with pytest.warns(DiffMICWarning, match="by name"):
        found = align([0, 1], {0: "normal", 1: "benign"}, certain=False)
    assert found.tolist() == [2, 0]


def test_words_and_numbers_with_the_same_names_are_the_same_classes():
    words = ["benign", "malignant", "normal"]
    found = align([1, 2, 0], {0: "normal", 1: "benign", 2: "malignant"}, None, classes=words)
    assert found.tolist() == words
    assert align(["normal", "benign"], None).tolist() == [2, 0]
    assert align(["normal", "strange"], None) == ["normal", "strange"]  # refused when encoded


def columns(**options):
    return {"ours": ("edema", "mass"), "task": MULTILABEL, "classes": [0, 1], **options}


def test_columns_are_compared_by_name():
    y = np.array([[0, 1], [1, np.nan]])
    same = {0: "edema", 1: "mass"}
    np.testing.assert_array_equal(align(y, same, **columns()), y)
    turned = {0: "mass", 1: "edema"}
    np.testing.assert_array_equal(align(y, turned, **columns()), y[:, ::-1])
    np.testing.assert_array_equal(align(y, None, **columns()), y)
    np.testing.assert_array_equal(align(y, {0: "0", 1: "1"}, **columns()), y)
    with pytest.raises(InputError, match=r"lacks \['mass'\], and has \['nodule'\] besides"):
        align(y, {0: "edema", 1: "nodule"}, **columns())
    with pytest.raises(InputError, match=r"lacks \[\], and has \['nodule'\] besides"):
        align(y, {0: "edema", 1: "mass", 2: "nodule"}, **columns(certain=False))
    with pytest.warns(DiffMICWarning, match="taken in their order"):
        align(y, {0: "Ödem", 1: "Knoten"}, **columns(certain=False))


def test_validation_data_with_other_numbers_are_compared_by_name():
    with pytest.warns(DiffMICWarning, match="classes of validation_data are numbered otherwise"):
        data = read(
            Folder(["benign", "malignant", "normal"]),
            validation_data=Folder(["normal", "malignant", "benign"]),
        )
    np.testing.assert_array_equal(data.validation.targets.argmax(dim=1), Y)
    with pytest.raises(InputError, match=r"validation_data has the classes \['cyst'\]"):
        read(
            Folder(["benign", "malignant"], of=("benign", "malignant")),
            validation_data=Folder(["benign", "cyst"], of=("benign", "cyst")),
        )
    with pytest.raises(InputError, match=r"unseen labels: \[7\]; the known .*0 \(benign\)"):
        read(Folder(["benign", "malignant", "normal"]), validation_data=(X[:2], [0, 7]))


def test_columns_of_validation_data_are_compared_by_name():
    y = pandas.DataFrame({"edema": Y == 0, "mass": Y > 0})
    data = read(X, y, task="multilabel", validation_data=(X, y[["mass", "edema"]]))
    np.testing.assert_array_equal(data.validation.targets, y)


def test_labels_of_an_evaluation_are_compared_by_name():
    options = {"known_channels": 1, "task": MULTICLASS, "classes": [0, 1, 2], "certain": True}
    names = ("benign", "malignant", "normal")
    with pytest.warns(DiffMICWarning, match="classes of X are numbered otherwise"):
        _, found = read_labelled(
            Folder(["normal", "malignant", "benign"]), None, names=names, **options
        )
    np.testing.assert_array_equal(found, Y)
    words = np.array(names)[Y]
    np.testing.assert_array_equal(read_labelled(X, words, names=names, **options)[1], Y)


def test_names_of_an_enumeration_are_those_of_its_members():
    assert given_names(enum.Enum("Finding", "benign malignant"), [0, 1]) == ("benign", "malignant")


@pytest.mark.parametrize("name", ["", "  ", None])
def test_an_empty_name_is_refused(name):
    with pytest.raises(InputError, match="a name of its own"):
        given_names(["a", name], [0, 1])


def test_two_columns_of_one_name_are_pointed_out():
    with pytest.warns(DiffMICWarning, match="are named 'a', so the names are not used"):
        assert data_names({0: "a", 1: "a"}, [0, 1]) is None
