"""BUSI: normal tissue, benign and malignant tumours in ultrasound of the breast."""

import os
from pathlib import Path

from ..conventions import some
from ..errors import InputError
from .download import Download, Listed
from .image_files import image_suffixes, is_hidden
from .public import PublicDataset, Source

SOURCE = Source(
    title="BUSI",
    url="https://scholar.cu.edu.eg/?q=afahmy/pages/dataset",
    licence="free for research with the citation; copies are found with differing licences",
    citation="Al-Dhabyani et al., Data in Brief 28, 104863 (2020), doi 10.1016/j.dib.2019.104863",
    layout="the folder Dataset_BUSI_with_GT with the folders benign, malignant and normal",
)
OFFICIAL = {"benign": 437, "malignant": 210, "normal": 133}


def read_busi(folder: str | Path, *, on_error: str = "raise", check: bool = True) -> PublicDataset:
    """Read BUSI, 780 ultrasound images of the breast: https://scholar.cu.edu.eg/?q=afahmy/pages/dataset.

    Masks (``…_mask.png``) are left out. There is no official split, and patients are not
    published. Many images are near copies of others:
    ``data.split(groups=inspect(data, distance=40).groups)`` keeps them together.

    Parameters
    ----------
    folder : str or Path
        The unpacked ``Dataset_BUSI_with_GT``, or a folder that holds it. Nothing is downloaded.
    on_error : {"raise", "skip"}
        What is done about damaged images, and about masks without an image. Skip: they are left
        out, with a warning.
    check : bool
        Whether image files are opened to see whether they are whole, and compared with each other.

    Returns
    -------
    PublicDataset
        Labels are benign, malignant and normal.

    Raises
    ------
    InputError
        A folder is missing, holds no images or images of another class, or images cannot be used.
    """
    download = Download(folder, SOURCE, on_error=on_error, check=check)
    listed, places, orphans, unmasked, n_masks = [], {}, [], [], 0
    for label in OFFICIAL:
        found = download.folders(label)
        if len(found) > 1:
            raise InputError(
                f"{str(found[0])!r} and {str(found[1])!r} have one name. Give the folder of one "
                "copy of the data set."
            )
        places[label] = found
        images, masks = _names(found[0])
        if not images:
            raise download.missing(f"image in the folder {label!r}")
        strange = [n for n in images if any(n.startswith(c) for c in OFFICIAL if c != label)]
        if strange:
            raise InputError(
                f"{len(strange)} image(s) in {str(found[0])!r} have the name of another class: "
                f"{some(strange)}. Put them into the folder of their class."
            )
        listed += [Listed(name, label, place=label) for name in images]
        n_masks += len(masks)
        orphans += sorted(masks - images.keys())
        unmasked += sorted(images.keys() - masks) if label != "normal" else []
    download.unusable(orphans, "have a mask and no image", "Unpack the archive again.")
    if n_masks and unmasked:
        download.told(f"{len(unmasked)} image(s) of tumours have no mask ({some(unmasked)}).")
    return download.dataset(
        listed,
        places,
        {name: name for name in OFFICIAL},
        official={"": OFFICIAL},
        ignored="*_mask*",
    )


def _names(folder: Path) -> tuple[dict[str, None], set[str]]:
    """Names of the images in a folder, in order, and names of images that have a mask."""
    images: dict[str, None] = {}
    masks = set()
    for name in sorted(os.listdir(folder)):
        stem, suffix = os.path.splitext(name)
        if suffix.lower() not in image_suffixes() or is_hidden(name):
            continue
        image, mask, _ = stem.partition("_mask")
        if mask:
            masks.add(image)
        else:
            images[stem] = None
    return images, masks
