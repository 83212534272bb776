"""Images that a CSV file describes."""

import numpy as np
import pytest
from PIL import Image

from diffmic import DiffMICWarning
from diffmic.data import read_inputs
from diffmic.datasets import read_csv
from diffmic.errors import InputError

# Most tables here are read for their labels alone.
pytestmark = pytest.mark.filterwarnings("ignore:.*do not exist in:diffmic.DiffMICWarning")


def save(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 4)).save(path)


def table(folder, text, name="labels.csv", encoding="utf-8"):
    file = folder / name
    file.write_text(text, encoding=encoding)
    return file


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
        ("file:label\n1.png:a\n", r"needs the columns .*; found \['file:label'\]"),
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


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_any_usual_separator_is_understood(tmp_path, separator):
    rows = [["file", "label", "note"], ["1.png", "a,b" if separator != "," else "a", "x;y"]]
    text = "\r\n".join(separator.join(f'"{cell}"' for cell in row) for row in rows)
    found = read_csv(table(tmp_path, text))
    assert found.labels.tolist() == [rows[1][1]]


def test_spaces_around_cells_and_rows_without_cells_are_no_data(tmp_path):
    save(tmp_path / "1.png")
    save(tmp_path / "2.png")
    file = table(tmp_path, "\n file , label \n1.png , benign \n,\n\n 2.png,benign\n , \n")
    found = read_csv(file)
    assert found.paths == [tmp_path / "1.png", tmp_path / "2.png"]
    assert found.label_names == ["benign"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_encodings_that_say_so_are_read(tmp_path, encoding):
    file = table(tmp_path, "file,label\n1.png,gutärtig\n", encoding=encoding)
    assert read_csv(file).labels.tolist() == ["gutärtig"]


def test_another_encoding_can_be_named(tmp_path):
    file = table(tmp_path, "file,label\n1.png,gutärtig\n", encoding="latin-1")
    assert read_csv(file, encoding="latin-1").labels.tolist() == ["gutärtig"]
    with pytest.raises(InputError, match="encoding is 'latin-99'"):
        read_csv(file, encoding="latin-99")


def test_a_spreadsheet_is_no_table(tmp_path):
    file = tmp_path / "labels.xlsx"
    file.write_bytes(b"PK\x03\x04\0\0\0\0")
    with pytest.raises(InputError, match=r"labels\.xlsx' cannot be read: it is no text file"):
        read_csv(file)


@pytest.mark.parametrize(
    ("cell", "name"),
    [
        ("scan", "scan.png"),
        ("1.2.840.113", "1.2.840.113.dcm"),
        ("images\\scan", "images/scan.JPG"),
        ("SCAN.png", "scan.PNG"),
    ],
)
def test_names_may_lack_a_suffix_or_differ_in_case_or_slashes(tmp_path, cell, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    (tmp_path / "scan.txt").touch()
    found = read_csv(table(tmp_path, f"file,label\n{cell},a\n"))
    assert found.paths == [tmp_path / name]


def test_two_files_that_a_name_without_suffix_may_mean_are_not_chosen_from(tmp_path):
    for name in ("scan.png", "scan.jpg"):
        (tmp_path / name).touch()
    with pytest.warns(DiffMICWarning, match=r"1 of 1 images of .* do not exist"):
        read_csv(table(tmp_path, "file,label\nscan,a\n"))


def test_images_that_do_not_exist_are_counted_and_named(tmp_path):
    save(tmp_path / "0.png")
    rows = "".join(f"{i}.png,a\n" for i in range(6))
    file = table(tmp_path, "file,label\n" + rows)
    expected = r"5 of 6 images of .* 1\.png, 2\.png, 3\.png, … \(first in row 2\)"
    with pytest.warns(DiffMICWarning, match=expected) as told:
        found = read_csv(file)
    assert len(found) == 6
    assert len(told) == 1


def test_images_that_lie_in_a_folder_beside_the_table_are_pointed_out(tmp_path):
    save(tmp_path / "train images" / "scan.png")
    file = table(tmp_path, "file,label\nscan,a\n")
    with pytest.warns(DiffMICWarning, match=r"pass folder='.*train images'"):
        read_csv(file)
    found = read_csv(file, folder=tmp_path / "train images")
    assert found.paths == [tmp_path / "train images" / "scan.png"]
    with pytest.raises(InputError, match=r"no folder '.*other'"):
        read_csv(file, folder=tmp_path / "other")


def test_columns_may_have_other_names(tmp_path):
    save(tmp_path / "scan.png")
    file = table(tmp_path, "id_code,diagnosis,set\nscan,2,train\n")
    with pytest.raises(InputError, match=r"holds image files: pass image='id_code', .*'diagnosis'"):
        read_csv(file)
    with pytest.raises(InputError, match=r"label= one of \['id_code', 'diagnosis', 'set'\]"):
        read_csv(file, image="id_code")
    found = read_csv(file, image="id_code", label="diagnosis", split="set")
    assert found.labels.tolist() == [2]
    assert found.splits.tolist() == ["train"]
    with pytest.raises(InputError, match=r"needs the columns \['id_code', 'grade'\]"):
        read_csv(file, image="id_code", label="grade")


def test_rows_that_repeat_an_image_are_left_out_and_counted(tmp_path):
    save(tmp_path / "1.png")
    file = table(tmp_path, "file,label,x\n1.png,a,3\n2.png,b,4\n1.png,a,5\n1,a,6\n")
    with pytest.warns(DiffMICWarning, match=r"2 rows of .* are left out: rows 3, 4\."):
        found = read_csv(file)
    assert [path.name for path in found.paths] == ["1.png", "2.png"]
    assert found.labels.tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("columns", "first", "second"),
    [
        ("file,label", "1.png,a", "1.png,b"),
        ("file,label,split", "1.png,a,train", "1.png,a,test"),
        ("file,label,patient", "1.png,a,P1", "1.png,a,P2"),
        ("file,mass,edema", "1.png,0,1", "1.png,0,0"),
    ],
)
def test_rows_that_disagree_about_an_image_are_an_error(tmp_path, columns, first, second):
    file = table(tmp_path, f"{columns}\n{first}\n{second}\n")
    with pytest.raises(InputError, match=r"Rows 1 and 2 of .* are of one image"):
        read_csv(file, group="patient" if "patient" in columns else None)


@pytest.mark.parametrize(
    "nothing", ["nan", "NaN", "<NA>", "NA", "n/a", "N/A", "#N/A", "null", "NULL", "None", " NA "]
)
@pytest.mark.parametrize("column", ["label", "split", "patient"])
def test_a_text_for_a_missing_value_is_no_class_split_or_group(tmp_path, column, nothing):
    row = {"file": "2.png", "label": "a", "split": "train", "patient": "P2"} | {column: nothing}
    file = table(tmp_path, f"{','.join(row)}\n1.png,a,train,P1\n{','.join(row.values())}\n")
    message = rf"Row 2 of .* has '{nothing.strip()}' in the column '{column}', which counts as mis"
    with pytest.raises(InputError, match=message):
        read_csv(file, group="patient")
    found = read_csv(file, group="patient", na_values=())
    values = {"label": found.labels, "split": found.splits, "patient": found.groups}[column]
    assert values.tolist()[1] == nothing.strip()


def test_an_empty_cell_is_missing_whatever_else_is(tmp_path):
    with pytest.raises(InputError, match=r"Row 2 of .* has nothing in the column 'label'"):
        read_csv(table(tmp_path, "file,label\n1.png,a\n2.png,\n"), na_values=())


def test_other_texts_can_stand_for_missing_values(tmp_path):
    file = table(tmp_path, "file,label\n1.png,NA\n2.png,-999\n")
    with pytest.raises(InputError, match=r"Row 2 of .* has '-999'"):
        read_csv(file, na_values=["-999"])
    with pytest.raises(InputError, match=r"na_values is \[3\]; give texts"):
        read_csv(file, na_values=[3])
    text = "file,mass,edema\n1.png,1,-999\n2.png,0,1\n"
    np.testing.assert_array_equal(
        read_csv(table(tmp_path, text), na_values="-999").labels, [[1, np.nan], [0, 1]]
    )


def test_a_label_that_is_not_known_may_be_written_as_in_r(tmp_path):
    found = read_csv(table(tmp_path, "file,mass,edema\n1.png,1,NA\n2.png,0,1\n"))
    np.testing.assert_array_equal(found.labels, [[1, np.nan], [0, 1]])
    assert found.labels.columns == ["mass", "edema"]


def test_whole_numbers_with_a_point_are_the_same_class(tmp_path):
    found = read_csv(table(tmp_path, "file,label\n1.png,1\n2.png,1.0\n3.png,-2.00\n"))
    assert found.labels.tolist() == [1, 1, -2]
    odd = read_csv(table(tmp_path, "file,label\n1.png,1\n2.png,1.5\n3.png,01\n"))
    assert odd.labels.tolist() == ["1", "1.5", "01"]


def test_unknown_and_uncertain_labels_are_kept_as_they_are(tmp_path):
    """As in CheXpert: 1.0, 0.0, -1.0 and nothing."""
    file = table(
        tmp_path,
        "Path,Sex,No Finding,Edema,Mass\na.jpg,M,1.0,,0.0\nb.jpg,F,,-1.0,1\nc.jpg,F,,nan,\n",
    )
    found = read_csv(file, image="Path")
    assert found.label_names == ["No Finding", "Mass"]  # Edema is nowhere 0 or 1
    found = read_csv(file, image="Path", labels=["Edema", "Mass"])
    nan = np.nan
    np.testing.assert_array_equal(found.labels, [[nan, 0], [-1, 1], [nan, nan]])


def test_labels_that_look_alike_are_pointed_out(tmp_path):
    file = table(tmp_path, "file,label\n1.png,Benign\n2.png,benign\n")
    with pytest.warns(DiffMICWarning, match="'Benign' and 'benign' differ in case"):
        assert read_csv(file).label_names == ["Benign", "benign"]


def test_a_folder_is_no_table_and_a_column_cannot_stand_twice(tmp_path):
    with pytest.raises(InputError, match="That is a folder; read_folders reads it"):
        read_csv(tmp_path)
    with pytest.raises(InputError, match="has two columns 'label'"):
        read_csv(table(tmp_path, "file,label,label\n1.png,a,b\n"))


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    save(tmp_path / "images" / "1.png")
    table(tmp_path, "file,label\n~/images/1.png,a\n")
    assert read_csv("~/labels.csv").paths == [tmp_path / "images" / "1.png"]


@pytest.mark.parametrize("path", [5, None, b"x", "", ["x"], "~nobody-of-this-name/x", "a\0b"])
def test_what_is_no_path_is_an_error(path):
    with pytest.raises(InputError):
        read_csv(path)
