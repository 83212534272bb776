"""The snippets of "Bring your data": each is run, with its client or with a stand-in for it.

The images show which class they are of, so that labels which got mixed up are seen.
"""

import re
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from PIL import Image
from stand_ins import STAND_INS
from tiny import small, stripes

from diffmic import DiffMICClassifier, DiffMICWarning

PAGE = Path(__file__).parents[1] / "docs" / "data.md"
CLASSES = ["across", "down", "plain"]


def snippets():
    """Snippets below each heading of the page, without the first, which only imports."""
    parts = re.split(r"^#+ (.*)$", PAGE.read_text(), flags=re.MULTILINE)
    found = {
        heading: re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
        for heading, text in zip(parts[1::2], parts[2::2], strict=True)
    }
    return {heading: code for heading, code in list(found.items())[1:] if code}


def installed(client):
    """Whether a client is installed; a folder of the same name is none."""
    spec = find_spec(client)
    # MedMNIST itself reads only its own files, which are large.
    return spec is not None and spec.origin is not None and client != "medmnist"


def stand_in(monkeypatch, code):
    """Put stand-ins in the place of clients that the code imports and that are not installed."""
    for client in set(re.findall(r"^(?:from|import) (\w+)", code, re.MULTILINE)):
        if client in STAND_INS and not installed(client):
            for name, module in STAND_INS[client]().items():
                monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images and tables in every form that the snippets read."""
    folder = tmp_path_factory.mktemp("data")
    X, y = stripes(36)
    for name in ("images", "deep", "chexpert", "medmnist", "scans"):
        (folder / name).mkdir()
    rows = []
    for i, (image, label) in enumerate(zip(X, y, strict=True)):
        name = CLASSES[label]
        (folder / "folders" / name).mkdir(parents=True, exist_ok=True)
        for path in (f"images/{i}.png", f"folders/{name}/{i}.png", f"chexpert/{i}.jpg"):
            Image.fromarray(image).save(folder / path)
        Image.fromarray(image.astype(np.uint16) * 16).save(folder / f"deep/{i}.png")
        rows.append((f"images/{i}.png", str(i), name, f"P{i // 2}"))
    frame = pandas.DataFrame(rows, columns=["path", "id", "finding", "patient"])
    frame.to_csv(folder / "frame.csv", index=False)
    frame.rename(columns={"finding": "diagnosis"}).to_csv(folder / "labels.csv", index=False)
    _write_chexpert(folder, y)
    _write_volumes(folder, X)
    one, two = np.flatnonzero(y == 0), np.flatnonzero(y == 1)
    arrays = {}
    for split, numbers in (("train", [*one, *two]), ("val", [0, 1]), ("test", [0, 1])):
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = X[numbers], y[numbers][:, None]
    np.savez(folder / "medmnist" / "pneumoniamnist.npz", **arrays)
    return folder


def _write_volumes(folder, X):
    """Volumes of three slices in Hounsfield units, the axes as NIfTI has them."""
    (folder / "volumes").mkdir()
    for i, image in enumerate(X):
        values = np.rot90(image, -1) * (1400 / 255) - 1000
        volume = np.stack([values * 0, values, values * 0], axis=2).astype(np.int16)
        if installed("nibabel"):
            import nibabel

            nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), folder / f"volumes/{i}.nii.gz")
        else:
            np.save(folder / f"volumes/{i}.npy", volume)


def _write_chexpert(folder, y):
    """Tables as CheXpert's: 1, 0, -1, and nothing where a finding is not mentioned."""
    names = [
        *("No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity"),
        *("Lung Lesion", "Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax"),
        *("Pleural Effusion", "Pleural Other", "Fracture", "Support Devices"),
    ]
    values = (np.arange(len(y))[:, None] + np.arange(len(names))) % 3 == 0
    values = values.astype(float)
    values[y[:, None] == np.arange(len(names)) % 3] = np.nan
    values[:4, 5] = -1
    frame = pandas.DataFrame(values, columns=names)
    prefix = "CheXpert-v1.0-small/train/"
    frame.insert(0, "Path", [f"{prefix}patient{i:05}/study1/view1.jpg" for i in range(len(y))])
    frame.insert(1, "Sex", "Male")
    frame.insert(2, "Age", 60)
    frame.insert(3, "Frontal/Lateral", "Frontal")
    frame.insert(4, "AP/PA", "PA")
    frame.to_csv(folder / "chexpert" / "train.csv", index=False)
    for i in range(len(y)):
        path = folder / "chexpert" / "train" / f"patient{i:05}" / "study1"
        path.mkdir(parents=True)
        Image.open(folder / f"chexpert/{i}.jpg").save(path / "view1.jpg")
    frame["Path"] = [f"images/{i}.png" for i in range(len(y))]
    frame.to_csv(folder / "chexpert.csv", index=False)


@pytest.fixture
def names(folder):
    """Names that the snippets take for granted."""
    X, y = stripes(36)
    return {
        "DiffMICClassifier": lambda **own: DiffMICClassifier(**small(max_epochs=1, **own)),
        "X": X,
        "y": y,
        "images": torch.from_numpy(X)[:, None],
        "labels": torch.from_numpy(y),
        "paths": [f"images/{i}.png" for i in range(len(y))],
        "deep_paths": [f"deep/{i}.png" for i in range(len(y))],
        "hounsfield": (X * (1400 / 255) - 1000).astype(np.int16),
        "patients": [f"P{i // 2}" for i in range(len(y))],
        "volumes": [f"volumes/{i}.nii.gz" for i in range(len(y))],
    }


def shown(image):
    """Class that an image (C, H, W) shows: stripes across, stripes down, or none."""
    pixels = image.float().mean(dim=0)
    across, down = pixels.mean(dim=1).std(), pixels.mean(dim=0).std()
    if max(across, down) < 2 * min(across, down):
        return 2
    return 0 if across > down else 1


def learnt(fits):
    """Pairs of the class that an image shows and the labels that it was learnt with."""
    _, training, validation, _ = fits[-1]
    parts = [part for part in (training, validation) if part is not None]
    pairs = []
    for part in parts:
        prepared = part.prepared(32)
        pairs += [(shown(prepared[i]["image"]), part.targets[i]) for i in range(len(part))]
    return pairs


def run(heading, folder, names, monkeypatch):
    """Run the snippets below a heading, one after another."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HF_HOME", str(folder / "cache"))
    for code in snippets()[heading]:
        stand_in(monkeypatch, code)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DiffMICWarning)
            exec(code, names)
        yield


SPECIAL = {"torchxrayvision", "MedMNIST", "DICOM", "Labels that are not known"}
SPECIAL |= {"Patients in cross-validation"}


@pytest.mark.parametrize("heading", sorted(set(snippets()) - SPECIAL))
def test_what_the_images_show_is_learnt(heading, folder, names, monkeypatch, fits):
    for _ in run(heading, folder, names, monkeypatch):
        pairs = learnt(fits)
        assert len(pairs) == 36
        assert [shows for shows, _ in pairs] == [int(row.argmax()) for _, row in pairs]
        if "proba" in names:
            assert names["proba"].shape[1] == 3
        if heading in ("torchvision", "Hugging Face datasets"):
            assert list(names["clf"].class_names_) == CLASSES
        fits.clear()


def test_two_classes_of_medmnist_are_learnt(folder, names, monkeypatch, fits):
    list(run("MedMNIST", folder, names, monkeypatch))
    pairs = learnt(fits)
    assert len(pairs) == 24
    assert [shows for shows, _ in pairs] == [int(row.argmax()) for _, row in pairs]
    assert list(names["clf"].class_names_) == ["normal", "pneumonia"]


def test_labels_of_torchxrayvision_that_are_not_known_stay_unknown(
    folder, names, monkeypatch, fits
):
    list(run("torchxrayvision", folder, names, monkeypatch))
    assert "Edema" in list(names["clf"].class_names_)
    _, training, _, _ = fits[-1]
    pixels = training.prepared(32)[0]["image"].float()
    assert 0 <= pixels.min() < 0.3 < 0.7 < pixels.max() <= 1


def test_unknown_labels_of_chexpert_are_not_learnt(folder, names, monkeypatch):
    list(run("Labels that are not known", folder, names, monkeypatch))
    assert list(names["clf"].class_names_) == ["Edema", "Consolidation"]
    assert sum(names["clf"].label_counts_["training"]["unknown"]) > 0


def test_cross_validation_hands_the_groups_on(folder, names, monkeypatch, fits):
    list(run("Patients in cross-validation", folder, names, monkeypatch))
    assert names["scores"].shape == (3,)
    assert np.isfinite(names["scores"]).all()
    assert len(fits) == 3


def test_dicom_is_read(folder, names, monkeypatch, fits):
    pytest.importorskip("pydicom")
    _write_dicom(folder)
    list(run("DICOM", folder, names, monkeypatch))
    pairs = learnt(fits)
    assert len(pairs) == 36
    assert [shows for shows, _ in pairs] == [int(row.argmax()) for _, row in pairs]


def _write_dicom(folder):
    import pydicom
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    X, y = stripes(36)
    for i, (image, label) in enumerate(zip(X, y, strict=True)):
        file = Dataset()
        file.file_meta = FileMetaDataset()
        file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        file.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
        file.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        file.SOPClassUID = SecondaryCaptureImageStorage
        file.SOPInstanceUID = file.file_meta.MediaStorageSOPInstanceUID
        file.Modality, file.PhotometricInterpretation = "OT", "MONOCHROME2"
        file.SamplesPerPixel, file.PixelRepresentation = 1, 0
        file.BitsAllocated, file.BitsStored, file.HighBit = 16, 12, 11
        file.Rows, file.Columns = image.shape
        file.PixelData = (image.astype(np.uint16) * 16).tobytes()
        path = folder / "scans" / CLASSES[label]
        path.mkdir(exist_ok=True)
        pydicom.dcmwrite(path / f"{i}.dcm", file, enforce_file_format=True)
