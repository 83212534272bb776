"""Soft labels of training images: their labels, mixed with out-of-fold predictions."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from diffmic import DiffMICClassifier
from diffmic.image_table import LabelledTable

from .recipes import OutOfFold, ZooModel

Floats = NDArray[np.float64]


def predict_fold(
    recipe: ZooModel, how: OutOfFold, images: LabelledTable, fold: int
) -> dict[str, list[float]]:
    """Probabilities for the training images of one fold, of a model that learns the others.

    They are by the names of the files. The model is calibrated on the validation part.
    """
    training, validation = images.part("train"), images.part("val")
    labels = np.asarray(training.labels)
    folds = StratifiedKFold(how.n_folds, shuffle=True, random_state=0).split(labels, labels)
    learnt, left = list(folds)[fold]
    clf = DiffMICClassifier(random_state=fold, verbose=0, **recipe.parameters | how.parameters)
    clf.fit(
        [training.images[i] for i in learnt],
        labels[learnt],
        validation_data=(validation.images, validation.labels),
    )
    proba = clf.predict_proba([training.images[i] for i in left])
    names = [Path(training.images[i]).name for i in left]
    return dict(zip(names, proba.tolist(), strict=True))


def write_predictions(file: Path, how: OutOfFold, found: dict[str, list[float]], fold: int) -> None:
    """Put the predictions of a fold into the file, beside those of other folds of the same kind."""
    kept = _rows(file) if file.exists() and _told(file) == _made_by(how) else []
    rows = [row for row in kept if row[1] != str(fold)]
    rows += [[name, str(fold), *map(repr, proba)] for name, proba in found.items()]
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        header = [f"p{number}" for number in range(len(rows[0]) - 2)]
        writer.writerows([["file", "fold", *header], *sorted(rows, key=lambda row: row[1])])
    _beside(file).write_text(json.dumps(_made_by(how), indent=2) + "\n")


def soft_labels(how: OutOfFold, training: LabelledTable, file: Path) -> Floats:
    """Labels of the training images mixed with the predictions in the file, (n, C).

    Raises
    ------
    ValueError
        There are no predictions, or they are of other models or of other images.
    """
    if not file.is_file():
        raise ValueError(f"{file} is missing")
    if _told(file) != _made_by(how):
        raise ValueError(f"{file} was made with {_told(file)}, not with {_made_by(how)}")
    rows = _rows(file)
    found = {name: [float(p) for p in proba] for name, _, *proba in rows}
    names = [Path(image).name for image in training.images]
    if sorted(names) != sorted(row[0] for row in rows):
        raise ValueError(f"{file} has {len(rows)} predictions, not one for each training image")
    predicted = np.array([found[name] for name in names])
    classes, numbers = np.unique(np.asarray(training.labels), return_inverse=True)
    mixed: Floats = (1 - how.share) * np.eye(len(classes))[numbers] + how.share * predicted
    return mixed


def _made_by(how: OutOfFold) -> dict[str, Any]:
    return {"parameters": how.parameters, "n_folds": how.n_folds}


def _beside(file: Path) -> Path:
    return file.with_suffix(".json")


def _told(file: Path) -> Any:
    """How the predictions in a file were made."""
    return json.loads(_beside(file).read_text()) if _beside(file).is_file() else None


def _rows(file: Path) -> list[list[str]]:
    with file.open(newline="") as stream:
        return list(csv.reader(stream))[1:]
