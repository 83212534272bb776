"""What each published model is trained on, with which settings, and what its card says."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffmic import ModelCard
from diffmic.datasets import read_csv, read_medmnist
from diffmic.image_table import LabelledTable

TERMS = (
    "The software is Apache-2.0, and so are the ImageNet weights on which the training began "
    "(EfficientNet-Lite0). These weights carry the terms of the images that they were learnt from: "
)
USE = (
    "Research on methods, teaching, and as a start for training on images of your own "
    "(`warm_start=True`). Not for diagnosis, triage or any other decision about a person."
)
SPLIT = "70 % training, 10 % validation, 20 % test, stratified, fixed before the first training; "


@dataclass(frozen=True)
class OutOfFold:
    """Out-of-fold predictions: those of models for training images that they have not seen.

    They are soft labels, mixed with the labels, for the model that is published.

    Attributes
    ----------
    parameters : dict
        Of the models that predict, where they differ from those of the one that is published.
    share : float
        Share of the predictions in the soft labels.
    n_folds : int
        Number of these models; each learns all parts of the training images but one, and predicts
        that one.
    """

    parameters: dict[str, Any]
    share: float = 0.5
    n_folds: int = 4


@dataclass(frozen=True)
class ZooModel:
    """One published model.

    Attributes
    ----------
    folder : str
        Below the folder with all data sets: ``labels.csv`` with a column ``split``, and images; or
        the file of a set of MedMNIST.
    parameters : dict
        Of the estimator, where they differ from its defaults.
    card : ModelCard
        All but the metrics.
    group : str or None
        Column with the patient or lesion, by which intervals are resampled.
    medmnist : str or None
        Name of a set of MedMNIST.
    out_of_fold : OutOfFold or None
        Soft labels that it learns; None: it learns the labels as they are.
    """

    folder: str
    parameters: dict[str, Any]
    card: ModelCard
    group: str | None = None
    medmnist: str | None = None
    out_of_fold: OutOfFold | None = None

    def images(self, data: Path) -> LabelledTable:
        """Images, labels and splits, from the folder with all data sets."""
        if self.medmnist is not None:
            return read_medmnist(self.medmnist, data / self.folder)
        return read_csv(data / self.folder / "labels.csv", group=self.group)


ZOO = {
    "diffmic-v2-aptos": ZooModel(
        "aptos2019_dr",
        {
            "task": "ordinal",
            "image_size": 224,
            "max_epochs": 20,
            "augment": "rotations",
            "class_names": ["no retinopathy", "mild", "moderate", "severe", "proliferative"],
        },
        ModelCard(
            summary="Grades diabetic retinopathy, from 0 (none) to 4 (proliferative), in colour "
            "photographs of the fundus.",
            dataset="APTOS 2019 Blindness Detection",
            dataset_url="https://www.kaggle.com/c/aptos2019-blindness-detection",
            license="other",
            license_note=TERMS + "the rules of the APTOS 2019 competition on Kaggle; no open "
            "licence of the images is known. Use them for research and teaching.",
            split="3504 of the 3662 labelled images (duplicates and contradictions removed). "
            + SPLIT
            + "near-duplicates stay together. Patients are not published: two eyes of one may fall "
            "into different parts.",
            intended_use=USE,
            limits="One screening programme in India. Cameras and crops go with the grade in these "
            "images, a known shortcut; labels are of single clinicians and noisy; grade 0 is half "
            "of the images, grade 3 a twentieth. Photographs of 224 × 224 pixels, squeezed to a "
            "square: give it whole photographs, not crops.",
        ),
        out_of_fold=OutOfFold({"image_size": 192, "max_epochs": 10}),
    ),
    "diffmic-v2-ham10000": ZooModel(
        "ham10000",
        {
            "image_size": 128,
            "max_epochs": 6,
            "augment": "rotations",
            "class_names": [
                "actinic keratosis",
                "basal cell carcinoma",
                "benign keratosis",
                "dermatofibroma",
                "melanoma",
                "melanocytic nevus",
                "vascular lesion",
            ],
        },
        ModelCard(
            summary="Tells seven kinds of pigmented skin lesions in dermatoscopic photographs.",
            dataset="HAM10000",
            dataset_url="https://doi.org/10.1038/sdata.2018.161",
            license="cc-by-nc-4.0",
            license_note=TERMS + "CC BY-NC 4.0 (Tschandl, Rosendahl and Kittler, 2018): not for "
            "commerce.",
            split="10013 images. " + SPLIT + "all images of a lesion stay together.",
            intended_use=USE,
            limits="Dermatoscopic photographs, shrunk to 200 × 150 pixels: not the camera of a "
            "telephone. Mostly fair skin, from Austria and Australia. Two thirds are nevi. It "
            "knows nothing but these seven kinds and names one of them for any image.",
        ),
        group="lesion_id",
    ),
    "diffmic-v2-chestxray14": ZooModel(
        "chestxray14_64",
        {"image_size": 64, "max_epochs": 15},
        ModelCard(
            summary="Says which of 14 findings a frontal chest X-ray shows (multi-label).",
            dataset="ChestX-ray14, a subset of 1000 images",
            dataset_url="https://nihcc.app.box.com/v/ChestXray-NIHCC",
            license="other",
            license_note=TERMS + "the NIH Clinical Center publishes them without restriction and "
            "asks for attribution (Wang et al., CVPR 2017).",
            split="725 training, 94 validation, 181 test images; patients stay together.",
            intended_use=USE,
            limits="1000 images of 264 patients at 64 × 64 pixels: it shows how multi-label models "
            "work, and is weak. Labels were mined from reports. Hernia is absent from validation "
            "and test part, and left out of their means; Pneumothorax occurs once in the test "
            "part.",
        ),
        group="patient_id",
    ),
    "diffmic-v2-busi": ZooModel(
        "busi_ultrasound",
        {"image_size": 160, "max_epochs": 12},
        ModelCard(
            summary="Tells benign and malignant tumours and normal tissue in ultrasound of the "
            "breast. Stands in for the placental set of the paper, which was never published.",
            dataset="BUSI",
            dataset_url="https://doi.org/10.1016/j.dib.2019.104863",
            license="other",
            license_note=TERMS + "free for research with the citation (Al-Dhabyani et al., 2020); "
            "copies are found with differing licences.",
            split="778 images. " + SPLIT + "near-duplicates stay together. No patients are known.",
            intended_use=USE,
            limits="One hospital, few images: 156 in the test part, so a figure is good to a few "
            "points. Some images carry callipers and text, some pairs contradict each other.",
        ),
    ),
    "diffmic-v2-pneumonia": ZooModel(
        "chest_xray_pneumonia",
        {"image_size": 128, "max_epochs": 8},
        ModelCard(
            summary="Tells bacterial and viral pneumonia and normal lungs in chest X-rays of "
            "children.",
            dataset="Chest X-rays of Kermany et al., a subset of 2100 images",
            dataset_url="https://doi.org/10.17632/rscbjbr9sj.3",
            license="cc-by-4.0",
            license_note=TERMS + "CC BY 4.0 (Kermany, Zhang and Goldbaum, 2018).",
            split="2100 images, 700 of each class. " + SPLIT + "patients stay together.",
            intended_use=USE,
            limits="Children of one hospital. A third of the images is of each class, which no "
            "clinic sees: pass its shares as `prevalence`. Normal X-rays differ from the others in "
            "exposure and crop, too. 224 × 224 pixels, squeezed to a square.",
        ),
        group="patient_id",
    ),
    "diffmic-v2-pneumoniamnist": ZooModel(
        "medmnist",
        {"image_size": 64, "max_epochs": 8, "class_names": ["normal", "pneumonia"]},
        ModelCard(
            summary="Tells pneumonia from normal lungs in chest X-rays of children, at 28 × 28 "
            "pixels.",
            dataset="PneumoniaMNIST, of MedMNIST v2",
            dataset_url="https://medmnist.com",
            license="cc-by-4.0",
            license_note=TERMS + "CC BY 4.0 (Yang et al., 2023, from images of Kermany et al., "
            "2018).",
            split="4708 training, 524 validation, 624 test images: the counts of the official "
            "split, from a reconstruction of its file.",
            intended_use=USE,
            limits="28 × 28 pixels: for comparisons with the literature, no more. The test part is "
            "another mixture than training and validation part, where nearly all images are told "
            "right: probabilities are overconfident there. Calibrate it on images of your own.",
        ),
        medmnist="pneumoniamnist",
    ),
}
