"""Labels of any kind to one-hot rows and back, and what is no label."""

import warnings

import numpy as np
import pandas
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffmic.data import TargetEncoding
from diffmic.data.columns import check_lengths
from diffmic.data.targets import as_targets, suits
from diffmic.errors import DiffMICWarning, InputError
from diffmic.tasks import MULTICLASS, MULTILABEL, ORDINAL

LABELS = st.one_of(
    st.lists(st.integers(-(2**60), 2**60), min_size=2, max_size=30),
    st.lists(st.text(max_size=5).filter(lambda s: "\0" not in s), min_size=2, max_size=30),
    st.lists(st.booleans(), min_size=2, max_size=30),
).filter(lambda labels: len(set(labels)) > 1)


@given(LABELS)
def test_labels_come_back_as_they_were(labels):
    encoding = TargetEncoding.learn(labels)
    encoded = encoding.encode(labels)
    assert encoded.shape == (len(labels), len(set(labels)))
    assert encoded.dtype == np.float32
    assert set(np.unique(encoded)) <= {0.0, 1.0}
    assert (encoded.sum(axis=1) == 1).all()
    assert encoding.classes[encoded.argmax(axis=1)].tolist() == labels


@given(LABELS)
def test_classes_are_sorted_and_of_the_kind_that_was_passed(labels):
    encoding = TargetEncoding.learn(labels)
    assert encoding.classes.tolist() == sorted(set(labels))
    assert encoding.task is MULTICLASS


@given(st.integers(1, 20), st.integers(2, 6), st.randoms())
def test_an_indicator_matrix_stays_what_it_is(n, n_labels, random):
    y = [[random.randint(0, 1) for _ in range(n_labels)] for _ in range(n)]
    encoding = TargetEncoding.learn(y)
    assert encoding.task is MULTILABEL
    assert encoding.classes.tolist() == list(range(n_labels))
    assert encoding.encode(y).tolist() == y
    assert encoding.encode(y).dtype == np.float32


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        ([1, 0, 2], [0, 1, 2]),
        ((1, 0, 2), [0, 1, 2]),
        (np.array([7, -1, 7], np.int8), [-1, 7]),
        (np.array([1.0, 0.0]), [0.0, 1.0]),
        (["b", "a"], ["a", "b"]),
        (np.array(["b", "a"], object), ["a", "b"]),
        (np.array(["b", "a"], np.dtypes.StringDType()), ["a", "b"]),
        ([True, False], [False, True]),
        (torch.tensor([1, 0]), [0, 1]),
        (torch.tensor([1.0, 0.0], requires_grad=True), [0, 1]),
        ([torch.tensor(1), torch.tensor(0)], [0, 1]),
    ],
)
def test_labels_may_be_numbers_strings_or_tensors(y, classes):
    assert TargetEncoding.learn(y).classes.tolist() == classes


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor, lambda y: y])
def test_indicators_may_be_lists_arrays_or_tensors(kind):
    y = kind([[0, 1, 1], [0, 0, 0]])
    np.testing.assert_array_equal(TargetEncoding.learn(y).encode(y), [[0, 1, 1], [0, 0, 0]])


def test_a_pandas_column_of_labels_is_read():
    y = pandas.Series(["b", "a", "b"], index=[5, 6, 7])
    assert TargetEncoding.learn(y).encode(y).tolist() == [[0, 1], [1, 0], [0, 1]]


@pytest.mark.parametrize("y", [[3, 1], [[3], [1]], np.array([[3], [1]])])
def test_labels_give_no_warning_as_a_column_either(y):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert as_targets(y).tolist() == [3, 1]


@pytest.mark.parametrize("y", [[0, 0, 0], ["a", "a"], [5]])
def test_a_single_class_is_an_error(y):
    with pytest.raises(InputError, match=rf"y holds one class, .*{y[0]}.*at least 2 classes"):
        TargetEncoding.learn(y)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, "y is missing"),
        ([0.0, np.nan, 1.0], "NaN, infinity or None"),
        ([0.0, np.inf, 1.0], "NaN, infinity or None"),
        (["a", None, "b"], "NaN, infinity or None"),
        (np.array(["a", np.nan], object), "NaN, infinity or None"),
        ([0.5, 1.7, 2.1], "continuous.*Labels must be integers, strings, or an indicator"),
        ([1 + 2j, 1j], "Complex"),
        ([[0, 2], [1, 0]], r"multi-label, where only 0 and 1 are allowed; found \[2\]"),
        ([[0.0, 0.3], [0.7, 1.0]], r"found \[0\.3, 0\.7\]"),
        ([[0, np.inf], [1, 0]], r"found \[inf\]"),
        ([["a", "b"], ["a", "c"]], r"found \['a', 'b', 'c'\]"),
        (np.zeros((4, 2, 2), int), r"y has shape \(4, 2, 2\); labels of shape \(n,\)"),
        (5, r"y has shape \(\)"),
        ("benign", r"y has shape \(\)"),
        ([], r"y has shape \(0,\)"),
        (np.zeros((0, 1)), r"y has shape \(0, 1\)"),
        ([[0, 1], [1]], "collections of labels.*MultiLabelBinarizer"),
        (np.array(["a", 1], object), "mixes strings and numbers"),
    ],
)
def test_what_is_no_label_is_an_error_that_says_so(y, message):
    with pytest.raises(InputError, match=message):
        as_targets(y)


def test_pandas_na_is_a_missing_label():
    with pytest.raises(InputError, match="NaN, infinity or None"):
        as_targets(pandas.Series([1, None, 0], dtype="Int64"))
    with pytest.raises(InputError, match="NaN, infinity or None"):
        as_targets(np.array(["a", pandas.NA], object))


@pytest.mark.parametrize(
    ("known", "y", "message"),
    [
        ([0, 1], [0, 7, 7, -1], r"unseen labels: \[7, -1\]; the known classes are \[0, 1\]"),
        ([0, 1], ["0", "1"], r"unseen labels: \['0', '1'\]; the known classes are \[0, 1\]"),
        (["a", "b"], [0, 1], r"unseen labels: \[0, 1\]; the known classes are \['a', 'b'\]"),
        (["a", "b"], ["A"], r"unseen labels: \['A'\]"),
    ],
)
def test_a_label_that_was_not_learnt_is_an_error_that_names_it(known, y, message):
    with pytest.raises(InputError, match=message):
        TargetEncoding.learn(known).encode(y)


def test_labels_may_be_encoded_where_some_classes_do_not_occur():
    assert TargetEncoding.learn(["a", "b", "c"]).encode(["c"]).tolist() == [[0, 0, 1]]


def test_indicators_and_labels_do_not_replace_one_another():
    with pytest.raises(
        InputError, match=r"shape \(2, 3\), but a multiclass or ordinal task.*Row 0 has 2 of them"
    ):
        TargetEncoding.learn([0, 1]).encode([[0, 1, 1], [0, 0, 0]])
    multilabel = TargetEncoding.learn([[0, 1, 1], [0, 0, 0]])
    with pytest.raises(InputError, match=r"multilabel: an indicator matrix \(n, L\) is needed"):
        multilabel.encode([0, 1])
    with pytest.raises(InputError, match="an indicator matrix with 3 columns"):
        multilabel.encode([[0, 1], [1, 1]])


@pytest.mark.parametrize(
    ("values", "found"),
    [([1, 2], 2), (np.zeros((2, 3)), 2), (torch.zeros(2), 2), (5, 1), ("abc", 1)],
)
def test_other_numbers_of_entries_are_an_error_with_both_numbers(values, found):
    with pytest.raises(InputError, match=f"3 images, but y has {found} entries"):
        check_lengths(3, y=values)


def test_as_many_entries_or_none_at_all_are_fine():
    check_lengths(2, y=[0, 1], sample_weight=None, groups=np.zeros(2))


def test_an_indicator_of_exclusive_classes_is_pointed_out_once_where_the_user_called():
    y = np.eye(3, dtype=int)[[0, 1, 2, 1]]
    with pytest.warns(DiffMICWarning, match="set task='multiclass'") as warned:
        TargetEncoding.learn(y).encode(y)
    assert len(warned) == 1
    assert warned[0].filename == __file__


@pytest.mark.parametrize(
    ("y", "task"), [([[1, 0, 1], [0, 0, 0]], "auto"), ([[1, 0], [0, 1]], "multilabel")]
)
def test_several_labels_an_image_or_a_task_that_was_asked_for_give_no_warning(y, task):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TargetEncoding.learn(y, task)


@pytest.mark.parametrize("kind", [int, float, bool, object])
@pytest.mark.parametrize("task", ["multiclass", "ordinal"])
def test_rows_with_a_single_1_are_the_number_of_their_column(task, kind):
    labels = [2, 0, 1, 2]
    rows = np.eye(4, dtype=int)[labels].astype(kind)
    encoding, encoded = TargetEncoding.learn_and_encode(rows, task)
    assert encoding.task.name == task
    assert encoding.classes.tolist() == [0, 1, 2]
    assert encoded.argmax(axis=1).tolist() == labels
    assert encoding.encode(rows).argmax(axis=1).tolist() == labels


def test_a_start_from_another_model_takes_rows_with_a_single_1_only():
    assert suits(np.eye(3), "multiclass")
    assert not suits(1 - np.eye(3), "multiclass")


@pytest.mark.parametrize("odd", [-1, 255, -1.0])
def test_a_number_that_often_stands_for_no_label_is_pointed_out(odd):
    with pytest.warns(DiffMICWarning, match=f"holds the label {odd} beside 0 to 2"):
        encoding = TargetEncoding.learn([odd, 0, 1, 2])
    assert len(encoding.classes) == 4


@pytest.mark.parametrize("labels", [[-1, 1], [-1, 0], [-1, 0, 2], ["-1", "0", "1"], [0, 254, 255]])
def test_other_numbers_say_nothing(labels):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TargetEncoding.learn(labels)


@pytest.mark.parametrize(
    "labels", [["nevus", "Nevus"], ["a", "a "], ["M\u00e9n", "Me\u0301n"], ["x" * 500, "X" * 500]]
)
def test_labels_that_the_eye_takes_for_one_are_pointed_out(labels):
    with pytest.warns(DiffMICWarning, match="labels in y .*differ in case, spaces or accents") as w:
        TargetEncoding.learn(labels)
    assert len(str(w[0].message)) < 400


@pytest.mark.parametrize("text", ["NA", "n/a", "null", "None", ""])
def test_texts_for_a_missing_label_are_pointed_out(text):
    with pytest.warns(DiffMICWarning, match=f"y holds the label {text!r}, which is learnt"):
        TargetEncoding.learn([text, "a"])


def test_a_field_of_a_structured_array_is_to_be_chosen():
    y = np.array([(1, 0.5), (0, 0.5)], dtype=[("label", int), ("weight", float)])
    with pytest.raises(InputError, match=r"Choose a field: y\['label'\]"):
        TargetEncoding.learn(y)
    assert TargetEncoding.learn(y["label"]).classes.tolist() == [0, 1]


@pytest.mark.parametrize(
    "y", [pandas.cut([1, 2, 3], 3), np.array(["2020-01-01", "2021-01-01"], "datetime64[D]")]
)
def test_other_kinds_are_told_how_they_become_texts(y):
    with pytest.raises(InputError, match=r"If these are classes: \[str\(label\) for label in y\]"):
        TargetEncoding.learn(y)


class Lazy:
    """A LazyFrame of polars, as far as it matters here."""

    columns = ("a", "b")

    def collect_schema(self):
        raise AssertionError("it may be expensive")

    def collect(self):
        raise AssertionError("it may be expensive")


def test_a_lazy_table_is_to_be_collected():
    with pytest.raises(InputError, match=r"y is a Lazy: pass y.collect\(\)"):
        TargetEncoding.learn(Lazy())


class ArrowTable:
    """A pyarrow table of one column."""

    column_names = ("grade",)
    columns = ([1, 0, 1],)

    def __getitem__(self, name):
        return self.columns[self.column_names.index(name)]

    def __array__(self, dtype=None, copy=None):
        return np.array(self.columns[0])[:, None]

    def __len__(self):
        return 3


def test_a_table_of_one_column_holds_labels():
    assert TargetEncoding.learn(ArrowTable()).classes.tolist() == [0, 1]
    frame = pandas.DataFrame({7: pandas.Categorical(["b", "a", "b"], ["b", "a"], ordered=True)})
    assert TargetEncoding.learn(frame, "ordinal").classes.tolist() == ["b", "a"]


def test_the_task_is_the_one_that_was_asked_for():
    assert TargetEncoding.learn([0, 2, 1], "multiclass").task is MULTICLASS
    assert TargetEncoding.learn([[0, 1], [1, 1]], "multilabel").task is MULTILABEL
    ordinal = TargetEncoding.learn([10, 2, 1], "ordinal")
    assert ordinal.task is ORDINAL
    assert ordinal.classes.tolist() == [1, 2, 10]
    assert ordinal.encode([2]).tolist() == [[0, 1, 0]]


@pytest.mark.parametrize(
    ("y", "task", "message"),
    [
        ([[0, 1], [1, 1]], "multiclass", r"shape \(2, 2\).*Row 1 has 2 of them: \[1, 1\]"),
        (
            [[0, 1], [0, 0], [0, 0]],
            "ordinal",
            r"Row 1 has 0 of them.*\(2 such rows\).*'multilabel'",
        ),
        ([[0, 1], [0.3, 0.7]], "multiclass", r"Row 1 has other values: \[0.3, 0.7\]"),
        ([[0, 1], [1, np.nan]], "multiclass", "Row 1 has other values"),
        ([["a", "b"], ["b", "a"]], "multiclass", "Row 0 has other values"),
        (
            pandas.DataFrame([[True, False], [None, True]], dtype="boolean"),
            "multiclass",
            r"Row 1 has other values: \[nan, True\] \(1 such",
        ),
        ([[0, 1], [0, 1]], "multiclass", "one class"),
        ([0, 1], "multilabel", r"needs an indicator.*shape \(2,\)\..*MultiLabelBinarizer.*'auto'"),
        ([0, 1], "regression", r"task is 'regression'; give one of \['auto', 'multiclass'"),
    ],
)
def test_targets_that_do_not_fit_the_task_are_an_error_with_a_way_out(y, task, message):
    with pytest.raises(InputError, match=message):
        TargetEncoding.learn(y, task)
