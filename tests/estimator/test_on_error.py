"""One damaged image among many can be left out on request: it is counted and said."""

import warnings

import numpy as np
import pandas
import pytest
import torch
from PIL import Image
from tiny import small, stripes
from torch.utils.data import DataLoader, Dataset

from diffmic import DiffMICClassifier, DiffMICWarning, InputError
from diffmic.data import read_training_data

X, Y = stripes(30)
BAD = [3, 17]


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(len(X))]
    for path, image in zip(paths, X, strict=True):
        Image.fromarray(image).save(path)
    for i in BAD:
        paths[i].write_bytes(paths[i].read_bytes()[:200])
    return paths


class Items(Dataset):
    """Items of files with their labels."""

    def __init__(self, files):
        self.files = files

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        return np.asarray(Image.open(self.files[index])), int(Y[index])


def floats(files):
    images = (X / 255).astype(np.float32)
    images[BAD] = np.nan
    return images


FORMS = {
    "files": (lambda files: files, True),
    "PIL": (lambda files: [Image.open(file) for file in files], True),
    "bytes": (lambda files: [file.read_bytes() for file in files], True),
    "array": (floats, True),
    "list of tensors": (lambda files: list(torch.from_numpy(floats(files))), True),
    "Dataset": (Items, False),
    "Dataset and y": (Items, True),
    "DataLoader": (lambda files: DataLoader(Items(files), 8), False),
}


def read(X, y, **options):
    return read_training_data(
        X,
        y,
        **{
            "sample_weight": None,
            "groups": None,
            "validation_data": None,
            "validation_fraction": None,
            "class_weight": None,
            "rng": np.random.RandomState(0),
            "on_error": "skip",
            **options,
        },
    )


@pytest.mark.parametrize(("form", "with_y"), FORMS.values(), ids=FORMS)
def test_damaged_images_are_left_out_with_their_labels_and_weights(files, form, with_y):
    weight = np.arange(len(X)) + 1.0
    y = Y if with_y else None
    with pytest.warns(DiffMICWarning, match=r"2 of 30 images cannot be used .*first: .*") as warned:
        data = read(form(files), y, sample_weight=weight)
    assert sum(w.category is DiffMICWarning for w in warned) == 1
    good = [i for i in range(len(X)) if i not in BAD]
    assert len(data.training) == len(good)
    assert data.training.targets.argmax(dim=1).tolist() == Y[good].tolist()
    expected = weight[good] / weight[good].mean()
    np.testing.assert_allclose(data.training.weights, expected, rtol=1e-5)
    for i in (0, 10, 27):
        shown = data.training.images[i]
        shown = shown if shown.dtype == torch.uint8 else (shown * 255).round().byte()
        np.testing.assert_array_equal(shown[0], X[good[i]])


@pytest.mark.parametrize("kind", [np.asarray, list, pandas.Series, torch.as_tensor])
def test_labels_and_groups_of_any_kind_lose_the_same_rows(files, kind):
    groups = np.arange(30) // 3
    with pytest.warns(DiffMICWarning, match="2 of 30 images"):
        data = read(files, kind(Y), groups=kind(groups), validation_fraction=0.3)
    assert len(data.training) + len(data.validation) == 28
    found = np.concatenate([p.targets.argmax(dim=1) for p in (data.training, data.validation)])
    assert sorted(found) == sorted(np.delete(Y, BAD))


def test_damaged_validation_images_are_left_out_too(files):
    with pytest.warns(DiffMICWarning, match="2 of 30 validation images"):
        data = read(X, Y, validation_data=(files, Y))
    assert len(data.validation) == 28


def test_a_class_whose_images_are_all_damaged_is_not_learnt(files):
    labels = np.where(np.isin(np.arange(30), BAD), 7, Y)
    with pytest.warns(DiffMICWarning, match="2 of 30"):
        assert read(files, labels).encoding.classes.tolist() == [0, 1, 2]


def test_if_nothing_is_left_it_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"None of the 4 images can be used.*not exist"):
        read([tmp_path / "none.png"] * 4, [0, 1, 0, 1])


def test_good_images_give_no_warning_and_the_same_data():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = read(X, Y)
    assert len(data.training) == 30


def test_an_item_without_a_target_is_an_error_all_the_same():
    with pytest.raises(InputError, match="has no target"):
        read(Unlabelled(), None)


class Unlabelled(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return X[index]


def test_a_fit_learns_from_the_others_and_predictions_raise(files):
    clf = DiffMICClassifier(**small(on_error="skip", max_epochs=1))
    with pytest.warns(DiffMICWarning, match="2 of 30 images cannot be used"):
        clf.fit(files, Y)
    for data in (files, DataLoader(Items(files), 8)):
        with pytest.raises(InputError, match=r"3\.png|Item 3"):
            clf.predict_proba(data)
    with pytest.raises(InputError, match=r"Item 3"):
        clf.evaluate(Items(files))


def test_an_unknown_choice_is_refused():
    with pytest.raises(InputError, match="on_error is 'ignore'"):
        DiffMICClassifier(**small(on_error="ignore")).fit(X, Y)
