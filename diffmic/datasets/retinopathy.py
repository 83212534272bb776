"""Grades of diabetic retinopathy in fundus photographs: APTOS 2019 and IDRiD."""

from pathlib import Path

from ..errors import InputError
from .download import Download, Listed
from .public import PublicDataset, Source

GRADES = ["no retinopathy", "mild", "moderate", "severe", "proliferative"]
APTOS = Source(
    title="APTOS 2019",
    url="https://www.kaggle.com/c/aptos2019-blindness-detection/data",
    licence="the rules of the Kaggle competition; no open licence is known",
    citation="Asia Pacific Tele-Ophthalmology Society, APTOS 2019 Blindness Detection, Kaggle 2019",
    layout="train.csv and the folder train_images",
)
IDRID = Source(
    title="IDRiD",
    url="https://ieee-dataport.org/open-access/indian-diabetic-retinopathy-image-dataset-idrid",
    licence="CC BY 4.0",
    citation="Porwal et al., Data 3(3), 25 (2018), doi 10.3390/data3030025",
    layout="the folders '1. Original Images' (with 'a. Training Set' and 'b. Testing Set') and "
    "'2. Groundtruths' of 'B. Disease Grading'",
)
OFFICIAL = {0: 1805, 1: 370, 2: 999, 3: 193, 4: 295}  # of APTOS 2019
PARTS_OF_IDRID = {"train": ("a", "Training"), "test": ("b", "Testing")}
OFFICIAL_OF_IDRID = {
    "train": {0: 134, 1: 20, 2: 136, 3: 74, 4: 49},
    "test": {0: 34, 1: 5, 2: 32, 3: 19, 4: 13},
}


def read_aptos2019(
    folder: str | Path, *, on_error: str = "raise", check: bool = True
) -> PublicDataset:
    """Read APTOS 2019, the 3,662 labelled photographs: https://www.kaggle.com/c/aptos2019-blindness-detection.

    Images of the competition's test part have no published labels. There is no official split, and
    patients are not published: two eyes of one may fall into different parts of a split. About a
    hundred photographs are copies of others; :func:`inspect` finds them, and
    ``data.split(groups=inspect(data).groups)`` keeps them together.

    Parameters
    ----------
    folder : str or Path
        The unpacked download, with ``train.csv`` and ``train_images``. Nothing is downloaded.
    on_error : {"raise", "skip"}
        What is done about missing and damaged images. Skip: they are left out, with a warning.
    check : bool
        Whether image files are opened to see whether they are whole, and compared with each other.

    Returns
    -------
    PublicDataset
        Labels are the grades 0 to 4.

    Raises
    ------
    InputError
        A table or folder is missing or not as expected, or images cannot be used.
    """
    download = Download(folder, APTOS, on_error=on_error, check=check)
    listed = _graded(download, "train.csv", "id_code", "diagnosis", "diagnosis")
    places = {"": download.folders("train_images")}
    return download.dataset(listed, places, dict(enumerate(GRADES)), official={"": OFFICIAL})


def read_idrid(folder: str | Path, *, on_error: str = "raise", check: bool = True) -> PublicDataset:
    """Read IDRiD's disease grading, 516 photographs in an official split: https://ieee-dataport.org.

    Parameters, checks and errors are those of :func:`read_aptos2019`. Patients are not published.

    Parameters
    ----------
    folder : str or Path
        The unpacked ``B. Disease Grading``, or a folder that holds it. Nothing is downloaded.
    on_error : {"raise", "skip"}
        What is done about missing and damaged images.
    check : bool
        Whether image files are opened.

    Returns
    -------
    PublicDataset
        Labels are the grades 0 to 4; splits are train (413 images) and test (103).
    """
    download = Download(folder, IDRID, on_error=on_error, check=check)
    listed, places = [], {}
    for split, (letter, part) in PARTS_OF_IDRID.items():
        table = f"{letter}. IDRiD_Disease Grading_{part} Labels.csv"
        listed += _graded(download, table, "Image name", "Retinopathy grade", "grade", split)
        places[split] = download.folders(f"{letter}. {part} Set")
    names = dict(enumerate(GRADES))
    return download.dataset(listed, places, names, official=OFFICIAL_OF_IDRID)


def _graded(
    download: Download, table: str, name: str, grade: str, what: str, split: str | None = None
) -> list[Listed]:
    """Images of a table, by the columns of their name and grade, which messages call ``what``."""
    file = download.file(table)
    listed = []
    for number, row in download.rows(file, name, grade).items():
        if row[grade] not in ("0", "1", "2", "3", "4"):
            raise InputError(
                f"Row {number} of {str(file)!r} has the {what} {row[grade]!r}; the grades are 0 to "
                "4."
            )
        listed.append(Listed(row[name], int(row[grade]), split, place=split or ""))
    return listed
