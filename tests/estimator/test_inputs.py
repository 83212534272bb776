"""What a DiffMICClassifier can be given: images and targets of every kind."""

import warnings
from dataclasses import replace

import numpy as np
import pandas
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from sklearn.exceptions import DataConversionWarning
from tiny import small, stripes
from torch.utils.data import DataLoader, Dataset, TensorDataset

from diffmic import DiffMICClassifier, InputError

pytestmark = pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")


class DictDataset(Dataset):
    def __init__(self, X, y):
        self.X, self.y = X, y

    def __len__(self):
        return len(self.X)

    def __getitem__(self, index):
        return {"image": torch.from_numpy(self.X[index])[None], "label": int(self.y[index])}


class ImagesAlone(Dataset):
    def __init__(self, X):
        self.X = X

    def __len__(self):
        return len(self.X)

    def __getitem__(self, index):
        return torch.from_numpy(self.X[index])[None]


def pil_images(X):
    return [Image.fromarray(image) for image in X]


def paths(X, folder):
    names = [folder / f"{number:03}.png" for number in range(len(X))]
    for name, image in zip(names, pil_images(X), strict=True):
        image.save(name)
    return names


def pandas_column(values):
    return pandas.Series(list(map(str, values)))


def pairs(X, y):
    return TensorDataset(torch.from_numpy(X)[:, None], torch.from_numpy(y))


# Each kind from images (n, H, W) of uint8, their classes and an empty folder; those in PAIRED hold
# the classes, too.
KINDS = {
    "gray array": lambda X, y, folder: X,
    "channels first": lambda X, y, folder: X[:, None],
    "channels last": lambda X, y, folder: X[..., None],
    "three equal channels": lambda X, y, folder: np.repeat(X[..., None], 3, axis=3),
    "tensor": lambda X, y, folder: torch.from_numpy(X)[:, None],
    "float64 in 0–1": lambda X, y, folder: X / 255,
    "float32 tensor in 0–1": lambda X, y, folder: torch.from_numpy(X)[:, None] / 255,
    "list of arrays": lambda X, y, folder: list(X),
    "list of PIL images": lambda X, y, folder: pil_images(X),
    "list of paths": lambda X, y, folder: paths(X, folder),
    "list of str paths": lambda X, y, folder: list(map(str, paths(X, folder))),
    "array of str paths": lambda X, y, folder: np.array(list(map(str, paths(X, folder)))),
    "pandas column of paths": lambda X, y, folder: pandas_column(paths(X, folder)),
    "Dataset of images": lambda X, y, folder: ImagesAlone(X),
    "DataLoader of images": lambda X, y, folder: DataLoader(ImagesAlone(X), batch_size=32),
}
PAIRED = {
    "Dataset of pairs": lambda X, y, folder: pairs(X, y),
    "Dataset of dicts": lambda X, y, folder: DictDataset(X, y),
    "DataLoader": lambda X, y, folder: DataLoader(pairs(X, y), batch_size=32),
    "shuffled DataLoader": lambda X, y, folder: DataLoader(pairs(X, y), 32, shuffle=True),
    "DataLoader of dicts": lambda X, y, folder: DataLoader(DictDataset(X, y), 32, shuffle=True),
}


@pytest.mark.parametrize("kind", [*KINDS, *PAIRED])
def test_predictions_are_the_same_for_every_kind_of_input(fitted, new_images, kind, tmp_path):
    given = (KINDS | PAIRED)[kind](*new_images, tmp_path)
    assert_allclose(fitted.predict_proba(given), fitted.predict_proba(new_images[0]), atol=1e-5)


@pytest.fixture(scope="module")
def expected(images, new_images):
    classifier = DiffMICClassifier(**small(augment=None)).fit(*images)
    return classifier.predict_proba(new_images[0], stage="prior")


@pytest.mark.parametrize("kind", [*KINDS, *PAIRED])
def test_training_is_the_same_for_every_kind_of_input(images, new_images, expected, kind, tmp_path):
    X, y = images
    given = (KINDS | PAIRED)[kind](X, y, tmp_path)
    classifier = DiffMICClassifier(**small(augment=None))
    classifier.fit(given, None if kind in PAIRED else y)
    proba = classifier.predict_proba(new_images[0][:, None], stage="prior")
    assert_allclose(proba, expected, atol=1e-3)


def test_y_goes_before_the_targets_of_a_dataset(images, new_images):
    X, y = images
    given, replaced = pairs(X, y), np.array(["a", "b", "c"])[y]
    classifier = DiffMICClassifier(**small()).fit(given, replaced)
    assert classifier.classes_.tolist() == ["a", "b", "c"]


@pytest.mark.parametrize("kind", PAIRED)
def test_score_reads_the_targets_that_come_with_the_images(fitted, new_images, kind, tmp_path):
    X, y = new_images
    wrong = np.where(np.arange(30) < 10, (y + 1) % 3, y)
    assert fitted.score(PAIRED[kind](X, wrong, tmp_path)) == fitted.score(X, wrong)


class Counted(DictDataset):
    n_read = 0

    def __getitem__(self, index):
        self.n_read += 1
        return super().__getitem__(index)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda data: data,
        lambda data: DataLoader(data, 8, shuffle=True),
        lambda data: DataLoader(data, 8, collate_fn=lambda items: items),
    ],
    ids=["Dataset", "shuffled DataLoader", "collate_fn of its own"],
)
@pytest.mark.parametrize("method", ["score", "evaluate"])
def test_items_are_read_once_to_measure(fitted, new_images, wrap, method):
    data = Counted(*new_images)
    assert getattr(fitted, method)(wrap(data)) == getattr(fitted, method)(*new_images)
    assert data.n_read == len(data)


def test_items_without_labels_cannot_be_measured(fitted, new_images):
    with pytest.raises(InputError, match="Item 0 of the Dataset has no target"):
        fitted.score(ImagesAlone(new_images[0]))
    with pytest.raises(InputError, match="Batch 0 has no target"):
        fitted.evaluate(DataLoader(ImagesAlone(new_images[0]), 4, collate_fn=torch.stack))


def test_one_path_gives_one_row(fitted, new_images, tmp_path):
    path = paths(new_images[0], tmp_path)[4]
    expected = fitted.predict_proba(new_images[0])[4:5]
    assert_allclose(fitted.predict_proba(path), expected, atol=1e-5)
    assert_allclose(fitted.predict_proba([str(path)]), expected, atol=1e-5)


def test_a_data_loaders_batch_size_is_that_of_the_training(images, expected, new_images):
    loader = DataLoader(pairs(*images), batch_size=8)
    classifier, same = (DiffMICClassifier(**small(augment=None, batch_size=n)) for n in (32, 8))
    proba = classifier.fit(loader).predict_proba(new_images[0], stage="prior")
    assert not np.allclose(proba, expected, atol=1e-3)
    same.fit(*images)
    assert_allclose(proba, same.predict_proba(new_images[0], stage="prior"), atol=1e-5)


def test_images_may_differ_in_size(fitted):
    X = [stripes(1, size=size)[0][0] for size in ((32, 32), (40, 64), (20, 30))]
    assert fitted.predict_proba(X).shape == (3, 3)
    y = [0, 1, 0, 1, 0, 1, 0, 1, 0]
    classifier = DiffMICClassifier(**small(image_size=32)).fit(X * 3, y)
    assert classifier.predict_proba(X).shape == (3, 2)


def test_keys_of_items_that_are_dicts_hold_wherever_images_go_in(images, new_images, expected):
    def items(X, y):
        return [
            {"scan": image, "image": "elsewhere.png", "finding": int(label), "label": 9}
            for image, label in zip(X, y, strict=True)
        ]

    X, y = new_images
    classifier = DiffMICClassifier(**small(augment=None, image_key="scan", label_key="finding"))
    classifier.fit(items(*images))
    assert_allclose(classifier.predict_proba(items(X, y), stage="prior"), expected, atol=1e-3)
    assert classifier.score(items(X, y)) == classifier.score(X, y)
    assert classifier.evaluate(items(X, y)) == classifier.evaluate(X, y)
    assert_array_equal(classifier.transform(items(X, y)), classifier.transform(X))
    boxes = classifier.explain(items(X, y)).boxes
    assert_array_equal(boxes, classifier.explain(X).boxes)
    batch = {"scan": torch.from_numpy(X)[:, None], "finding": y}
    assert_array_equal(classifier.predict(batch), classifier.predict(X))
    assert_allclose(
        classifier.predict_proba({"scan": X[3]}), classifier.predict_proba(X[3:4]), atol=1e-6
    )
    classifier.fit(items(*images), validation_data=items(X, y))
    with pytest.raises(InputError, match=r"but not the image_key 'scan'"):
        classifier.predict([{"image": X[0]}])


class Inverting(DataLoader):
    def __iter__(self):
        for X, y in super().__iter__():
            yield 255 - X, y


@pytest.mark.parametrize(
    "loader",
    [
        lambda data: Inverting(data, 8),
        lambda data: DataLoader(
            data, 8, collate_fn=lambda items: (255 - torch.stack([x for x, _ in items]), len(items))
        ),
    ],
    ids=["iterates by itself", "collates by batch"],
)
def test_predictions_are_of_what_a_loader_yields(fitted, new_images, loader):
    X, y = new_images
    found = fitted.predict_proba(loader(pairs(X, y)))
    assert_allclose(found, fitted.predict_proba(255 - X), atol=1e-5)


# --- Targets ------------------------------------------------------------------------------------

LABELS = {
    "integers": np.array([3, 7, 40]),
    "negative integers": np.array([-1, 0, 1]),
    "strings": np.array(["across", "plain", "up"]),
    "objects": np.array(["across", "plain", "up"], dtype=object),
}


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("as_list", [False, True])
def test_predictions_are_labels_as_they_were_passed(images, new_images, kind, as_list):
    X, y = images
    labels = LABELS[kind][y]
    classifier = DiffMICClassifier(**small(max_epochs=10, augment=None))
    classifier.fit(X, labels.tolist() if as_list else labels)
    assert_array_equal(classifier.classes_, LABELS[kind])
    predicted = classifier.predict(new_images[0])
    assert np.mean(predicted == LABELS[kind][new_images[1]]) > 0.9


def test_two_classes_work_like_any_number():
    X, y = stripes(40, n_classes=2)
    classifier = DiffMICClassifier(**small(max_epochs=10)).fit(X, y == 1)
    assert classifier.predict_proba(X).shape == (40, 2)
    assert classifier.score(X, y == 1) > 0.9


def test_a_column_of_labels_is_taken_without_a_warning(images, new_images, expected):
    classifier = DiffMICClassifier(**small(augment=None))
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataConversionWarning)
        classifier.fit(images[0], images[1][:, None])
    assert_array_equal(classifier.predict_proba(new_images[0], stage="prior"), expected)


def test_an_indicator_matrix_means_multi_label(fitted_multilabel, indicators):
    X, y = indicators
    proba = fitted_multilabel.predict_proba(X)
    assert fitted_multilabel.task_.name == "multilabel"
    assert proba.shape == (60, 2)
    assert ((proba >= 0) & (proba <= 1)).all()
    assert fitted_multilabel.classes_.tolist() == [0, 1]
    predicted = fitted_multilabel.predict(X)
    assert set(np.unique(predicted)) == {0, 1}
    assert (predicted == y).mean() > 0.8
    assert fitted_multilabel.score(X, y) == (predicted == y).all(axis=1).mean()


@pytest.mark.parametrize("stage", ["diffusion", "prior"])
def test_thresholds_decide_which_labels_are_called_present(fitted_multilabel, indicators, stage):
    X, _ = indicators
    thresholds = fitted_multilabel.thresholds_[stage]
    assert thresholds.shape == (2,)
    proba = fitted_multilabel.predict_proba(X, stage=stage)
    assert_array_equal(fitted_multilabel.predict(X, stage=stage), (proba >= thresholds).astype(int))


def test_exclusive_classes_have_no_thresholds(fitted):
    assert fitted.thresholds_ == {}


# --- What cannot be used ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X, y: (X[:0], y[:0]), "no images|0 sample"),
        (lambda X, y: (X, y[:-1]), "59 entries"),
        (lambda X, y: (X, None), "y is missing"),
        (lambda X, y: (X, np.zeros(60)), "one class"),
        (lambda X, y: (X, y + 0.5), "continuous"),
        (lambda X, y: (X / 1.0, y), "Divide them"),
        (lambda X, y: (X / 127.5 - 1, y), "Normalize"),
        (lambda X, y: (X[:, None].repeat(5, 1), y), "channels"),
        (lambda X, y: (X.astype(np.int16), y), "uint8"),
        (lambda X, y: (np.where(X > 200, np.nan, X / 255), y), "NaN"),
        (lambda X, y: (["nowhere.png"] * 60, y), "does not exist"),
    ],
)
def test_what_cannot_be_learnt_from_is_an_error_that_says_why(images, change, message):
    with pytest.raises(InputError, match=message):
        DiffMICClassifier(**small()).fit(*change(*images))


def test_an_error_leaves_a_fitted_classifier_as_it_was(images, new_images):
    classifier = DiffMICClassifier(**small()).fit(*images)
    before = vars(classifier).copy()
    expected = classifier.predict_proba(new_images[0])
    for X, y in [(images[0], None), (images[0] / 1.0, images[1]), (images[0], images[1] * 0)]:
        with pytest.raises(InputError):
            classifier.fit(X, y)
    architecture = classifier.architecture
    with pytest.raises(InputError):
        classifier.set_params(architecture=replace(architecture, n_regions=50)).fit(*images)
    assert vars(classifier.set_params(architecture=architecture)) == before
    assert_array_equal(classifier.predict_proba(new_images[0]), expected)
