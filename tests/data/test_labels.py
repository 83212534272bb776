"""Class labels of every kind that people have, and what is said of those that are none."""

import enum
import warnings
from collections import deque
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffmic.data import TargetEncoding
from diffmic.data.columns import as_objects
from diffmic.data.targets import as_targets
from diffmic.errors import DiffMICWarning, InputError
from diffmic.tasks import ORDINAL, TASKS

NAN = float("nan")


class Finding(enum.Enum):
    BENIGN = 0
    MALIGNANT = 1


class Word(enum.StrEnum):
    A = "a"
    B = "b"


KINDS = {
    "integers of dtype object": (np.array([2, 1], object), [1, 2], "i"),
    "booleans of dtype object": (np.array([True, False], object), [False, True], "b"),
    "numpy scalars of dtype object": (np.array([np.int8(2), np.int64(1)], object), [1, 2], "i"),
    "strings of dtype object": (np.array(["b", "a"], object), ["a", "b"], "O"),
    "bytes": (np.array([b"b", b"a"]), ["a", "b"], "U"),
    "bytes of dtype object": (np.array([b"b", b"a"], object), ["a", "b"], "O"),
    "a list of bytes": (["ä".encode(), b"a"], ["a", "ä"], "U"),
    "numpy strings": ([np.str_("b"), np.str_("a")], ["a", "b"], "U"),
    "an enumeration": ([Finding.MALIGNANT, Finding.BENIGN], [0, 1], "i"),
    "an enumeration of strings": ([Word.B, Word.A], ["a", "b"], "U"),
    "a categorical with unused classes": (
        pandas.Categorical(["b", "a"], categories=["z", "b", "a"]),
        ["a", "b"],
        "O",
    ),
    "a categorical of integers": (pandas.Series([3, 1], dtype="category"), [1, 3], "i"),
    "nullable integers": (pandas.Series([2, 1], dtype="Int64"), [1, 2], "i"),
    "nullable booleans": (pandas.Series([True, False], dtype="boolean"), [False, True], "b"),
    "a table of one column": (pandas.DataFrame({"y": ["b", "a"]}), ["a", "b"], "O"),
    "tensors": ([torch.tensor(2), torch.tensor([1])[0]], [1, 2], "i"),
    "tensors of one entry": ([torch.tensor([2]), torch.tensor([1])], [1, 2], "i"),
    "a tensor of booleans": (torch.tensor([True, False]), [False, True], "b"),
    "a tensor of half precision": (torch.tensor([2.0, 1.0], dtype=torch.bfloat16), [1, 2], "f"),
    "arrays without dimensions": ([np.array("b"), np.array("a")], ["a", "b"], "U"),
    "a deque": (deque(["b", "a"]), ["a", "b"], "U"),
    "the values of a dict": ({"x.png": "b", "y.png": "a"}.values(), ["a", "b"], "U"),
    "whole floats": ([2.0, 1.0], [1, 2], "f"),
    "large integers": ([2**62, 1], [1, 2**62], "i"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_labels_of_every_kind_are_plain_numbers_or_strings(kind):
    y, classes, dtype = KINDS[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoding = TargetEncoding.learn(y)
        assert encoding.encode(y).tolist() == [[0, 1], [1, 0]]
    assert encoding.classes.tolist() == classes
    assert encoding.classes.dtype.kind == dtype


MISSING = {
    "NaN in a list of strings": ["a", NAN, "b"],
    "None in a list of strings": ["a", None, "b"],
    "NaN in a tuple": ("a", NAN, "b"),
    "an array that numpy made of a list": np.array(["a", NAN, "b"]),
    "an object array of texts": np.array(["a", "nan", "b"], object),
    "strings of variable length": np.array(["a", "nan", "b"], np.dtypes.StringDType()),
    "a Series": pandas.Series(["a", None, "b"]),
    "a Series of strings": pandas.Series(["a", None, "b"], dtype="string"),
    "a categorical": pandas.Categorical(["a", None, "b"]),
    "NaT": np.array(["a", pandas.NaT, "b"], object),
    "pandas.NA in a list": ["a", pandas.NA, "b"],
    "a masked array": np.ma.array([0, 7, 1], mask=[0, 1, 0]),
    "a masked array of strings": np.ma.array(["a", "?", "b"], mask=[0, 1, 0]),
    "NaN in a list of integers": [0, NAN, 1],
    "None in a list of floats": [0.0, None, 1.0],
    "nullable integers": pandas.Series([0, None, 1], dtype="Int64"),
    "a tensor": torch.tensor([0, NAN, 1]),
    "a column": [["a"], [None], ["b"]],
    "a table of one column": pandas.DataFrame({"y": ["a", None, "b"]}),
    "an enumeration": [Finding.BENIGN, None, Finding.MALIGNANT],
    "bytes": np.array([b"a", b"nan", b"b"]),
}


@pytest.mark.parametrize("kind", MISSING)
def test_a_missing_label_is_missing_in_any_container(kind):
    with pytest.raises(InputError, match=r"NaN, infinity or None.*1 of 3 have none, .* image 1"):
        as_targets(MISSING[kind])


@pytest.mark.parametrize("text", ["", " ", "None", "nan"])
def test_a_word_that_may_stand_for_nothing_is_pointed_out_where_the_user_called(text):
    with pytest.warns(DiffMICWarning, match="remove these images") as warned:
        assert TargetEncoding.learn(["a", text]).classes.tolist() == sorted(["a", text])
    assert [w.filename for w in warned] == [__file__]


def test_as_many_labels_as_identifiers_are_pointed_out():
    with pytest.warns(DiffMICWarning, match="30 different labels for 30 images") as warned:
        TargetEncoding.learn([f"patient {i}" for i in range(30)])
    assert len(warned) == 1


REFUSED = {
    "a dict": ({"a.png": 0, "b.png": 1}, r"y is a dict with the keys \['a.png', 'b.png'\]; give a"),
    "a set": ({"a", "b"}, "y is a set; give a list"),
    "a generator": ((c for c in "ab"), "y is a generator; give a list"),
    "a path": ("labels.csv", r"y has shape \(\), the single value 'labels.csv'"),
    "files": (["x/1.png", "x/2.JPG"], "y holds names of image files, such as 'x/1.png'"),
    "strings and numbers": ([1, "a"], "y mixes strings and numbers, such as 'a' and 1"),
    "lists of labels": ([["a", "b"], ["a"]], r"collections of labels.*MultiLabelBinarizer"),
    "sets of labels": ([{"a", "b"}, {"a"}], r"collections of labels.*MultiLabelBinarizer"),
    "a Series of lists": (pandas.Series([["a"], ["b"]]), "collections of labels.*MultiLabelBin"),
    "dates": (pandas.Series(pandas.to_datetime(["2020", "2021"])), "data type datetime64"),
    "objects": ([object(), object()], "y holds objects, such as <object.*must be integers"),
    "integers beyond 64 bits": ([2**70, 1], "64 bits cannot represent; give such labels as str"),
    "integers that would be floats": ([2**63, -1], "64 bits cannot represent"),
    "bytes that are no text": ([b"\xff", b"a"], r"bytes b'\\xff', which are no text in UTF-8"),
    "a table": (
        pandas.DataFrame({"image": ["a.png", "b.png"], "label": ["a", "b"]}),
        r"table with the columns \['image', 'label'\].*one column",
    ),
    "rows of words": ([["a", "b"], ["a", "c"]], r"found \['a', 'b', 'c'\].*MultiLabelBinarizer"),
    "an indicator as text": ([["0", "1"], ["1", "1"]], "numbers as text: .*astype"),
    "probabilities": ([[0.0, 0.3], [0.7, 1.0]], r"found \[0\.3, 0\.7\].*y >= 0\.5"),
    "records": (np.array([(1, 2)], [("a", int), ("b", int)]), "data type"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_label_is_refused_with_what_to_do(kind):
    y, message = REFUSED[kind]
    with pytest.raises(InputError, match=message):
        as_targets(y)


ONE_UNKNOWN = {
    "floats": [[0, NAN], [1, 1]],
    "None": [[0, None], [1, 1]],
    "objects": np.array([[0, None], [True, 1]], object),
    "nullable integers": pandas.DataFrame(
        {"a": pandas.array([0, 1], "Int64"), "b": pandas.array([None, 1], "Int64")}
    ),
    "nullable booleans": pandas.DataFrame(
        {"a": [False, True], "b": pandas.array([None, True], "boolean")}
    ),
    "a masked array": np.ma.array([[0, 7], [1, 1]], mask=[[0, 1], [0, 0]]),
    "tensors": [torch.tensor([0, NAN]), torch.tensor([1.0, 1.0])],
}


@pytest.mark.parametrize("kind", ONE_UNKNOWN)
def test_an_unknown_label_of_an_indicator_is_nan(kind):
    y = ONE_UNKNOWN[kind]
    np.testing.assert_array_equal(as_targets(y), [[0, np.nan], [1, 1]])
    np.testing.assert_array_equal(TargetEncoding.learn(y).encode(y), [[0, np.nan], [1, 1]])


def test_a_sparse_indicator_is_read():
    y = [[0, 1], [1, 1]]
    assert as_targets(scipy.sparse.csr_matrix(y)).tolist() == y
    assert as_targets(torch.tensor(y).to_sparse()).tolist() == y


@pytest.mark.parametrize(
    ("uncertain", "expected"), [("unknown", np.nan), ("positive", 1), ("negative", 0)]
)
@pytest.mark.parametrize("kind", [np.array, pandas.DataFrame, lambda y: np.array(y, object)])
def test_uncertain_labels_become_what_was_chosen(uncertain, expected, kind):
    y = kind([[0, -1], [1, 1]])
    encoding = TargetEncoding.learn(y, uncertain=uncertain)
    np.testing.assert_array_equal(encoding.encode(y), [[0, expected], [1, 1]])


def test_uncertain_labels_are_refused_until_a_choice_is_made():
    with pytest.raises(InputError, match=r"found \[-1\].*CheXpert.*uncertain='unknown', 'pos"):
        as_targets([[0, -1], [1, 1]])
    with pytest.raises(InputError, match=r"found \[-2\]"):
        as_targets([[0, -2], [1, -1]], uncertain="unknown")
    assert as_targets([-1, 1], uncertain="unknown").tolist() == [-1, 1]  # classes of their own


@pytest.mark.parametrize("kind", [pandas.Series, lambda y: y, lambda y: pandas.DataFrame({"y": y})])
def test_an_ordered_categorical_gives_the_order_of_grades(kind):
    order = ["none", "mild", "extreme", "severe"]
    y = kind(pandas.Categorical(["mild", "none", "severe"], order, ordered=True))
    encoding = TargetEncoding.learn(y, "ordinal")
    assert encoding.task is ORDINAL
    assert encoding.classes.tolist() == ["none", "mild", "severe"]
    assert encoding.encode(["severe", "none"]).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert TargetEncoding.learn(y).task is ORDINAL
    assert TargetEncoding.learn(y).classes.tolist() == ["none", "mild", "severe"]
    unasked = TargetEncoding.learn(y, "multiclass")
    assert unasked.classes.tolist() == ["mild", "none", "severe"]


def test_grades_in_words_without_an_order_are_refused_with_the_ways_out():
    unordered = pandas.Categorical(["mild", "none"], ["none", "mild"])
    with pytest.raises(InputError, match=r"order is unknown.*class_names.*ordered=True.*'auto'"):
        TargetEncoding.learn(unordered, "ordinal")
    with pytest.raises(InputError, match=r"These words are numbers: y.astype"):
        TargetEncoding.learn(["10", "2"], "ordinal")


@pytest.mark.parametrize(
    ("known", "y", "message"),
    [
        ([0, 1], ["0.0", "1.0"], r"known classes are \[0 \(benign\), 1 \(malignant\)\].*as text"),
        (["0", "1"], [0, 1], "They are text there"),
        (["Benign", "Malignant"], ["benign "], "capitals or spaces"),
    ],
)
def test_unseen_labels_are_named_with_a_hint_at_the_cause(known, y, message):
    encoding = TargetEncoding.learn(known)
    with pytest.raises(InputError, match=message):
        encoding.encode(y, {0: "benign", 1: "malignant"})


class Strange:
    """An object that cannot be compared, hashed or converted."""

    __hash__ = None

    def __eq__(self, other):
        raise RuntimeError("no")

    def __array__(self, *args, **kwargs):
        raise RuntimeError("no")


NUMBERS = [0, 1, -1, True, 0.0, 0.5, NAN, np.inf, 2**70, 1j, np.int8(1), Decimal(1)]
WORDS = ["a", "nan", "", b"a", b"\xff", np.str_("b"), Path("a.png"), Finding.BENIGN]
NOTHING = [None, pandas.NA, pandas.NaT, np.ma.masked]
OBJECTS = [(1, 2), [1], {"a"}, {"k": 1}, object(), Strange(), np.datetime64("2020")]
ARRAYS = [torch.tensor(1), torch.tensor([1, 0]), np.array("a"), np.array([1, 2])]
ENTRIES = st.sampled_from([*NUMBERS, *WORDS, *NOTHING, *OBJECTS, *ARRAYS])
CONTAINERS = st.sampled_from(
    [
        lambda values: values,
        tuple,
        as_objects,
        lambda values: pandas.Series(values, dtype=object),
        lambda values: pandas.DataFrame({"y": pandas.Series(values, dtype=object)}),
        lambda values: [[value, value] for value in values],
    ]
)


@pytest.mark.filterwarnings("ignore")
@settings(deadline=None)
@given(st.lists(ENTRIES, min_size=1, max_size=4), CONTAINERS, st.sampled_from(["auto", *TASKS]))
def test_anything_at_all_is_read_or_refused(values, container, task):
    y = container(values)
    try:
        encoding, encoded = TargetEncoding.learn_and_encode(y, task)
    except InputError:
        return
    assert encoded.shape == (len(values), len(encoding.classes))
    assert set(np.unique(encoded[~np.isnan(encoded)])) <= {0, 1}
    assert not np.isnan(encoded).any() or not encoding.task.exclusive


@pytest.mark.parametrize("kind", ["Series", "DataFrame", "Enum"])
def test_columns_of_polars_are_read(kind):
    polars = pytest.importorskip("polars")
    if kind == "Enum":
        y = polars.Series(["b", "a"], dtype=polars.Enum(["b", "a"]))
        assert TargetEncoding.learn(y, "ordinal").classes.tolist() == ["b", "a"]
    elif kind == "Series":
        assert TargetEncoding.learn(polars.Series(["b", "a"])).classes.tolist() == ["a", "b"]
        with pytest.raises(InputError, match="1 of 2 have none"):
            as_targets(polars.Series(["a", None]))
    else:
        y = polars.DataFrame({"a": [True, None], "b": [False, True]})
        np.testing.assert_array_equal(as_targets(y), [[1, 0], [np.nan, 1]])
