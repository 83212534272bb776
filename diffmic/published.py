"""Models that have a short name, and where their weights are; without torch."""

from dataclasses import dataclass
from pathlib import Path

BUNDLED = Path(__file__).parent / "hub" / "bundled"


@dataclass(frozen=True)
class Published:
    """Pretrained model with a short name, and the location of its weights.

    Attributes
    ----------
    summary : str
        Sentence that says what the model classifies.
    repository : str or None
        Repository on the Hugging Face Hub; None: the weights are not published.
    revision : str or None
        Commit to load.
    sha256 : str or None
        SHA-256 of the weights; None: unknown.
    """

    summary: str
    repository: str | None = None
    revision: str | None = None
    sha256: str | None = None


REGISTRY = {
    "diffmic-v2-aptos": Published(
        "Grade of diabetic retinopathy, 0 to 4, in fundus photographs.",
        sha256="1a2bd9a8d9c77db2e9a8ad6169ffaf32ab57302d6d21e944fd1a746834ad04cb",
    ),
    "diffmic-v2-ham10000": Published(
        "Kind of skin lesion, of 7, in dermatoscopic photographs.",
        sha256="68dbcac4ab1e2346dbf5b27b0067dc3f0e1c2bc007d972074aa920a1802b2e8b",
    ),
    "diffmic-v2-chestxray14": Published(
        "Presence of 14 findings in chest X-rays (multi-label).",
        sha256="785093d48e9d2dd90ec82d7ff47b1509af91c593ae4912184e700bcab1558417",
    ),
    "diffmic-v2-pneumonia": Published(
        "Bacterial or viral pneumonia or normal, in chest X-rays of children.",
        sha256="f6d4d663b4ae104e9b027ec8037cd756e58dd81c763074802d2f09b16a454c61",
    ),
    "diffmic-v2-pneumoniamnist": Published(
        "Pneumonia or normal, in chest X-rays of 28 pixels (MedMNIST).",
        sha256="fa91e49fcc5a764e26c716b10ef66ac938297cb0957ce9b09320e46b8125e6c2",
    ),
    "diffmic-v2-busi": Published(
        "Benign, malignant or normal, in ultrasound of the breast.",
        sha256="fac9bc217bf9ce8dbe6d2cd3dcf03821f43cdfed20538450d6fc8a0e573f0baf",
    ),
}


def bundled(name: str) -> Path | None:
    """Folder of a model that comes with the package; None if it does not."""
    folder = BUNDLED / name
    return folder if folder.is_dir() else None


def list_pretrained() -> dict[str, str]:
    """Short names of the pretrained models that ``DiffMICClassifier.from_pretrained`` can load.

    Returns
    -------
    dict of str to str
        For each name, what the model classifies and where its weights are.
    """
    places = {name: _place(name) for name in REGISTRY}
    return {name: f"{REGISTRY[name].summary} {place}" for name, place in places.items() if place}


def _place(name: str) -> str | None:
    """Location of the weights, as a sentence; None if they cannot be loaded."""
    if bundled(name) is not None:
        return "Comes with diffmic."
    repository = REGISTRY[name].repository
    return None if repository is None else f"On the Hugging Face Hub: {repository}."
