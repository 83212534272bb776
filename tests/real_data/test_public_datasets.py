"""Readers of public data sets on real images, arranged by links as the downloads are."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from diffmic import DiffMICWarning
from diffmic.datasets import (
    inspect,
    read_aptos2019,
    read_busi,
    read_chestxray14,
    read_csv,
    read_ham10000,
    read_isic2018,
    read_medmnist,
)
from diffmic.datasets.chestxray14 import FINDINGS
from diffmic.errors import InputError

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.filterwarnings("ignore:.*not the official ones:diffmic.DiffMICWarning"),
]


def rows_of(folder):
    if not (folder / "labels.csv").is_file():
        pytest.skip(f"there is no {folder.name}")
    with (folder / "labels.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def link(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(source)


def write(file, header, rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([header, *rows])


@pytest.fixture
def aptos(data_folder, tmp_path):
    folder = data_folder / "aptos2019_dr"
    rows = rows_of(folder)
    for row in rows:
        link(folder / row["file"], tmp_path / "train_images" / Path(row["file"]).name)
    codes = [[Path(row["file"]).stem, row["label"]] for row in rows]
    write(tmp_path / "train.csv", ["id_code", "diagnosis"], codes)
    return tmp_path


@pytest.fixture
def ham10000(data_folder, tmp_path):
    folder = data_folder / "ham10000"
    rows = rows_of(folder)
    for number, row in enumerate(rows):
        part = f"HAM10000_images_part_{1 + (number >= 5000)}"
        link(folder / row["file"], tmp_path / part / Path(row["file"]).name)
    header = ["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization"]
    same = ("dx_type", "age", "sex", "localization")
    cells = [
        [row["lesion_id"], Path(row["file"]).stem, row["label"], *(row[name] for name in same)]
        for row in rows
    ]
    write(tmp_path / "HAM10000_metadata", header, cells)
    return tmp_path


@pytest.fixture
def chestxray14(data_folder, tmp_path):
    folder = data_folder / "chestxray14_64"
    rows = rows_of(folder)
    lists = {"train_val": [], "test": []}
    cells = []
    for number, row in enumerate(rows):
        name = Path(row["file"]).name
        link(folder / row["file"], tmp_path / f"images_{1 + number // 250:03d}" / "images" / name)
        lists["test" if row["split"] == "test" else "train_val"].append(name)
        found = "|".join(f for f in FINDINGS if row[f] == "1") or "No Finding"
        cells.append([name, found, 0, row["patient_id"], 58, "M", "PA", ""])
    header = ["Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age"]
    write(tmp_path / "Data_Entry_2017.csv", [*header, "Patient Gender", "View Position", ""], cells)
    for name, names in lists.items():
        (tmp_path / f"{name}_list.txt").write_text("\n".join(names))
    return tmp_path


@pytest.fixture
def busi(data_folder, tmp_path):
    folder = data_folder / "busi_ultrasound"
    for row in rows_of(folder):
        label, number = Path(row["file"]).stem.split("_")
        place = tmp_path / "Dataset_BUSI_with_GT" / label
        link(folder / row["file"], place / f"{label} ({int(number)}).jpg")
        mask = folder / "masks" / f"{label}_{number}.png"
        if mask.is_file():
            link(mask, place / f"{label} ({int(number)})_mask.png")
    return tmp_path


def test_aptos_is_read_as_its_own_table_is(aptos, data_folder):
    data = read_aptos2019(aptos)
    expected = read_csv(data_folder / "aptos2019_dr" / "labels.csv")
    assert [path.name for path in data.images] == [path.name for path in expected.paths]
    assert (data.labels == expected.labels).all()
    assert np.bincount(data.split().part("test").labels).sum() == pytest.approx(701, abs=1)


def test_ham10000_is_read_as_its_own_table_is_and_lesions_stay_together(ham10000, data_folder):
    data = read_ham10000(ham10000)
    expected = read_csv(data_folder / "ham10000" / "labels.csv", group="lesion_id")
    assert [path.name for path in data.images] == [path.name for path in expected.paths]
    assert (data.labels == expected.labels).all()
    assert (data.groups == expected.groups).all()
    split = data.split()
    for part, share in (("train", 0.7), ("val", 0.1), ("test", 0.2)):
        mine = split.part(part)
        assert len(mine) == pytest.approx(share * len(data), rel=0.02)
        assert (mine.labels == "nv").mean() == pytest.approx((data.labels == "nv").mean(), abs=0.02)
    parts = [set(split.part(part).groups) for part in ("train", "val", "test")]
    assert sum(map(len, parts)) == len(set.union(*parts))


def test_isic_2018_is_read_from_its_tables(ham10000, data_folder, tmp_path_factory):
    rows = rows_of(data_folder / "ham10000")
    root = tmp_path_factory.mktemp("isic")
    codes = ["mel", "nv", "bcc", "akiec", "bkl", "df", "vasc"]
    for number, part in enumerate(("Training", "Validation", "Test")):
        mine = [row for row in rows if row["split"] == ("train", "val", "test")[number]]
        folder = root / f"ISIC2018_Task3_{part}_Input"
        for row in mine:
            link(data_folder / "ham10000" / row["file"], folder / Path(row["file"]).name)
        marks = [
            [Path(row["file"]).stem, *(float(row["label"] == code) for code in codes)]
            for row in mine
        ]
        file = (
            root / f"ISIC2018_Task3_{part}_GroundTruth" / f"ISIC2018_Task3_{part}_GroundTruth.csv"
        )
        write(file, ["image", *(code.upper() for code in codes)], marks)
        if part == "Training":
            lesions = [[Path(r["file"]).stem, r["lesion_id"], r["dx_type"]] for r in mine]
            header = ["image", "lesion_id", "diagnosis_confirm_type"]
            write(root / "ISIC2018_Task3_Training_LesionGroupings.csv", header, lesions)
    data = read_isic2018(root)
    assert {part: len(data.part(part)) for part in ("train", "val", "test")} == {
        "train": 7003,
        "val": 1005,
        "test": 2005,
    }
    by_name = {Path(row["file"]).name: row["label"] for row in rows}
    assert all(by_name[p.name] == y for p, y in zip(data.images, data.labels, strict=True))


def test_chest_xrays_have_their_findings_and_patients(chestxray14, data_folder):
    data = read_chestxray14(chestxray14, no_finding=True)
    expected = read_csv(
        data_folder / "chestxray14_64" / "labels.csv", group="patient_id", labels=[*FINDINGS]
    )
    assert [path.name for path in data.images] == [path.name for path in expected.paths]
    assert (data.labels[:, :14] == expected.labels).all()
    assert data.labels[:, 14].sum() == 500
    assert (len(data.part("train")), len(data.part("test"))) == (819, 181)
    assert len(set(data.groups)) == 264


def test_swapped_lists_of_chest_xrays_are_an_error(chestxray14):
    lists = chestxray14 / "train_val_list.txt", chestxray14 / "test_list.txt"
    texts = [file.read_text() for file in lists]
    for file, text in zip(lists, reversed(texts), strict=True):
        file.write_text(text)
    with pytest.raises(InputError, match=r"181.*swapped|swapped"):
        read_chestxray14(chestxray14)


def test_busi_is_read_without_its_masks_and_near_copies_stay_together(busi):
    with pytest.warns(DiffMICWarning, match="have no mask"):  # masks of the test part are kept back
        data = read_busi(busi)
    names, counts = np.unique(data.labels, return_counts=True)
    assert dict(zip(names.tolist(), counts.tolist(), strict=True)) == {
        "benign": 436,
        "malignant": 209,
        "normal": 133,
    }
    assert not any("mask" in path.name for path in data.images)
    inspection = inspect(data, distance=40, verbose=0)
    split = data.split(groups=inspection.groups)
    for members in inspection.near_duplicates or []:
        assert len(set(split.splits[list(members)])) == 1


@pytest.mark.parametrize("damage", ["cut", "gone", "html"])
def test_one_bad_image_among_many_is_named(aptos, damage):
    file = sorted((aptos / "train_images").iterdir())[1234]
    content = file.read_bytes()
    file.unlink()  # a link: the real image is left alone
    if damage != "gone":
        file.write_bytes(content[: len(content) // 3] if damage == "cut" else b"<html>" * 100)
    with pytest.raises(InputError, match=file.stem):
        read_aptos2019(aptos)
    with pytest.warns(DiffMICWarning, match=file.stem):
        assert len(read_aptos2019(aptos, on_error="skip")) == 3503


def test_pneumoniamnist_is_read_and_its_known_copies_are_told(data_folder, tmp_path):
    file = data_folder / "medmnist" / "pneumoniamnist.npz"
    if not file.is_file():
        pytest.skip("there is no medmnist")
    with pytest.warns(DiffMICWarning, match=r"8 image\(s\) are in several splits \(train and val"):
        data = read_medmnist("pneumoniamnist", data_folder / "medmnist")
    assert [len(data.part(split)) for split in ("train", "val", "test")] == [4708, 524, 624]
    shutil.copy(file, tmp_path / "breastmnist.npz")
    with pytest.warns(DiffMICWarning, match="officially 546"):
        read_medmnist("breastmnist", tmp_path)
