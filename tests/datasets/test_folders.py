"""Images on disk: folders of classes, and tables."""

import numpy as np
import pytest
from PIL import Image

from diffmic.data import read_inputs
from diffmic.datasets import read_csv, read_folders
from diffmic.errors import InputError


def save(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 4)).save(path)


def table(folder, text, name="labels.csv", encoding="utf-8"):
    file = folder / name
    file.write_text(text, encoding=encoding)
    return file


def test_a_folder_per_class_names_the_labels(tmp_path):
    for name in ("b/2.png", "a/1.PNG", "a/3.jpg", "a/notes.txt"):
        save(tmp_path / name) if not name.endswith("txt") else (tmp_path / name).write_text("x")
    found = read_folders(str(tmp_path))
    assert [path.name for path in found.paths] == ["1.PNG", "3.jpg", "2.png"]
    assert found.labels.tolist() == ["a", "a", "b"]
    assert found.label_names == ["a", "b"]
    assert found.splits is None
    assert found.groups is None
    assert len(found) == len(read_inputs(found.paths).images) == 3


def test_a_first_level_of_splits_names_them(tmp_path):
    for name in ("train/a/1.png", "train/b/2.png", "val/a/3.png", "test/b/4.png"):
        save(tmp_path / name)
    found = read_folders(tmp_path)
    assert found.splits.tolist() == ["test", "train", "train", "val"]
    assert found.labels.tolist() == ["b", "a", "b", "a"]
    training = found.part("train", "val")
    assert [path.stem for path in training.paths] == ["1", "2", "3"]
    assert training.labels.tolist() == ["a", "b", "a"]
    assert training.splits.tolist() == ["train", "train", "val"]
    assert training.label_names == ["a", "b"]


def test_classes_may_be_called_train_and_test(tmp_path):
    save(tmp_path / "train/1.png")
    save(tmp_path / "test/2.png")
    assert read_folders(tmp_path).label_names == ["test", "train"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], r"found 0 images\."),
        (["1.png"], r"found 1 images, and '.*1\.png' in another place"),
        (["a/1.png", "b/deep/2.png"], r"found 2 images, and '.*2\.png' in another place"),
        (["train/a/1.png", "valid/a/2.png"], r"found 2 images, and '.*1\.png' in another place"),
    ],
)
def test_folders_of_another_shape_are_an_error_that_names_a_file(tmp_path, files, message):
    for name in files:
        save(tmp_path / name)
    with pytest.raises(InputError, match=f"must hold a folder per class.*{message}"):
        read_folders(tmp_path)


def test_a_missing_folder_is_an_error_that_names_it(tmp_path):
    with pytest.raises(InputError, match=r"no folder '.*none'"):
        read_folders(tmp_path / "none")


def test_a_table_names_files_labels_splits_and_groups(tmp_path):
    save(tmp_path / "images/1.png")
    file = table(
        tmp_path,
        "file,label,split,patient,age\nimages/1.png,nv,train,P1,\nimages/2.png,mel,test,P2,45\n",
    )
    found = read_csv(str(file), group="patient")
    assert found.paths == [tmp_path / "images/1.png", tmp_path / "images/2.png"]
    assert found.labels.tolist() == ["nv", "mel"]
    assert found.label_names == ["mel", "nv"]
    assert found.splits.tolist() == ["train", "test"]
    assert found.groups.tolist() == ["P1", "P2"]
    part = found.part("train")
    assert part.groups.tolist() == ["P1"]
    assert len(read_inputs(part.paths).images) == 1


@pytest.mark.parametrize(
    ("labels", "expected", "names"),
    [
        (["2", "0", "-1"], [2, 0, -1], ["-1", "0", "2"]),
        (["2", "b", "2"], ["2", "b", "2"], ["2", "b"]),
        (["1.5", "²", "--1"], ["1.5", "²", "--1"], ["--1", "1.5", "²"]),
        (["3", "٣"], ["3", "٣"], ["3", "٣"]),
        (["1_0", "10", "a,b"], ["1_0", "10", "a,b"], ["10", "1_0", "a,b"]),
    ],
)
def test_labels_are_whole_numbers_where_all_are_and_else_words(tmp_path, labels, expected, names):
    rows = "".join(f'{i}.png,"{label}"\n' for i, label in enumerate(labels))
    found = read_csv(table(tmp_path, "file,label\n" + rows))
    assert found.labels.tolist() == expected
    assert found.label_names == names
    assert found.splits is None
    assert found.groups is None


def test_columns_of_0_and_1_are_labels_where_there_is_no_label(tmp_path):
    file = table(
        tmp_path, "file,Mass,age,Nodule,split,patient\n1.png,1,30,0,train,1\n2.png,0,1,0,test,0\n"
    )
    found = read_csv(file, group="patient")
    assert found.label_names == ["Mass", "Nodule"]
    np.testing.assert_array_equal(found.labels, [[1, 0], [0, 0]])
    assert found.part("test").labels.tolist() == [[0, 0]]


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path):
    file = table(tmp_path, "file,label\n1.png,a\n", encoding="utf-8-sig")
    assert read_csv(file).labels.tolist() == ["a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"needs the columns \['file', 'label'\]; found \[\]"),
        ("file;label\n1.png;a\n", r"needs the columns .*; found \['file;label'\]"),
        ("path,label\n1.png,a\n", r"needs the columns .*; found \['path', 'label'\]"),
        ("file,label\n", "has no rows below its header"),
        ("file,age\n1.png,30\n", "needs a column 'label', or at least 2 columns of 0 and 1"),
        ("file,label\n1.png,a\n2.png,\n", "Row 2 of .* has nothing in the column 'label'"),
        ("file,label\n1.png\n", "Row 1 of .* has nothing in the column 'label'"),
        ("file,label\n,a\n", "Row 1 of .* has nothing in the column 'file'"),
        ("file,label,split\n1.png,a,\n", "Row 1 of .* has nothing in the column 'split'"),
        ("file,label\n1.png,a,b\n", "Row 1 of .* has more cells than the header"),
    ],
)
def test_a_table_that_cannot_be_used_is_an_error(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_csv(table(tmp_path, text))


def test_a_missing_group_is_an_error(tmp_path):
    file = table(tmp_path, "file,label,patient\n1.png,a,\n")
    with pytest.raises(InputError, match=r"Row 1 of .* nothing in the column 'patient'"):
        read_csv(file, group="patient")
    with pytest.raises(InputError, match=r"needs the columns \['file', 'label', 'lesion'\]"):
        read_csv(file, group="lesion")


def test_a_table_in_another_encoding_is_an_error(tmp_path):
    file = table(tmp_path, "file,label\n1.png,gutärtig\n", encoding="latin-1")
    with pytest.raises(InputError, match=r"labels\.csv' cannot be read: .*Save it as UTF-8"):
        read_csv(file)


def test_a_missing_table_is_an_error_that_names_it(tmp_path):
    with pytest.raises(InputError, match=r"no file '.*none\.csv'"):
        read_csv(tmp_path / "none.csv")


def test_a_split_that_is_not_there_is_an_error_that_names_those_that_are(tmp_path):
    found = read_csv(table(tmp_path, "file,label,split\n1.png,a,train\n2.png,b,test\n"))
    with pytest.raises(InputError, match=r"split 'val' or 'dev'; there are \['test', 'train'\]"):
        found.part("val", "dev")
    with pytest.raises(InputError, match="no splits"):
        read_csv(table(tmp_path, "file,label\n1.png,a\n")).part("train")


def test_files_that_begin_with_a_dot_are_no_images(tmp_path):
    for name in ("a/1.png", "b/2.png", "b/._2.png"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.touch()
    assert [file.name for file in read_folders(tmp_path).paths] == ["1.png", "2.png"]


def test_labels_with_leading_zeros_stay_texts(tmp_path):
    found = read_csv(table(tmp_path, "file,label\n1.png,01\n2.png,1\n"))
    assert found.labels.tolist() == ["01", "1"]


def test_the_columns_of_labels_can_be_named(tmp_path):
    file = table(tmp_path, "file,male,edema,mass,age\n1.png,0,1,0,3\n2.png,1,0,1,4\n")
    assert read_csv(file).label_names == ["male", "edema", "mass"]
    found = read_csv(file, labels=["mass", "edema"])
    assert found.label_names == ["mass", "edema"]
    assert found.labels.tolist() == [[0, 1], [1, 0]]
    with pytest.raises(InputError, match=r"columns of 0 and 1, \['mass', 'age'\]; .* \['male'"):
        read_csv(file, labels=["mass", "age"])
