"""HAM10000, as it was published and as the training part of ISIC 2018 task 3: skin lesions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from .download import Download, Listed
from .public import PublicDataset, Source

_CITATION = "Tschandl, Rosendahl and Kittler, Scientific Data 5, 180161 (2018)"
HAM10000 = Source(
    title="HAM10000",
    url="https://doi.org/10.7910/DVN/DBW86T",
    licence="CC BY-NC 4.0",
    citation=_CITATION,
    layout="the table HAM10000_metadata and the folders HAM10000_images_part_1 and …_part_2",
)
ISIC2018 = Source(
    title="ISIC 2018 task 3",
    url="https://challenge.isic-archive.com/data/#2018",
    licence="CC BY-NC 4.0",
    citation=f"{_CITATION}; Codella et al., arXiv 1902.03368",
    layout="ISIC2018_Task3_Training_GroundTruth.csv, ISIC2018_Task3_Training_LesionGroupings.csv "
    "and the folder ISIC2018_Task3_Training_Input; the same of Validation and Test, if wanted",
)
LESIONS = {
    "akiec": "actinic keratosis",
    "bcc": "basal cell carcinoma",
    "bkl": "benign keratosis",
    "df": "dermatofibroma",
    "mel": "melanoma",
    "nv": "melanocytic nevus",
    "vasc": "vascular lesion",
}
OFFICIAL = {"akiec": 327, "bcc": 514, "bkl": 1099, "df": 115, "mel": 1113, "nv": 6705, "vasc": 142}
PARTS = {"train": "Training", "val": "Validation", "test": "Test"}


def read_ham10000(
    folder: str | Path, *, on_error: str = "raise", check: bool = True
) -> PublicDataset:
    """Read HAM10000, 10,015 dermatoscopic images of 7,470 lesions: https://doi.org/10.7910/DVN/DBW86T.

    There is no official split; ``data.split()`` keeps the images of a lesion together. The same
    images are the training part of :func:`read_isic2018`.

    Parameters
    ----------
    folder : str or Path
        The unpacked download, with the table ``HAM10000_metadata`` (also with a suffix) and the
        folders of images. Nothing is downloaded.
    on_error : {"raise", "skip"}
        What is done about missing and damaged images. Skip: they are left out, with a warning.
    check : bool
        Whether image files are opened to see whether they are whole, and compared with each other.

    Returns
    -------
    PublicDataset
        Labels are akiec, bcc, bkl, df, mel, nv and vasc; groups are lesions.

    Raises
    ------
    InputError
        A table or folder is missing or not as expected, or images cannot be used.
    """
    download = Download(folder, HAM10000, on_error=on_error, check=check)
    file = download.file("HAM10000_metadata", "HAM10000_metadata.csv", "HAM10000_metadata.tab")
    listed = []
    for number, row in download.rows(file, "image_id", "lesion_id", "dx").items():
        if row["dx"] not in LESIONS:
            raise InputError(
                f"Row {number} of {str(file)!r} has the diagnosis {row['dx']!r}; there are "
                f"{list(LESIONS)}."
            )
        listed.append(Listed(row["image_id"], row["dx"], group=row["lesion_id"]))
    names = ("HAM10000_images_part_1", "HAM10000_images_part_2", "HAM10000_images", "images")
    places = {"": download.folders(*names)}
    return download.dataset(listed, places, LESIONS, official={"": OFFICIAL})


def read_isic2018(
    folder: str | Path, *, on_error: str = "raise", check: bool = True
) -> PublicDataset:
    """Read ISIC 2018 task 3 in its official split: https://challenge.isic-archive.com/data/#2018.

    The training part, 10,015 images, is HAM10000. The validation part (193) and the test part
    (1,512) are read if their tables are there. Their lesions are not published: each image is a
    group of its own.

    Parameters
    ----------
    folder : str or Path
        The unpacked downloads. Nothing is downloaded.
    on_error, check
        As in :func:`read_ham10000`.

    Returns
    -------
    PublicDataset
        Labels as in :func:`read_ham10000`; splits are train, val and test. Without the table of
        lesions there are no groups, and a warning says so.

    Raises
    ------
    InputError
        A table or folder is missing or not as expected, or images cannot be used.
    """
    download = Download(folder, ISIC2018, on_error=on_error, check=check)
    lesions = download.find("ISIC2018_Task3_Training_LesionGroupings.csv")
    groups: dict[str, str] = {}
    if lesions is not None:
        rows = download.rows(lesions, "image", "lesion_id").values()
        groups = {row["image"]: row["lesion_id"] for row in rows}
    listed, places = [], {}
    for split, part in PARTS.items():
        name = f"ISIC2018_Task3_{part}_GroundTruth.csv"
        file = download.file(name) if split == "train" else download.find(name)
        if file is None:
            continue
        places[split] = download.folders(f"ISIC2018_Task3_{part}_Input")
        rows_by_number = download.rows(file, "image", *(code.upper() for code in LESIONS))
        for number, row in rows_by_number.items():
            image = row["image"]
            marked = [code for code in LESIONS if row[code.upper()] in ("1", "1.0")]
            zeros = [code for code in LESIONS if row[code.upper()] in ("0", "0.0")]
            if len(marked) != 1 or len(zeros) != len(LESIONS) - 1:
                raise InputError(
                    f"Row {number} of {str(file)!r} is marked as {marked}; one class with 1.0 and "
                    "the others with 0.0 are needed."
                )
            if groups and split == "train" and image not in groups:
                raise InputError(f"{str(lesions)!r} has no lesion of the image {image!r}.")
            group = groups.get(image, image) if groups else None
            listed.append(Listed(image, marked[0], split, group, place=split))
    if lesions is None:
        download.told(
            "there is no ISIC2018_Task3_Training_LesionGroupings.csv, so images of one lesion "
            "cannot be kept together in a split."
        )
    official: dict[str, Mapping[Any, int]] = {
        "train": OFFICIAL,
        "val": {None: 193},
        "test": {None: 1512},
    }
    return download.dataset(listed, places, LESIONS, official={s: official[s] for s in places})
