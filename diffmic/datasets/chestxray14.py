"""ChestX-ray14: fourteen findings in frontal chest X-rays, multi-label, in the official split."""

from pathlib import Path

from ..conventions import some
from ..errors import InputError
from .download import Download, Listed
from .public import PublicDataset, Source

SOURCE = Source(
    title="ChestX-ray14",
    url="https://nihcc.app.box.com/v/ChestXray-NIHCC",
    licence="free for any use, with attribution and a link to the download (NIH Clinical Center)",
    citation="Wang et al., ChestX-ray8, CVPR 2017",
    layout="Data_Entry_2017.csv (or Data_Entry_2017_v2020.csv), train_val_list.txt, test_list.txt "
    "and the folder images, or images_001 and so on",
)
FINDINGS = {
    "Atelectasis": 11559, "Cardiomegaly": 2776, "Effusion": 13317, "Infiltration": 19894,
    "Mass": 5782, "Nodule": 6331, "Pneumonia": 1431, "Pneumothorax": 5302, "Consolidation": 4667,
    "Edema": 2303, "Emphysema": 2516, "Fibrosis": 1686, "Pleural_Thickening": 3385, "Hernia": 227,
}  # fmt: skip
NOTHING = "No Finding"
LISTS = {"train": ("train_val_list.txt", 86524), "test": ("test_list.txt", 25596)}
FOLDERS = ("images", *(f"images_{number:03d}" for number in range(1, 13)))


def read_chestxray14(
    folder: str | Path, *, no_finding: bool = False, on_error: str = "raise", check: bool = True
) -> PublicDataset:
    """Read ChestX-ray14, 112,120 X-rays of 30,805 patients: https://nihcc.app.box.com/v/ChestXray-NIHCC.

    The official lists of train and test have no patient in common, which is checked; ``fit``
    or ``data.split()`` take a validation part from the training part by patient. Of the table of
    images the findings and the number of the patient are read, and nothing else.

    Parameters
    ----------
    folder : str or Path
        The unpacked download. Nothing is downloaded.
    no_finding : bool
        Whether "No Finding" is a label of its own, the fifteenth, as in the papers of DiffMIC.
    on_error : {"raise", "skip"}
        What is done about images that are missing, damaged, or on no list. Skip: they are left out,
        with a warning.
    check : bool
        Whether image files are opened to see whether they are whole, and compared with each other.

    Returns
    -------
    PublicDataset
        Labels are an indicator matrix; groups are patients; splits are train and test.

    Raises
    ------
    InputError
        A table, list or folder is missing or not as expected; the lists are swapped or share images
        or patients; or images cannot be used.
    """
    download = Download(folder, SOURCE, on_error=on_error, check=check)
    file = download.file("Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv")
    splits = _lists(download)
    columns = [*FINDINGS, NOTHING] if no_finding else [*FINDINGS]
    listed, unlisted = [], []
    for number, row in download.rows(file, "Image Index", "Finding Labels", "Patient ID").items():
        found = [name.strip() for name in row["Finding Labels"].split("|")]
        unknown = [name for name in found if name not in (*FINDINGS, NOTHING)]
        if unknown or (NOTHING in found and len(found) > 1):
            raise InputError(
                f"Row {number} of {str(file)!r} has the findings {row['Finding Labels']!r}; there "
                f"are {[*FINDINGS]}, joined by |, or {NOTHING!r} alone."
            )
        name = row["Image Index"]
        if name not in splits:
            unlisted.append(name)
            continue
        label = tuple(int(column in found) for column in columns)
        listed.append(Listed(name, label, splits[name], row["Patient ID"]))
    if not listed:
        raise InputError(f"No image of {str(file)!r} is on the lists of train and test.")
    download.unusable(unlisted, "are neither on the list of train nor on that of test", "")
    without = len(splits) - len(listed)
    if without:
        download.told(f"{without} image(s) of the lists are not in {file.name}.")
    train, test = ({row.group for row in listed if row.split == split} for split in LISTS)
    if train & test:
        raise InputError(
            f"{len(train & test)} patient(s) have images on the lists of train and of test: "
            f"{some(sorted(map(str, train & test)))}. The official lists have no patient in "
            "common; download them again."
        )
    official = FINDINGS | ({NOTHING: 60361} if no_finding else {})
    return download.dataset(
        listed,
        {"": download.folders(*FOLDERS)},
        dict(enumerate(columns)),
        official={"": official, **{split: {None: size} for split, (_, size) in LISTS.items()}},
    )


def _lists(download: Download) -> dict[str, str]:
    """Split of each image on the official lists."""
    names: dict[str, list[str]] = {}
    for split, (name, _) in LISTS.items():
        file = download.file(name)
        try:
            names[split] = file.read_text(encoding="utf-8-sig").split()
        except UnicodeDecodeError as reason:
            raise InputError(f"{str(file)!r} is no list of images: {reason}.") from reason
        if not names[split]:
            raise InputError(f"{str(file)!r} is empty; it lists the images of a split.")
    if len(names["test"]) > len(names["train"]):
        raise InputError(
            f"test_list.txt has {len(names['test']):,} images and train_val_list.txt "
            f"{len(names['train']):,}; officially they have 25,596 and 86,524. They seem to be "
            "swapped."
        )
    both = sorted(set(names["train"]) & set(names["test"]))
    if both:
        raise InputError(
            f"{len(both)} image(s) are on the lists of train and of test: {some(both)}. Download "
            "the lists again."
        )
    return {name: split for split, found in names.items() for name in found}
