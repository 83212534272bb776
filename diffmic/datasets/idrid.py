"""IDRiD, disease grading: grades of diabetic retinopathy in fundus photographs."""

from pathlib import Path

from ..errors import InputError
from .aptos import GRADES
from .download import Download, Listed
from .public import PublicDataset, Source

SOURCE = Source(
    title="IDRiD",
    url="https://ieee-dataport.org/open-access/indian-diabetic-retinopathy-image-dataset-idrid",
    licence="CC BY 4.0",
    citation="Porwal et al., Data 3(3), 25 (2018), doi 10.3390/data3030025",
    layout="the folders '1. Original Images' (with 'a. Training Set' and 'b. Testing Set') and "
    "'2. Groundtruths' of 'B. Disease Grading'",
)
PARTS = {"train": ("a", "Training"), "test": ("b", "Testing")}
OFFICIAL = {
    "train": {0: 134, 1: 20, 2: 136, 3: 74, 4: 49},
    "test": {0: 34, 1: 5, 2: 32, 3: 19, 4: 13},
}


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
    download = Download(folder, SOURCE, on_error=on_error, check=check)
    listed, places = [], {}
    for split, (letter, part) in PARTS.items():
        file = download.file(f"{letter}. IDRiD_Disease Grading_{part} Labels.csv")
        assert file is not None
        places[split] = download.folders(f"{letter}. {part} Set")
        rows = download.rows(file, "Image name", "Retinopathy grade")
        for number, row in rows.items():
            grade = row["Retinopathy grade"]
            if grade not in ("0", "1", "2", "3", "4"):
                raise InputError(
                    f"Row {number} of {str(file)!r} has the grade {grade!r}; the grades are 0 to 4."
                )
            listed.append(Listed(row["Image name"], int(grade), split, place=split))
    return download.dataset(listed, places, dict(enumerate(GRADES)), official=OFFICIAL)
