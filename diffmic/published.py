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
        sha256="96dbd194e73bc49ea8a0b8be7c36c655915dab214a75891ad7128ce678a38421",
    ),
    "diffmic-v2-ham10000": Published(
        "Kind of skin lesion, of 7, in dermatoscopic photographs.",
        sha256="68dbcac4ab1e2346dbf5b27b0067dc3f0e1c2bc007d972074aa920a1802b2e8b",
    ),
    "diffmic-v2-chestxray14": Published(
        "Presence of 14 findings in chest X-rays (multi-label).",
        sha256="89ed659e30577af20c403db2c08487b7a352cd97494ef21dbdce740327d60c36",
    ),
    "diffmic-v2-pneumonia": Published(
        "Bacterial or viral pneumonia or normal, in chest X-rays of children.",
        sha256="98cdc9a8b475df482326a4a199fb5f1ce4d2a1eef1b9cc908fb41e004120bc6d",
    ),
    "diffmic-v2-pneumoniamnist": Published(
        "Pneumonia or normal, in chest X-rays of 28 pixels (MedMNIST).",
        sha256="d2b7bec633af428c332eef19aa32603958672b1a5e57f5940e1bb1a52d6a0d11",
    ),
    "diffmic-v2-busi": Published(
        "Benign, malignant or normal, in ultrasound of the breast.",
        sha256="40bb1e11c3bcc7980c45e4bd489dd23c85371ccda3c6fab79d54dfd024599b05",
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
