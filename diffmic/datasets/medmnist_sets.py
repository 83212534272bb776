"""The twelve 2-D sets of MedMNIST v2: numbers of images, channels, kinds of tasks, classes.

Source: the package medmnist 3.0.2 (Yang et al., 2023).
"""

from dataclasses import dataclass

SIZES = (28, 64, 128, 224)  # pixels of a side
_RECORD = "https://zenodo.org/records/10519652/files"


@dataclass(frozen=True)
class MedMNISTSet:
    """One of the sets."""

    package_class: str  # name of its class in the package ``medmnist``
    counts: tuple[int, int, int]  # official numbers of images in train, val and test
    channels: int  # 1 or 3
    class_names: tuple[str, ...]  # in the order of their numbers, or of the indicator's columns
    kind: str = "multiclass"  # the estimator's ``task``: multiclass, multilabel or ordinal
    licence: str = "CC BY 4.0"

    @property
    def multilabel(self) -> bool:
        """Whether images have several labels."""
        return self.kind == "multilabel"

    def file(self, size: int) -> str:
        """Name of the file of a size."""
        return f"{self.package_class.lower()}{'' if size == 28 else f'_{size}'}.npz"

    def url(self, size: int) -> str:
        """Where the file of a size is downloaded."""
        return f"{_RECORD}/{self.file(size)}"


# fmt: off
_ORGANS = (
    "bladder", "femur-left", "femur-right", "heart", "kidney-left", "kidney-right", "liver",
    "lung-left", "lung-right", "pancreas", "spleen",
)
MEDMNIST = {
    "pathmnist": MedMNISTSet("PathMNIST", (89996, 10004, 7180), 3, (
        "adipose", "background", "debris", "lymphocytes", "mucus", "smooth muscle",
        "normal colon mucosa", "cancer-associated stroma", "colorectal adenocarcinoma epithelium",
    )),
    "chestmnist": MedMNISTSet("ChestMNIST", (78468, 11219, 22433), 1, (
        "atelectasis", "cardiomegaly", "effusion", "infiltration", "mass", "nodule", "pneumonia",
        "pneumothorax", "consolidation", "edema", "emphysema", "fibrosis", "pleural", "hernia",
    ), kind="multilabel"),
    "dermamnist": MedMNISTSet("DermaMNIST", (7007, 1003, 2005), 3, (
        "actinic keratoses and intraepithelial carcinoma", "basal cell carcinoma",
        "benign keratosis-like lesions", "dermatofibroma", "melanoma", "melanocytic nevi",
        "vascular lesions",
    ), licence="CC BY-NC 4.0"),
    "octmnist": MedMNISTSet("OCTMNIST", (97477, 10832, 1000), 1, (
        "choroidal neovascularization", "diabetic macular edema", "drusen", "normal",
    )),
    "pneumoniamnist": MedMNISTSet("PneumoniaMNIST", (4708, 524, 624), 1, ("normal", "pneumonia")),
    "retinamnist": MedMNISTSet("RetinaMNIST", (1080, 120, 400), 3, (*"01234",), kind="ordinal"),
    "breastmnist": MedMNISTSet("BreastMNIST", (546, 78, 156), 1, ("malignant", "normal, benign")),
    "bloodmnist": MedMNISTSet("BloodMNIST", (11959, 1712, 3421), 3, (
        "basophil", "eosinophil", "erythroblast",
        "immature granulocytes (myelocytes, metamyelocytes and promyelocytes)", "lymphocyte",
        "monocyte", "neutrophil", "platelet",
    )),
    "tissuemnist": MedMNISTSet("TissueMNIST", (165466, 23640, 47280), 1, (
        "Collecting Duct, Connecting Tubule", "Distal Convoluted Tubule",
        "Glomerular endothelial cells", "Interstitial endothelial cells", "Leukocytes",
        "Podocytes", "Proximal Tubule Segments", "Thick Ascending Limb",
    )),
    "organamnist": MedMNISTSet("OrganAMNIST", (34561, 6491, 17778), 1, _ORGANS),
    "organcmnist": MedMNISTSet("OrganCMNIST", (12975, 2392, 8216), 1, _ORGANS),
    "organsmnist": MedMNISTSet("OrganSMNIST", (13932, 2452, 8827), 1, _ORGANS),
}
# fmt: on
