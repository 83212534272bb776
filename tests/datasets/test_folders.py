"""Images on disk: folders of classes."""

import os

import numpy as np
import pytest
from PIL import Image

from diffmic import DiffMICWarning
from diffmic.data import read_inputs
from diffmic.datasets import read_folders
from diffmic.errors import InputError


def save(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 4)).save(path)


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
        (["1.png"], r"found 1 images, 1 of them in another place \('1\.png'\)"),
        (["a/1.png", "b/deep/2.png"], r"found 2 images, 1 of them in another place .*2\.png'\)"),
        (["train/a/1.png", "other/a/2.png"], r"found 2 images, 2 of them in .*1\.png'\)"),
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


def test_files_that_begin_with_a_dot_are_no_images(tmp_path):
    for name in ("a/1.png", "b/2.png", "b/._2.png"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.touch()
    assert [file.name for file in read_folders(tmp_path).paths] == ["1.png", "2.png"]


@pytest.mark.filterwarnings("error")
def test_folders_and_files_that_are_links_are_read(tmp_path):
    save(tmp_path / "elsewhere/1.png")
    save(tmp_path / "data/benign/1.png")
    (tmp_path / "data/malignant").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    save(tmp_path / "single.png")
    (tmp_path / "data/benign/2.png").symlink_to(tmp_path / "single.png")
    found = read_folders(tmp_path / "data")
    assert found.labels.tolist() == ["benign", "benign", "malignant"]
    assert len(read_inputs(found.paths).images) == 3


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "suffix", ["bmp", "gif", "jp2", "jpe", "pgm", "ppm", "tga", "TIF", "webp", "ico", "qoi", "pcx"]
)
def test_every_format_that_pillow_reads_is_read(tmp_path, suffix):
    (tmp_path / "a").mkdir()
    Image.new("L", (16, 16)).convert("RGB" if suffix == "qoi" else "L").save(
        tmp_path / f"a/1.{suffix}"
    )
    assert [path.name for path in read_folders(tmp_path).paths] == [f"1.{suffix}"]


@pytest.mark.filterwarnings("error")
def test_dicom_is_known_by_its_suffix_or_by_how_it_begins(tmp_path):
    for name in ("a/1.dcm", "a/2.DCM", "a/IM0001", "a/1.2.840.5", "b/3.dicom"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "a/IM0002").write_bytes(b"\x08\0\x05\0CS" + bytes(200))  # without a preamble
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")  # a table of contents
    assert len(read_folders(tmp_path)) == 6


@pytest.mark.filterwarnings("error")
def test_files_of_arrays_are_images(tmp_path):
    (tmp_path / "a").mkdir()
    np.save(tmp_path / "a/1.npy", np.zeros((4, 4), np.uint8))
    found = read_folders(tmp_path)
    assert read_inputs(found.paths).images[0].shape == (1, 4, 4)


@pytest.mark.filterwarnings("error")
def test_an_image_without_a_suffix_is_known_by_its_content(tmp_path):
    for name in ("a/scan", "a/scan.v2"):
        save(tmp_path / "x.png")
        (tmp_path / "a").mkdir(exist_ok=True)
        (tmp_path / "x.png").rename(tmp_path / name)
    assert [path.name for path in read_folders(tmp_path).paths] == ["scan", "scan.v2"]


def test_hidden_folders_and_files_are_no_data_and_said(tmp_path):
    for name in ("a/1.png", ".ipynb_checkpoints/1.png", "a/.ipynb_checkpoints/1.png", "a/.2.png"):
        save(tmp_path / name)
    save(tmp_path / "__MACOSX/a/1.png")
    with pytest.warns(
        DiffMICWarning, match=r"4 hidden file\(s\) or folder\(s\) \(\.ipynb_checkpoints, .*\)"
    ) as told:
        found = read_folders(tmp_path)
    assert len(told) == 1
    assert found.label_names == ["a"]
    assert len(found) == 1


@pytest.mark.filterwarnings("error")
def test_files_of_the_system_are_not_worth_a_word(tmp_path):
    save(tmp_path / "a/1.png")
    for name in ("a/.DS_Store", "a/Thumbs.db", "a/desktop.ini", "a/._1.png", "README.md"):
        (tmp_path / name).write_text("x")
    assert len(read_folders(tmp_path)) == 1


def test_what_is_left_out_is_counted_and_named_in_one_warning(tmp_path):
    save(tmp_path / "a/1.png")
    for name in ("a/notes.txt", "a/scan.npy", "volumes/v.nii.gz", "a/table.h5", "a/film.mpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\x89HDF\r\n\x1a\n" if name.endswith("h5") else b"x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "a/gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "a/round").symlink_to(tmp_path, target_is_directory=True)
    with pytest.warns(DiffMICWarning) as told:
        found = read_folders(tmp_path)
    assert len(found) == 1
    assert len(told) == 1
    message = str(told[0].message)
    assert "5 file(s) that are no image (a/film.mpg, a/notes.txt, a/scan.npy, …)" in message
    assert "2 class folder(s) without an image that can be read (empty, volumes)" in message
    assert "1 link(s) that lead nowhere (a/gone.png)" in message
    assert "1 link(s) to a folder that they lie in (a/round)" in message
    assert told[0].filename == __file__


def test_a_folder_that_is_linked_twice_is_refused(tmp_path):
    save(tmp_path / "malignant/1.png")
    (tmp_path / "malign").symlink_to(tmp_path / "malignant", target_is_directory=True)
    with pytest.raises(InputError, match=r"malign' are one folder|malignant' are one folder|one f"):
        read_folders(tmp_path)
    assert len(read_folders(tmp_path, exclude="malign")) == 1


def test_a_file_that_is_linked_into_two_classes_is_refused(tmp_path):
    save(tmp_path / "a/1.png")
    (tmp_path / "b").mkdir()
    (tmp_path / "b/1.png").symlink_to(tmp_path / "a/1.png")
    with pytest.raises(InputError, match="are one file, through a link, and lie in two classes"):
        read_folders(tmp_path)


@pytest.mark.parametrize("names", [("Benign", "benign"), ("be nign", "be_nign"), ("é", "e\u0301")])
def test_classes_that_look_alike_are_pointed_out(tmp_path, names):
    for name in names:
        save(tmp_path / name / "1.png")
    if len(list(tmp_path.iterdir())) < 2:
        pytest.skip("this file system keeps one of the two names")
    with pytest.warns(DiffMICWarning, match="differ in case, spaces or accents alone"):
        assert len(read_folders(tmp_path).label_names) == 2


@pytest.mark.parametrize("names", [("Training", "Testing"), ("train", "valid"), ("TRAIN", "dev")])
def test_splits_go_by_many_names(tmp_path, names):
    for name in names:
        save(tmp_path / name / "a/1.png")
    found = read_folders(tmp_path)
    assert sorted(found.splits.tolist()) == sorted(names)
    assert found.label_names == ["a"]


def test_images_beside_the_classes_of_a_split_are_an_error(tmp_path):
    save(tmp_path / "train/a/1.png")
    save(tmp_path / "test/2.png")
    with pytest.raises(InputError, match=r"another place \('test.2\.png'\)\. Read a split whose"):
        read_folders(tmp_path)
    assert len(read_folders(tmp_path / "train")) == 1


@pytest.mark.parametrize("classes", [("a", "b"), ("train/a", "test/a")])
def test_images_beside_all_folders_are_an_error_that_counts_them(tmp_path, classes):
    for name in (*(f"{c}/1.png" for c in classes), *(f"loose {n}.png" for n in range(4))):
        save(tmp_path / name)
    message = r"found 6 images, 4 of them in another place \('loose 0.png', .*, …\)\. Move them"
    with pytest.raises(InputError, match=message):
        read_folders(tmp_path)
    assert len(read_folders(tmp_path, exclude="loose*")) == 2


def test_files_beside_the_classes_that_are_named_as_images_are_told(tmp_path):
    save(tmp_path / "a/1.png")
    for name in ("labels.csv", "README", "Thumbs.db", "scan.nii.gz", "film.mp4", "archive.zip"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.warns(DiffMICWarning, match=r"2 file\(s\) that are no image \(film.mp4, scan.nii"):
        assert len(read_folders(tmp_path)) == 1


def test_classes_that_are_called_like_splits_are_pointed_out(tmp_path):
    save(tmp_path / "train/1.png")
    save(tmp_path / "test/2.png")
    with pytest.warns(DiffMICWarning, match="which are names of splits"):
        read_folders(tmp_path)


def test_a_folder_per_patient_within_each_class_names_the_groups(tmp_path):
    for name in ("benign/P1/1.png", "benign/P1/left/2.png", "malignant/P2/1.png"):
        save(tmp_path / name)
    with pytest.raises(InputError, match="levels='label/group' if the classes hold a folder per"):
        read_folders(tmp_path)
    found = read_folders(tmp_path, levels="label/group")
    assert found.labels.tolist() == ["benign", "benign", "malignant"]
    assert found.groups.tolist() == ["P1", "P1", "P2"]
    assert read_folders(tmp_path, levels="label").labels.tolist() == found.labels.tolist()
    inner = read_folders(tmp_path, levels="*/label")
    assert inner.label_names == ["P1", "P2"]


def test_a_folder_around_the_classes_is_pointed_out(tmp_path):
    save(tmp_path / "archive/a/1.png")
    save(tmp_path / "archive/b/1.png")
    with pytest.raises(InputError, match=r"If the classes are the folders in '.*archive'"):
        read_folders(tmp_path)


@pytest.mark.parametrize("levels", ["", "labels", "split", "label/label", "label/group/group", 3])
def test_levels_that_cannot_be_are_an_error(tmp_path, levels):
    save(tmp_path / "a/1.png")
    with pytest.raises(InputError, match=f"levels is {levels!r}; "):
        read_folders(tmp_path, levels=levels)


def test_an_image_above_its_level_is_an_error(tmp_path):
    save(tmp_path / "a/P1/1.png")
    save(tmp_path / "a/2.png")
    with pytest.raises(InputError, match=r"as label/group/image\.png; .*place \('a.2\.png'\)"):
        read_folders(tmp_path, levels="label/group")


@pytest.mark.filterwarnings("error")
def test_masks_beside_images_are_pointed_out_and_can_be_left_out(tmp_path):
    for name in ("a/1.png", "a/1_mask.png", "a/1_mask_1.png", "a/2.png"):
        save(tmp_path / name)
    with pytest.raises(DiffMICWarning, match=r"2 files seem to be masks .*exclude='\*_mask\*'"):
        read_folders(tmp_path)
    found = read_folders(tmp_path, exclude=["*_mask*"])
    assert [path.name for path in found.paths] == ["1.png", "2.png"]


def test_classes_that_are_numbers_are_numbers(tmp_path):
    for name in ("10", "2", "0"):
        save(tmp_path / name / "1.png")
    found = read_folders(tmp_path)
    assert found.labels.tolist() == [0, 10, 2]
    assert found.label_names == ["0", "2", "10"]


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    save(tmp_path / "a/1.png")
    assert len(read_folders("~")) == 1


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path, monkeypatch):
    save(tmp_path / "a/1.png")
    (tmp_path / "b").mkdir()
    scandir = os.scandir

    def refuse(folder):
        if str(folder).endswith("b"):
            raise PermissionError("not for you")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=r"b' cannot be read: not for you"):
        read_folders(tmp_path)


def test_a_file_is_no_folder(tmp_path):
    save(tmp_path / "1.png")
    with pytest.raises(InputError, match="is a file; read_csv reads tables"):
        read_folders(tmp_path / "1.png")


def test_why_a_whole_class_cannot_be_read_is_said(tmp_path):
    save(tmp_path / "a/1.png")
    (tmp_path / "b").mkdir()
    (tmp_path / "b/1.nii.gz").write_bytes(b"\x1f\x8b" + bytes(500))
    with pytest.warns(DiffMICWarning, match=r"can be read \(b\)\. .*1\.nii\.gz' is not .*nibabel"):
        read_folders(tmp_path)


@pytest.mark.parametrize("path", [5, None, b"x", "", ["x"], "~nobody-of-this-name/x", "a\0b"])
def test_what_is_no_path_is_an_error(path):
    with pytest.raises(InputError):
        read_folders(path)
