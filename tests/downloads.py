"""Public data sets arranged as their downloads are, with small generated images."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

CODES = ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]


def image(path: Path, number: int) -> None:
    """An image of its own for each number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(number).randint(0, 256, (24, 32, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def table(path: Path, header: list[str], rows: list[list[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def aptos(root: Path, n: int = 15) -> None:
    names = [f"{number:012x}" for number in range(n)]
    for number, name in enumerate(names):
        image(root / "train_images" / f"{name}.png", number)
    table(root / "train.csv", ["id_code", "diagnosis"], [[n, i % 5] for i, n in enumerate(names)])
    table(root / "test.csv", ["id_code"], [["0005cfc8afb6"]])
    image(root / "test_images" / "0005cfc8afb6.png", 1000)


def ham10000(root: Path, n: int = 56) -> None:
    rows = []
    for number in range(n):
        name = f"ISIC_{number:07d}"
        image(root / f"HAM10000_images_part_{1 + number % 2}" / f"{name}.jpg", number)
        code = CODES[number // 2 % 7]
        rows.append([f"HAM_{number // 2:07d}", name, code, "histo", 50.0, "male", "back"])
    header = ["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization"]
    table(root / "HAM10000_metadata", header, rows)


def isic2018(root: Path, n: int = 28) -> None:
    lesions, first = [], 0
    for part, size in (("Training", n), ("Validation", 7), ("Test", 14)):
        rows = []
        for number in range(first, first + size):
            name = f"ISIC_{number:07d}"
            image(root / f"ISIC2018_Task3_{part}_Input" / f"{name}.jpg", number)
            code = CODES[number // 2 % 7]
            order = ["mel", "nv", "bcc", "akiec", "bkl", "df", "vasc"]
            rows.append([name, *(float(c == code) for c in order)])
            lesions.append([name, f"HAM_{number // 2:07d}", "histo"])
        folder = root / f"ISIC2018_Task3_{part}_GroundTruth"
        header = ["image", "MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]
        table(folder / f"ISIC2018_Task3_{part}_GroundTruth.csv", header, rows)
        (root / f"ISIC2018_Task3_{part}_Input" / "LICENSE.txt").write_text("CC BY-NC 4.0")
        first += size
    table(
        root / "ISIC2018_Task3_Training_LesionGroupings.csv",
        ["image", "lesion_id", "diagnosis_confirm_type"],
        lesions[:n],
    )


FINDINGS = [
    "No Finding",
    "Cardiomegaly|Effusion",
    "Hernia",
    "Pleural_Thickening|Atelectasis",
    "Effusion",
]


def chestxray14(root: Path, n_patients: int = 20) -> None:
    rows, lists = [], {"train_val": [], "test": []}
    for patient in range(1, n_patients + 1):
        for visit in range(2):
            name = f"{patient:08d}_{visit:03d}.png"
            number = 2 * patient + visit
            image(root / f"images_{1 + patient % 2:03d}" / "images" / name, number)
            rows.append([name, FINDINGS[number % 5], visit, patient, 58, "M", "PA", 2682, 2749])
            lists["test" if patient % 4 == 0 else "train_val"].append(name)
    header = [
        *("Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age"),
        *("Patient Gender", "View Position", "OriginalImage[Width", "Height]"),
    ]
    table(root / "Data_Entry_2017.csv", header, rows)
    for name, names in lists.items():
        (root / f"{name}_list.txt").write_text("\n".join(names) + "\n")


def busi(root: Path, n: int = 10) -> None:
    number = 0
    for label in ("benign", "malignant", "normal"):
        for index in range(1, n + 1):
            number += 1
            folder = root / "Dataset_BUSI_with_GT" / label
            image(folder / f"{label} ({index}).png", number)
            image(folder / f"{label} ({index})_mask.png", 500 + number)
    image(root / "Dataset_BUSI_with_GT" / "benign" / "benign (4)_mask_1.png", 999)


def idrid(root: Path, n: int = 10) -> None:
    root = root / "B. Disease Grading"
    number = 0
    for letter, part, size in (("a", "Training", 2 * n), ("b", "Testing", n)):
        rows = []
        for index in range(1, size + 1):
            number += 1
            name = f"IDRiD_{index:03d}"
            image(root / "1. Original Images" / f"{letter}. {part} Set" / f"{name}.jpg", number)
            rows.append([name, index % 5, index % 3, "", "", ""])
        header = ["Image name", "Retinopathy grade", "Risk of macular edema ", "", "", ""]
        name = f"{letter}. IDRiD_Disease Grading_{part} Labels.csv"
        table(root / "2. Groundtruths" / name, header, rows)
