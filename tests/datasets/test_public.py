"""Readers of public data sets, on small downloads: whole ones, and broken ones."""

import shutil
import types

import downloads
import numpy as np
import pytest
from PIL import Image
from tiny import small

from diffmic import DiffMICClassifier, DiffMICError, DiffMICWarning
from diffmic.data import read_inputs
from diffmic.datasets import (
    MEDMNIST,
    inspect,
    read_aptos2019,
    read_busi,
    read_chestxray14,
    read_ham10000,
    read_idrid,
    read_isic2018,
    read_medmnist,
)
from diffmic.datasets.chestxray14 import FINDINGS
from diffmic.errors import InputError

# Small downloads never have the official numbers of images; tests of that take the warning back.
pytestmark = pytest.mark.filterwarnings(
    "error::diffmic.DiffMICWarning",
    "ignore:.*(not the official ones|officially|never present):diffmic.DiffMICWarning",
)

READERS = {
    "aptos": read_aptos2019,
    "ham10000": read_ham10000,
    "isic2018": read_isic2018,
    "chestxray14": read_chestxray14,
    "busi": read_busi,
    "idrid": read_idrid,
}
SIZES = {
    "aptos": 15,
    "ham10000": 56,
    "isic2018": 49,
    "chestxray14": 40,
    "busi": 30,
    "idrid": 30,
}
each = pytest.mark.parametrize("name", READERS)


@pytest.fixture
def root(tmp_path, request):
    """The download of the data set that the test's parameter ``name`` names."""
    getattr(downloads, request.getfixturevalue("name"))(tmp_path)
    return tmp_path


def images_of(root):
    """Images of the data set; no masks, and none of APTOS' test part."""
    files = sorted(f for f in root.rglob("*") if f.suffix in (".png", ".jpg"))
    return [f for f in files if "_mask" not in f.name and f.parent.name != "test_images"]


def edit(file, change):
    text = file.read_text(encoding="utf-8")
    new = change(text)
    assert new != text
    file.write_text(new, encoding="utf-8")


@each
def test_a_download_is_read_whole(root, name):
    data = READERS[name](root)
    assert len(data) == SIZES[name] == len(data.labels)
    assert sorted(data.images) == images_of(root)
    assert len(read_inputs(data.images).images) == len(data)
    for column in (data.splits, data.groups):
        assert column is None or len(column) == len(data)
    assert data.source.url.startswith("https://")
    assert data.source.licence
    assert all("official" in problem for problem in data.problems)


@each
def test_a_download_may_lie_deeper_and_its_names_may_be_in_other_cases(tmp_path, name):
    getattr(downloads, name)(tmp_path / "unpacked" / "Archive")
    data = READERS[name](str(tmp_path))
    assert len(data) == SIZES[name]


@each
def test_hidden_files_and_those_of_a_system_are_passed_over(root, name):
    for file in images_of(root)[:1]:
        (file.parent / ".DS_Store").write_bytes(b"x")
        (file.parent / "Thumbs.db").write_bytes(b"x")
        (file.parent / f"._{file.name}").write_bytes(b"x")
        (file.parent / "__MACOSX").mkdir()
        shutil.copy(file, file.parent / "__MACOSX" / file.name)
    assert len(READERS[name](root)) == SIZES[name]


@each
def test_a_missing_image_is_an_error_or_left_out(root, name):
    gone = next(f for f in images_of(root) if "benign (4)" in f.name or name != "busi")
    gone.unlink()
    with pytest.raises(InputError, match=rf"{gone.stem.split(' ')[0]}.*on_error='skip'"):
        READERS[name](root)
    with pytest.warns(DiffMICWarning, match="1 image.*are left out"):
        data = READERS[name](root, on_error="skip")
    assert len(data) == SIZES[name] - 1
    assert gone not in data.images
    assert any("left out" in problem for problem in data.problems)


DAMAGE = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "last bytes": lambda content: content[:-60],
    "text": lambda content: b"<html>404 not found</html>" * 20,
    "zeros": lambda content: bytes(len(content)),
}


@pytest.mark.parametrize("damage", DAMAGE)
@each
def test_a_damaged_image_is_an_error_that_names_it_or_left_out(root, name, damage):
    bad = images_of(root)[3]
    bad.write_bytes(DAMAGE[damage](bad.read_bytes()))
    with pytest.raises(InputError) as caught:
        READERS[name](root)
    assert bad.name in str(caught.value)
    assert "on_error='skip'" in str(caught.value)
    with pytest.warns(DiffMICWarning, match="1 image.*cannot be read"):
        data = READERS[name](root, on_error="skip")
    assert len(data) == SIZES[name] - 1
    assert bad not in data.images
    assert len(READERS[name](root, check=False)) == SIZES[name]


@each
def test_bytes_after_the_end_of_an_image_are_no_damage(root, name):
    file = images_of(root)[2]
    with file.open("ab") as stream:
        stream.write(bytes(10_000))
    assert len(READERS[name](root)) == SIZES[name]


@pytest.mark.parametrize("name", ["aptos", "ham10000", "isic2018", "chestxray14", "idrid"])
def test_images_that_are_not_listed_are_told_and_left_out(root, name):
    extra = images_of(root)[0].with_name("holiday.png")
    shutil.copy(images_of(root)[0], extra)
    with pytest.warns(DiffMICWarning, match=r"1 image\(s\) are not listed .*holiday.png"):
        data = READERS[name](root)
    assert extra not in data.images


TABLES = {
    "aptos": ["train.csv"],
    "ham10000": ["HAM10000_metadata"],
    "isic2018": ["ISIC2018_Task3_Training_GroundTruth.csv"],
    "chestxray14": ["Data_Entry_2017.csv", "train_val_list.txt", "test_list.txt"],
    "idrid": [
        f"{x} Labels.csv"
        for x in ("a. IDRiD_Disease Grading_Training", "b. IDRiD_Disease Grading_Testing")
    ],
}
GROUPINGS = "ISIC2018_Task3_Training_LesionGroupings.csv"
each_table = pytest.mark.parametrize(
    ("name", "table"), [(name, table) for name, tables in TABLES.items() for table in tables]
)


@each_table
def test_a_missing_table_is_an_error_that_says_where_to_get_it(root, name, table):
    next(root.rglob(table)).unlink()
    (root / "archive.zip").write_bytes(b"PK")
    with pytest.raises(InputError) as caught:
        READERS[name](root)
    message = str(caught.value)
    assert table in message
    assert "https://" in message
    assert "licence" in message
    assert "Unpack archive.zip" in message


@each_table
def test_an_empty_table_is_an_error(root, name, table):
    next(root.rglob(table)).write_text("")
    with pytest.raises(InputError, match=r"no column|is empty"):
        READERS[name](root)


@each_table
def test_bytes_in_place_of_a_table_are_an_error(root, name, table):
    next(root.rglob(table)).write_bytes(b"\x89PNG\r\n\x1a\n\x00\xff" * 50)
    with pytest.raises(InputError, match=r"cannot be read|is no list"):
        READERS[name](root)


@each
def test_folders_without_images_are_an_error(root, name):
    for file in images_of(root):
        file.unlink()
    with pytest.raises(InputError, match=r"has no .*https://"):
        READERS[name](root, on_error="skip")


@each
def test_an_empty_folder_a_file_and_nothing_are_errors(tmp_path, name):
    (tmp_path / "file.zip").write_bytes(b"PK")
    (tmp_path / "empty").mkdir()
    for folder, match in (
        (tmp_path / "empty", "has no"),
        (tmp_path / "file.zip", "is a file"),
        (tmp_path / "nowhere", "does not exist"),
        (3, "folder is 3"),
        ("", "folder is ''"),
    ):
        with pytest.raises(InputError, match=match):
            READERS[name](folder)
    with pytest.raises(InputError, match="on_error is 'ignore'"):
        READERS[name](tmp_path, on_error="ignore")


@pytest.mark.filterwarnings("default::diffmic.DiffMICWarning")
@each
def test_numbers_that_are_not_the_official_ones_are_told(root, name):
    with pytest.warns(DiffMICWarning, match=r"official ones \(.* of .*\)") as caught:
        data = READERS[name](root)
    assert len(caught) == len(data.problems) == 1


@pytest.mark.parametrize(
    ("name", "file", "old", "new", "message"),
    [
        ("aptos", "train.csv", "000000000001,1", "000000000001,5", "Row 2 .* diagnosis '5'"),
        ("aptos", "train.csv", "000000000001,1", "000000000001,", "Row 2 .* nothing.*diagnosis"),
        ("aptos", "train.csv", "diagnosis", "grade", r"no column 'diagnosis'; found"),
        ("aptos", "train.csv", "000000000001,1", "000000000000,1", "twice, with different labels"),
        ("ham10000", "HAM10000_metadata", "ISIC_0000001,akiec", "ISIC_0000001,scc", "'scc'"),
        ("ham10000", "HAM10000_metadata", "lesion_id", "patient", "no column 'lesion_id'"),
        ("isic2018", "ISIC2018_Task3_Training_GroundTruth.csv", "1.0", "0.0", "Row 1 .*as \\[\\]"),
        ("isic2018", "ISIC2018_Task3_Training_GroundTruth.csv", "0.0", "1.0", "Row 1 .*akiec.*mel"),
        (
            "isic2018",
            "ISIC2018_Task3_Training_LesionGroupings.csv",
            "ISIC_0000003,",
            "X,",
            "lesion",
        ),
        ("chestxray14", "Data_Entry_2017.csv", "Hernia", "Hernias", "findings 'Hernias'"),
        ("chestxray14", "Data_Entry_2017.csv", "Hernia", "Hernia|No Finding", "alone"),
        ("chestxray14", "Data_Entry_2017.csv", "Finding Labels", "Labels", "'Finding Labels'"),
        (
            "idrid",
            "b. IDRiD_Disease Grading_Testing Labels.csv",
            "IDRiD_002,2",
            "IDRiD_002,x",
            "'x'",
        ),
    ],
)
def test_a_table_that_makes_no_sense_is_an_error(root, name, file, old, new, message):
    edit(next(root.rglob(file)), lambda text: text.replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        READERS[name](root)


@pytest.mark.parametrize("name", ["aptos"])
def test_an_image_listed_twice_alike_is_read_once(root, name):
    edit(root / "train.csv", lambda text: text + "000000000001,1\n")
    with pytest.warns(DiffMICWarning, match="1 image.* listed twice"):
        assert len(read_aptos2019(root)) == 15


@pytest.mark.parametrize("name", ["aptos"])
def test_equal_files_with_different_labels_are_told(root, name):
    files = images_of(root)
    shutil.copy(files[0], files[1])
    shutil.copy(files[5], files[10])  # of one grade
    with pytest.warns(DiffMICWarning, match=r"1 set\(s\) of equal files have different labels"):
        data = read_aptos2019(root)
    assert len(data) == 15
    assert sum("equal files" in problem for problem in data.problems) == 1


@pytest.mark.parametrize("name", ["chestxray14", "idrid"])
def test_equal_files_in_different_splits_are_told(root, name):
    data = READERS[name](root)
    train, test = (data.part(split) for split in ("train", "test"))
    label = test.labels[0]
    same = next(
        path
        for path, other in zip(train.images, train.labels, strict=True)
        if np.array_equal(other, label)
    )
    shutil.copy(same, test.images[0])
    with pytest.warns(DiffMICWarning, match=r"1 set\(s\) of equal files lie in different splits"):
        READERS[name](root)


@pytest.mark.parametrize("name", ["ham10000"])
def test_lesions_stay_together_in_a_split(root, name):
    data = read_ham10000(root)
    assert data.splits is None
    assert set(data.labels) == set(downloads.CODES)
    assert data.class_names[:2] == ["actinic keratosis", "basal cell carcinoma"]
    assert len(set(data.groups)) == 28
    split = data.split(validation=0.25, test=0.25, random_state=1)
    assert set(split.splits) == {"train", "val", "test"}
    for lesion in set(split.groups):
        assert len(set(split.splits[split.groups == lesion])) == 1
    assert (data.split(random_state=3).splits == data.split(random_state=3).splits).all()
    assert data.splits is None
    everything = [image for part in ("train", "val", "test") for image in split.part(part).images]
    assert sorted(everything) == sorted(data.images)


@pytest.mark.parametrize("name", ["ham10000"])
@pytest.mark.parametrize("suffix", [".csv", ".tab"])
def test_the_table_of_ham10000_may_have_a_suffix_and_tabs(root, name, suffix):
    file = root / "HAM10000_metadata"
    text = file.read_text().replace(",", "\t" if suffix == ".tab" else ",")
    file.with_suffix(suffix).write_text(text)
    file.unlink()
    assert len(read_ham10000(root)) == 56


@pytest.mark.parametrize("name", ["isic2018"])
def test_the_parts_of_isic_are_splits_and_lesions_groups(root, name):
    data = read_isic2018(root)
    assert [len(data.part(split)) for split in ("train", "val", "test")] == [28, 7, 14]
    assert len(set(data.part("train").groups)) == 14
    assert len(set(data.part("test").groups)) == 14  # not published: each for itself
    with pytest.raises(InputError, match="official split"):
        data.split()
    shutil.rmtree(root / "ISIC2018_Task3_Validation_GroundTruth")
    (root / "ISIC2018_Task3_Training_LesionGroupings.csv").unlink()
    with pytest.warns(DiffMICWarning, match="LesionGroupings"):
        data = read_isic2018(root)
    assert set(data.splits) == {"train", "test"}
    assert data.groups is None


@pytest.mark.parametrize("name", ["chestxray14"])
def test_findings_are_columns_and_patients_groups(root, name):
    data = read_chestxray14(root)
    assert data.class_names == [*FINDINGS]
    assert data.labels.shape == (40, 14)
    whole = read_chestxray14(root, no_finding=True)
    assert whole.class_names[-1] == "No Finding"
    assert (whole.labels[:, 14] == (whole.labels[:, :14].sum(axis=1) == 0)).all()
    assert (whole.labels[:, :14] == data.labels).all()
    assert {p.name: list(row) for p, row in zip(data.images, data.labels, strict=True)}[
        "00000003_000.png"
    ] == [int(f in ("Cardiomegaly", "Effusion")) for f in FINDINGS]
    assert (len(data.part("train")), len(data.part("test"))) == (30, 10)
    assert not set(data.part("train").groups) & set(data.part("test").groups)
    split = data.split(validation=0.2)
    assert (split.splits[data.splits == "test"] == "test").all()
    assert set(split.splits) == {"train", "val", "test"}
    for patient in set(split.groups):
        assert len(set(split.splits[split.groups == patient])) == 1


@pytest.mark.parametrize("name", ["chestxray14"])
def test_swapped_lists_are_an_error(root, name):
    lists = root / "train_val_list.txt", root / "test_list.txt"
    texts = [file.read_text() for file in lists]
    for file, text in zip(lists, reversed(texts), strict=True):
        file.write_text(text)
    with pytest.raises(InputError, match="swapped"):
        read_chestxray14(root)


@pytest.mark.parametrize("name", ["chestxray14"])
def test_lists_that_share_images_or_patients_are_an_error(root, name):
    file = root / "test_list.txt"
    text = file.read_text()
    file.write_text(text + "00000001_000.png\n")
    with pytest.raises(InputError, match=r"on the lists of train and of test: 00000001_000\.png"):
        read_chestxray14(root)
    file.write_text(text)
    edit(root / "Data_Entry_2017.csv", lambda t: t.replace(",0,4,58", ",0,1,58"))
    with pytest.raises(InputError, match=r"1 patient\(s\).* of train and of test: 1"):
        read_chestxray14(root, on_error="skip")


@pytest.mark.parametrize("name", ["chestxray14"])
def test_images_on_no_list_are_an_error_or_left_out(root, name):
    edit(root / "train_val_list.txt", lambda text: text.split("\n", 2)[2])
    with pytest.raises(InputError, match=r"2 image\(s\) are neither"):
        read_chestxray14(root)
    with pytest.warns(DiffMICWarning) as caught:
        assert len(read_chestxray14(root, on_error="skip")) == 38
    told = [str(w.message) for w in caught]
    assert any("2 image(s) are neither" in text for text in told)


@pytest.mark.parametrize("name", ["idrid"])
def test_the_parts_of_idrid_have_images_of_the_same_names(root, name):
    data = read_idrid(root)
    assert (len(data.part("train")), len(data.part("test"))) == (20, 10)
    assert len(set(data.images)) == 30
    assert len({path.name for path in data.images}) == 20
    assert data.groups is None
    assert set(data.split(validation=0.2).splits) == {"train", "val", "test"}


@pytest.mark.parametrize("name", ["busi"])
def test_an_image_in_the_folder_of_another_class_is_an_error(root, name):
    file = next(root.rglob("benign (3).png"))
    file.rename(file.parent.parent / "malignant" / file.name)
    next(root.rglob("benign (3)_mask.png")).unlink()
    with pytest.raises(InputError, match=r"1 image\(s\) in .*malignant.* name of another class"):
        read_busi(root)


@pytest.mark.parametrize("name", ["busi"])
def test_tumours_without_a_mask_are_told_if_there_are_masks(root, name):
    next(root.rglob("benign (3)_mask.png")).unlink()
    with pytest.warns(DiffMICWarning, match=r"1 image\(s\) of tumours have no mask"):
        assert len(read_busi(root)) == 30
    for mask in root.rglob("*_mask*"):
        mask.unlink()
    assert len(read_busi(root)) == 30


@pytest.mark.parametrize("name", ["busi"])
def test_groups_that_inspect_finds_stay_together(root, name):
    files = [next(root.rglob(f"benign ({number}).png")) for number in (1, 2, 3)]
    for file in files[1:]:
        shutil.copy(files[0], file)
    data = read_busi(root)
    inspection = inspect(data, distance=-1, verbose=0)
    numbers = [data.images.index(file) for file in files]
    assert len(set(inspection.groups[numbers].tolist())) == 1
    split = data.split(groups=inspection.groups)
    assert len(set(split.splits[numbers])) == 1
    assert sum(len(found) for found in inspection.duplicates) == 3


@pytest.mark.parametrize("name", ["aptos"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": 0}, "validation is 0"),
        ({"validation": 1.0}, "validation is 1.0"),
        ({"validation": "0.1"}, "validation is '0.1'"),
        ({"random_state": "0"}, "random_state is '0'"),
        ({"random_state": -1}, "random_state is -1"),
        ({"test": -0.1}, "test is -0.1"),
        ({"test": True}, "test is True"),
        ({"validation": 0.5, "test": 0.5}, "nothing is left"),
        ({"groups": [1, 2]}, "groups"),
        ({"groups": ["all"] * 15}, r"1 group\(s\) are too few .* smaller fractions"),
    ],
)
def test_a_split_that_cannot_be_made_is_an_error(root, name, options, message):
    with pytest.raises(InputError, match=message):
        read_aptos2019(root).split(**options)


@pytest.mark.parametrize("name", ["aptos"])
def test_printed_a_data_set_is_a_table_with_its_licence(root, name):
    edit(root / "train.csv", lambda text: text + "000000000001,1\n")
    with pytest.warns(DiffMICWarning):
        data = read_aptos2019(root)
    text = str(data.split())
    assert "kaggle.com" in text
    assert "Licence" in text
    assert "no retinopathy: " in text
    assert "train: " in text
    assert "- 1 image(s) are listed twice" in text
    assert repr(data) == "<APTOS 2019: 15 images, 2 problem(s)>"


def pixels(n, size=28, channels=1):
    shape = (n, size, size) if channels == 1 else (n, size, size, 3)
    return np.random.RandomState(n).randint(0, 256, shape, np.uint8)


def save_medmnist(file, name, *, size=28, counts=(6, 3, 4), **changes):
    known = MEDMNIST[name]
    arrays = {}
    for split, n in zip(("train", "val", "test"), counts, strict=True):
        arrays[f"{split}_images"] = pixels(n, size, known.channels)
        if known.multilabel:
            labels = np.random.RandomState(n).randint(0, 2, (n, len(known.class_names)))
        else:
            labels = (np.arange(n) % len(known.class_names))[:, None]
        arrays[f"{split}_labels"] = labels.astype(np.uint8)
    arrays |= changes
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(file, **{k: v for k, v in arrays.items() if v is not None})


@pytest.mark.parametrize("name", MEDMNIST)
def test_each_set_of_medmnist_is_read_from_its_file(tmp_path, name):
    save_medmnist(tmp_path / f"{name}.npz", name)
    data = read_medmnist(name, tmp_path)
    known = MEDMNIST[name]
    assert [len(data.part(split)) for split in ("train", "val", "test")] == [6, 3, 4]
    assert data.images.shape == (13, 28, 28) + ((3,) if known.channels == 3 else ())
    assert data.class_names == list(known.class_names)
    assert data.labels.shape == ((13, 14) if name == "chestmnist" else (13,))
    assert ("NC" in data.source.licence) == (name == "dermamnist")
    assert (data.part("val").images == pixels(3, 28, known.channels)).all()
    assert len(read_inputs(data.images).images) == 13
    assert inspect(data, distance=-1, verbose=0).counts.keys() == {"train", "val", "test"}


@pytest.mark.parametrize("size", [28, 64, 128, 224])
def test_sizes_have_files_of_their_own(tmp_path, size):
    file = tmp_path / ("breastmnist.npz" if size == 28 else f"breastmnist_{size}.npz")
    save_medmnist(file, "breastmnist", size=size)
    for folder in (tmp_path, file):
        data = read_medmnist("BreastMNIST", folder, size=size, splits=("test",))
        assert data.images.shape == (4, size, size)
    other = 64 if size == 28 else 28
    with pytest.raises(InputError, match=r"no file .*breastmnist.*zenodo.*download=True"):
        read_medmnist("breastmnist", tmp_path, size=other)
    with pytest.raises(InputError, match="is not the file of"):
        read_medmnist("breastmnist", file, size=other)


def test_where_the_package_puts_its_files_they_are_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    with pytest.raises(InputError, match="no file"):
        read_medmnist("breastmnist")
    assert not list(tmp_path.iterdir())
    save_medmnist(tmp_path / ".medmnist" / "breastmnist.npz", "breastmnist")
    assert len(read_medmnist("breastmnist")) == 13


def test_only_who_asks_for_a_download_has_one_from_the_package(tmp_path, monkeypatch):
    import sys

    asked = []

    class BreastMNIST:
        def __init__(self, split, download, root, size):
            asked.append((split, download, root, size))
            save_medmnist(tmp_path / "new" / "breastmnist_64.npz", "breastmnist", size=64)

    monkeypatch.setitem(sys.modules, "medmnist", types.SimpleNamespace(BreastMNIST=BreastMNIST))
    with pytest.raises(InputError, match="no file"):
        read_medmnist("breastmnist", tmp_path / "new", size=64)
    assert not asked
    data = read_medmnist("breastmnist", tmp_path / "new", size=64, download=True)
    assert len(data) == 13
    assert asked == [("val", True, str(tmp_path / "new"), 64)]
    read_medmnist("breastmnist", tmp_path / "new", size=64, download=True)  # it is there
    assert len(asked) == 1
    monkeypatch.setitem(sys.modules, "medmnist", types.SimpleNamespace())
    with pytest.raises(DiffMICError, match="could not download"):
        read_medmnist("octmnist", tmp_path, download=True)
    monkeypatch.setitem(sys.modules, "medmnist", None)
    with pytest.raises(DiffMICError, match="pip install medmnist"):
        read_medmnist("octmnist", tmp_path, download=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val_labels": None}, "has no val_labels; found"),
        ({"test_images": pixels(4).astype(float)}, "float64"),
        ({"test_images": pixels(4, 32)}, r"\(4, 32, 32\)"),
        ({"test_images": pixels(4, 28, 3)}, r"\(4, 28, 28, 3\)"),
        ({"test_images": pixels(3)}, r"shape \(4, 1\)"),
        ({"test_labels": np.full((4, 1), 7, np.uint8)}, "from 7 to 7; .* 0 to 1"),
        ({"test_labels": np.zeros(4, np.uint8)}, r"shape \(4,\)"),
        ({"test_labels": np.zeros((4, 1))}, "float64"),
    ],
)
def test_a_file_that_is_not_of_the_set_is_an_error(tmp_path, changes, message):
    save_medmnist(tmp_path / "breastmnist.npz", "breastmnist", **changes)
    with pytest.raises(InputError, match=message):
        read_medmnist("breastmnist", tmp_path)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_of_medmnist_is_an_error(tmp_path, damage):
    file = tmp_path / "breastmnist.npz"
    save_medmnist(file, "breastmnist")
    file.write_bytes(DAMAGE[damage](file.read_bytes()))
    with pytest.raises(InputError, match=r"breastmnist.npz.*Download it again"):
        read_medmnist("breastmnist", tmp_path)


def test_images_in_several_splits_of_medmnist_are_told(tmp_path):
    val = pixels(3)
    val[1] = pixels(6)[2]
    save_medmnist(tmp_path / "breastmnist.npz", "breastmnist", val_images=val)
    with pytest.warns(DiffMICWarning, match=r"1 image\(s\) are in several splits \(train and val"):
        data = read_medmnist("breastmnist", tmp_path)
    assert any("several splits" in problem for problem in data.problems)


@pytest.mark.filterwarnings("default::diffmic.DiffMICWarning")
def test_other_numbers_than_those_of_medmnist_are_told(tmp_path):
    save_medmnist(tmp_path / "breastmnist.npz", "breastmnist")
    with pytest.warns(DiffMICWarning, match="part train has 6 images, officially 546"):
        read_medmnist("breastmnist", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "mnist"}, "name is 'mnist'"),
        ({"name": 3}, "name is 3"),
        ({"name": "breastmnist", "size": 32}, "size is 32"),
        ({"name": "breastmnist", "size": None}, "size is None"),
        ({"name": "breastmnist", "splits": "training"}, "splits is 'training'"),
        ({"name": "breastmnist", "splits": [["train"]]}, r"splits is \[\['train'\]\]"),
        ({"name": "breastmnist", "splits": ()}, "splits is"),
        ({"name": "breastmnist", "splits": 3}, "splits is 3"),
        ({"name": "breastmnist", "splits": None}, "splits is None"),
        ({"name": "breastmnist", "size": [28]}, r"size is \[28\]"),
        ({"name": "breastmnist", "splits": ("train", "train")}, "splits is"),
    ],
)
def test_what_does_not_exist_in_medmnist_is_an_error(tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        read_medmnist(folder=tmp_path, **arguments)


def test_the_table_of_medmnist_is_that_of_the_package():
    info = pytest.importorskip("medmnist.info").INFO
    sets = {name: values for name, values in info.items() if not name.endswith("3d")}
    assert MEDMNIST.keys() == sets.keys()
    for name, known in MEDMNIST.items():
        assert known.counts == tuple(sets[name]["n_samples"].values())
        assert known.channels == sets[name]["n_channels"]
        assert len(known.class_names) == len(sets[name]["label"])
        assert known.licence == sets[name]["license"]
        assert known.url(64) == sets[name]["url_64"].removesuffix("?download=1")


@pytest.mark.parametrize(
    ("name", "first_names"),
    [
        ("aptos", ["no retinopathy", "mild"]),
        ("ham10000", ["actinic keratosis", "basal cell carcinoma"]),
        ("busi", ["benign", "malignant"]),
        ("chestxray14", ["Atelectasis", "Cardiomegaly"]),
    ],
)
def test_a_classifier_learns_from_what_is_read_and_keeps_the_names(root, name, first_names):
    data = READERS[name](root)
    clf = DiffMICClassifier(**small(max_epochs=1, image_size=32, validation_fraction=None))
    with pytest.warns(DiffMICWarning, match="not calibrated"):
        clf.fit(data.part("train") if name == "chestxray14" else data)
    assert clf.class_names_[:2] == first_names
    n_classes = len(data.class_names)
    with Image.open(data.images[0]) as image:
        assert clf.predict_proba([image]).shape == (1, n_classes)
    assert clf.predict(data).shape == ((40, 14) if name == "chestxray14" else (len(data),))


@pytest.mark.parametrize("name", ["chestxray14"])
def test_splits_are_not_learnt_together(root, name):
    with pytest.raises(InputError, match="would be learnt together"):
        DiffMICClassifier(**small()).fit(read_chestxray14(root))
