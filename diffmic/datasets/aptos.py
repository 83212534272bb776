"""APTOS 2019 Blindness Detection: grades of diabetic retinopathy in fundus photographs."""

from pathlib import Path

from ..errors import InputError
from .download import Download, Listed
from .public import PublicDataset, Source

SOURCE = Source(
    title="APTOS 2019",
    url="https://www.kaggle.com/c/aptos2019-blindness-detection/data",
    licence="the rules of the Kaggle competition; no open licence is known",
    citation="Asia Pacific Tele-Ophthalmology Society, APTOS 2019 Blindness Detection, Kaggle 2019",
    layout="train.csv and the folder train_images",
)
GRADES = ["no retinopathy", "mild", "moderate", "severe", "proliferative"]
OFFICIAL = {0: 1805, 1: 370, 2: 999, 3: 193, 4: 295}


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
    download = Download(folder, SOURCE, on_error=on_error, check=check)
    file = download.file("train.csv")
    assert file is not None
    listed = []
    for number, row in download.rows(file, "id_code", "diagnosis").items():
        if row["diagnosis"] not in ("0", "1", "2", "3", "4"):
            raise InputError(
                f"Row {number} of {str(file)!r} has the diagnosis {row['diagnosis']!r}; the grades "
                "are 0 to 4."
            )
        listed.append(Listed(row["id_code"], int(row["diagnosis"])))
    places = {"": download.folders("train_images")}
    return download.dataset(listed, places, dict(enumerate(GRADES)), official={"": OFFICIAL})
