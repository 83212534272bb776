"""Names of classes come along with the data, unless its labels are not those that were named."""

import warnings
from types import SimpleNamespace

import numpy as np
import pandas
import pytest
import torch
from PIL import Image
from torch.utils.data import (
    ChainDataset,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
)
from torchvision.datasets import ImageFolder

from diffmic.data import read_inputs
from diffmic.data.names import table_names
from diffmic.errors import DiffMICWarning, InputError

NAMES = ["benign", "malignant", "normal"]
LABELS = [0, 1, 2, 2, 1, 0]


class Named(Dataset):
    def __init__(self, labels=LABELS, **stated):
        self.labels_of_items = labels
        vars(self).update(stated)

    def __len__(self):
        return len(self.labels_of_items)

    def __getitem__(self, index):
        return torch.zeros(1, 4, 4, dtype=torch.uint8), self.labels_of_items[index]


class NamedStream(IterableDataset):
    classes = NAMES

    def __iter__(self):
        yield from Named()


class HuggingFace(Named):
    """The protocol of ``datasets.Dataset`` as far as it matters here."""

    def __init__(self, labels=LABELS, column=None):
        super().__init__(labels)
        self.column = labels if column is None else column
        self.features = {"image": object(), "label": SimpleNamespace(names=NAMES)}

    def __getitem__(self, key):
        if key == "label":
            return self.column
        image, label = super().__getitem__(key)
        return {"image": image, "label": label}

    def with_format(self, kind):
        return self


def names(X):
    found = read_inputs(X, with_targets=True).names
    return None if found is None else dict(found)


@pytest.mark.parametrize(
    "stated",
    [
        {"classes": NAMES},
        {"classes": tuple(NAMES)},
        {"classes": np.array(NAMES)},
        {"classes": dict(enumerate(NAMES))},
        {"class_to_idx": {"normal": 2, "benign": 0, "malignant": 1}},
        {"info": {"task": "multi-class", "label": {"0": NAMES[0], "1": NAMES[1], "2": NAMES[2]}}},
    ],
    ids=["list", "tuple", "array", "dict", "class_to_idx", "MedMNIST"],
)
@pytest.mark.parametrize(
    "wrap",
    [
        lambda data: data,
        lambda data: Subset(data, [5, 4, 3]),
        lambda data: ConcatDataset([data, data]),
        lambda data: DataLoader(data, 2),
        lambda data: DataLoader(Subset(ConcatDataset([data, data]), range(7)), 2, shuffle=True),
    ],
    ids=["alone", "subset", "concatenated", "loader", "all"],
)
def test_names_are_found_wherever_a_dataset_keeps_them(stated, wrap):
    assert names(wrap(Named(**stated))) == dict(enumerate(NAMES))


@pytest.mark.parametrize("X", [NamedStream(), HuggingFace(), DataLoader(NamedStream(), 2)])
def test_names_of_streams_and_of_hugging_face_are_found(X):
    assert names(X) == dict(enumerate(NAMES))


def test_names_of_chained_streams_are_found():
    assert names(ChainDataset([NamedStream(), NamedStream()])) == dict(enumerate(NAMES))


def test_labels_of_one_column_are_named():
    assert names(Named([np.array([i]) for i in LABELS], classes=NAMES)) == dict(enumerate(NAMES))


def test_names_of_indicator_columns_are_found():
    rows = [np.eye(3)[i] for i in LABELS]
    assert names(Named(rows, pathologies=NAMES)) == dict(enumerate(NAMES))
    assert names(Named(rows, classes=NAMES[:2])) is None


@pytest.mark.parametrize(
    "stated",
    [{}, {"classes": [0, 1, 2]}, {"classes": 3}, {"classes": "abc"}, {"info": None}],
)
def test_what_names_nothing_is_passed_over(stated):
    assert names(Named(**stated)) is None


def test_labels_that_are_words_need_no_names():
    assert names(Named([NAMES[i] for i in LABELS], classes=NAMES)) is None


def test_datasets_that_number_their_classes_differently_are_refused():
    other = Named(classes=NAMES[::-1])
    with pytest.raises(InputError, match="number their classes differently"):
        names(ConcatDataset([Named(classes=NAMES), other]))
    with pytest.raises(InputError, match="number their classes differently"):
        names(ConcatDataset([Named(), Named(classes=NAMES), other]))
    words = Named([NAMES[i] for i in LABELS], classes=NAMES)
    reversed_words = Named([NAMES[i] for i in LABELS], classes=NAMES[::-1])
    assert names(ConcatDataset([words, reversed_words])) is None  # no numbers, nothing to mistake


@pytest.mark.parametrize(
    "data",
    [
        Named([0, 1, 1, 0], classes=NAMES),
        Named([0, 1, 1, 0], classes=NAMES[:2], targets=[1, 0, 0, 1]),
        Named([0, 1, 5], classes=NAMES),
        HuggingFace([0, 1, 1, 0], column=[0, 1, 2, 0]),
    ],
    ids=["fewer", "others stated", "unknown", "Hugging Face, mapped"],
)
def test_names_that_may_not_fit_the_labels_are_not_used_with_a_warning(data):
    with pytest.warns(DiffMICWarning, match="names the classes .*Pass class_names"):
        assert names(data) is None


@pytest.mark.parametrize(
    "data",
    [Named([0, 2, 2], classes=NAMES, targets=[0, 2, 2]), HuggingFace([0, 2, 2])],
    ids=["targets", "column"],
)
def test_a_part_without_some_classes_keeps_its_names_if_its_labels_are_those_stated(data):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert names(data) == dict(enumerate(NAMES))


def test_an_image_folder_names_its_classes_until_its_labels_are_changed(tmp_path):
    for name in NAMES:
        (tmp_path / name).mkdir()
        for i in range(2):
            Image.new("L", (4, 4)).save(tmp_path / name / f"{i}.png")
    data = ImageFolder(tmp_path)
    assert names(data) == names(Subset(data, range(4))) | {2: "normal"} == dict(enumerate(NAMES))
    data.samples = [(path, int(label > 0)) for path, label in data.samples]
    with pytest.warns(DiffMICWarning, match="'targets' differ"):
        assert names(data) is None


class Lists(HuggingFace):
    """Items with a list of class numbers, as a ``Sequence`` of ``ClassLabel`` describes them."""

    def __init__(self, labels, kind=list):
        super().__init__(labels)
        feature = self.features["label"]
        self.features["label"] = [feature] if kind is list else SimpleNamespace(feature=feature)


@pytest.mark.parametrize("kind", [list, SimpleNamespace])
@pytest.mark.parametrize("as_items", [list, np.array, torch.tensor])
def test_lists_of_classes_become_rows_whose_columns_are_named(kind, as_items):
    rows = [[0], [2, 1], [], [0, 1, 2]]
    found = read_inputs(Lists([as_items(row) for row in rows], kind), with_targets=True)
    assert found.targets.tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 0], [1, 1, 1]]
    assert dict(found.names) == dict(enumerate(NAMES))


def test_lists_of_two_classes_each_are_no_indicator():
    found = read_inputs(Lists([[0, 1], [1, 0], [0, 1]]), with_targets=True)
    assert found.targets.tolist() == [[1, 1, 0]] * 3


def test_rows_of_0_and_1_stay_as_they_are():
    rows = [[0, 1, 1], [0, 0, 0]]
    found = read_inputs(Lists(rows), with_targets=True)
    assert found.targets.tolist() == rows
    assert dict(found.names) == dict(enumerate(NAMES))
    assert read_inputs(Lists([[0, 1, 1, 0]] * 2), with_targets=True).names is None


@pytest.mark.parametrize("label", [3, -1, 0.5, "a", None])
def test_lists_of_something_else_than_classes_are_an_error(label):
    with pytest.raises(InputError, match=r"label of item 1 is .*numbers of the 3 classes, 0 to 2"):
        read_inputs(Lists([[0], [1, label]]), with_targets=True)


class HuggingFaceStream(IterableDataset):
    """A streamed dataset: it cannot be indexed, and yields its images anew when asked for a column.

    That must not happen, since each image would be read twice.
    """

    def __init__(self):
        self.whole = HuggingFace()
        self.features = self.whole.features

    def with_format(self, kind):
        return self

    def __getitem__(self, key):
        raise NotImplementedError

    def __iter__(self):
        yield from (self.whole[i] for i in range(len(self.whole)))


def test_names_of_a_streamed_hugging_face_dataset_are_found():
    assert names(HuggingFaceStream()) == dict(enumerate(NAMES))


def test_columns_of_a_table_are_names():
    table = pandas.DataFrame(np.eye(3, dtype=int), columns=NAMES)
    assert table_names(table) == dict(enumerate(NAMES))
    assert table_names(table[["benign"]]) is None
    assert table_names(table["benign"]) is None
    assert table_names(np.eye(3)) is None


def test_a_column_of_a_hugging_face_dataset_keeps_its_names():
    column = SimpleNamespace(source=HuggingFace(), column_name="label")
    assert table_names(column) == dict(enumerate(NAMES))
    assert table_names(SimpleNamespace(source=HuggingFace(), column_name="image")) is None
    assert table_names(SimpleNamespace(source="camera", column_name="image")) is None


class ArrowTable:
    """A table of pyarrow, whose ``columns`` are the values."""

    column_names = NAMES
    columns = (np.arange(2), np.arange(2), np.arange(2))

    def __len__(self):
        return 2


def test_columns_of_pyarrow_are_known_by_their_names():
    assert table_names(ArrowTable()) == dict(enumerate(NAMES))


def test_parts_without_names_among_others_are_pointed_out():
    joined = ConcatDataset([Named(classes=NAMES), Named()])
    with pytest.warns(DiffMICWarning, match=r"Parts \[1\] .* do not name their classes"):
        assert names(DataLoader(joined, 2)) is None
