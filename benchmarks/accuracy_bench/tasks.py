"""The data sets, and how each is trained on: chosen on validation, the same for every method."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import train_test_split
from torch.nn.functional import adaptive_avg_pool2d

from diffmic.data import LabelledImages, TargetEncoding, read_inputs
from diffmic.data.images import read_image
from diffmic.data.preprocessing import resized
from diffmic.datasets import read_csv, read_folders, read_medmnist
from diffmic.datasets.splitting import drawn_splits
from diffmic.image_table import LabelledTable
from diffmic.tasks import Task

PART_NAMES = ("train", "val", "test")


@dataclass(frozen=True)
class DataSet:
    """One data set, and how it is trained on.

    Attributes
    ----------
    folder : str
        Below the folder with all data sets.
    image_size, max_epochs : int
        Pixels of a side; passes over the images in stage one, and of plain fine-tuning.
    augment : str
        As the estimator's.
    task : str
        As the estimator's: "ordinal" where classes are grades.
    group : str or None
        Column with the patient or lesion.
    resplit : bool
        Whether each seed has a split of its own, because the test part is too small for a verdict.
    zoom_size : int or None
        Longer side of the originals, where they are larger than ``image_size``.
    n_training : int or None
        Most training images: a seed draws as many, with the classes' shares; None: all.
    """

    folder: str
    image_size: int
    max_epochs: int
    augment: str = "auto"
    task: str = "auto"
    group: str | None = None
    resplit: bool = False
    zoom_size: int | None = None
    n_training: int | None = None

    def small(self) -> "DataSet":
        """Few and small images, so that a comparison of many runs takes hours, not days."""
        side = min(self.image_size, 96)
        return replace(self, image_size=side, max_epochs=12, n_training=500)


DATA_SETS = {
    "busi": DataSet("busi_ultrasound", 160, 12, resplit=True, zoom_size=256),
    "chestxray14": DataSet("chestxray14_64", 64, 15, group="patient_id", resplit=True),
    "pneumonia": DataSet("chest_xray_pneumonia", 128, 8, group="patient_id", zoom_size=224),
    "medmnist": DataSet("medmnist", 64, 8),
    "aptos": DataSet("aptos2019_dr", 192, 10, augment="rotations", task="ordinal", zoom_size=224),
    "ham10000": DataSet("ham10000", 128, 6, augment="rotations", group="lesion_id", zoom_size=200),
}


@dataclass(frozen=True)
class Parts:
    """Training, validation and test part of a data set.

    Attributes
    ----------
    groups : ndarray of shape (n_test,)
        Number of each test image's group, see :class:`~.results.Answers`.
    """

    train: LabelledImages
    val: LabelledImages
    test: LabelledImages
    classes: list[Any]
    task: Task
    groups: NDArray[np.int64]

    def __getitem__(self, name: str) -> LabelledImages:
        part: LabelledImages = getattr(self, name)
        return part

    def with_wrong_labels(self, share: float, seed: int) -> "Parts":
        """The same with a share of the training images under another class, drawn evenly.

        In multi-label sets each label is turned round with that chance.
        """
        if not share:
            return self
        rng = np.random.RandomState(seed)
        targets = self.train.targets.clone()
        if not self.task.exclusive:
            wrong = torch.from_numpy(rng.rand(*targets.shape) < share)
            targets[wrong] = 1 - targets[wrong]
        else:
            n_classes = targets.shape[1]
            for row in np.flatnonzero(rng.rand(len(targets)) < share):
                targets[row] = targets[row].roll(int(rng.randint(1, n_classes)))
        return replace(self, train=replace(self.train, targets=targets))


def load(data_set: DataSet, seed: int, data: Path) -> Parts:
    """Read images and labels; the split is the data set's own, or the seed's."""
    table = table_of(data_set, data)
    images, groups, splits = table.images, table.groups, table.splits
    encoding, targets = TargetEncoding.learn_and_encode(table.labels, data_set.task)
    if data_set.resplit or splits is None:
        if groups is None:
            groups = near_duplicates(images)
        splits = random_splits(targets, groups, seed, encoding.task)
    numbers = (
        np.arange(len(splits)) if groups is None else np.unique(groups, return_inverse=True)[1]
    )
    source = read_inputs(images).images
    index_of = {name: np.flatnonzero(splits == name) for name in PART_NAMES}
    if data_set.n_training is not None and data_set.n_training < len(index_of["train"]):
        classes = targets[index_of["train"]].argmax(axis=1) if encoding.task.exclusive else None
        index_of["train"], _ = train_test_split(
            index_of["train"],
            train_size=data_set.n_training,
            stratify=classes,
            random_state=seed,
        )

    def part(name: str) -> LabelledImages:
        index = index_of[name]
        # Decoded and resized once: every method sees the same pixels in every epoch.
        pixels = torch.stack([resized(source[i], data_set.image_size) for i in index.tolist()])
        return LabelledImages(
            read_inputs(pixels).images, torch.from_numpy(targets[index]), torch.ones(len(index))
        )

    return Parts(
        *(part(name) for name in PART_NAMES),
        encoding.classes.tolist(),
        encoding.task,
        numbers[splits == "test"],
    )


def table_of(data_set: DataSet, data: Path) -> LabelledTable:
    """Read a CSV file, a folder with one or with a folder per class, or the file of MedMNIST."""
    place = data / data_set.folder
    if (place / "pneumoniamnist.npz").is_file():
        return read_medmnist("pneumoniamnist", place)
    file = place / "labels.csv" if place.is_dir() else place
    if file.is_file():
        return read_csv(file, group=data_set.group)
    return read_folders(place)


def random_splits(
    targets: NDArray[np.float32], groups: NDArray[Any], seed: int, task: Task
) -> NDArray[np.str_]:
    """70 % training, 10 % validation, 20 % test; groups stay together."""
    return drawn_splits(targets, groups, task, np.random.RandomState(seed))


def near_duplicates(paths: list[Path], *, largest_difference: float = 6.0) -> NDArray[np.int32]:
    """Group of each image: images whose 16 × 16 thumbnails hardly differ are one group.

    Parameters
    ----------
    largest_difference : float
        Mean absolute difference of two thumbnails, in grey levels of 0 to 255.
    """
    thumbnails = torch.stack(
        [adaptive_avg_pool2d(read_image(p).float(), 16).flatten() for p in paths]
    )
    close = torch.cdist(thumbnails, thumbnails, p=1) / thumbnails.shape[1] < largest_difference
    groups: NDArray[np.int32] = connected_components(close.numpy(), directed=False)[1]
    return groups
