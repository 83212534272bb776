"""Faults of what comes in at the door, each with the right answer."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import small, stripes
from torch.utils.data import ConcatDataset, Dataset

from diffmic import DiffMICClassifier, DiffMICWarning, InputError
from diffmic.data.columns import rows_of
from diffmic.data.images import as_image
from diffmic.data.ranges import ValueRange
from diffmic.data.reading import Reading
from diffmic.datasets import read_csv
from diffmic.hub.target import is_ours


class Named(Dataset):
    def __init__(self, names):
        self.X, _ = stripes(6)
        self.class_to_idx = {name: i for i, name in enumerate(names)}
        self.targets = [i % 2 for i in range(6)]

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return self.X[index], self.targets[index]


def test_parts_that_number_their_classes_differently_are_refused():
    parts = ConcatDataset([Named(["benign", "malignant"]), Named(["malignant", "normal"])])
    with pytest.raises(InputError, match="number their classes differently"):
        DiffMICClassifier(**small()).fit(parts)


@pytest.mark.parametrize("change", [lambda x: x.int(), lambda x: x > 0])
def test_an_augmentation_that_returns_other_integers_is_refused(change):
    with pytest.raises(InputError, match="augment returned pixels of type"):
        DiffMICClassifier(**small(augment=change)).fit(*stripes(30))


@pytest.mark.parametrize("values", [range(5), dict.fromkeys("abcde", 1).values(), np.arange(5)])
def test_rows_of_any_container_are_chosen(values):
    assert len(rows_of(values, [0, 3])) == 2


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32])
def test_unsigned_tensors_are_read_with_a_range(dtype):
    X, y = stripes(30)
    deep = torch.from_numpy(X.astype(np.int64) * 16).to(dtype)
    clf = DiffMICClassifier(**small(max_epochs=1, value_range=(0, 4095))).fit(deep, y)
    assert clf.predict_proba(deep).shape == (30, 3)


def test_another_programs_model_beside_our_card_is_not_ours(tmp_path):
    (tmp_path / "README.md").write_text("<!-- Made by diffmic; x -->\nlibrary_name: diffmic")
    assert is_ours(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    assert not is_ours(tmp_path)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_a_tiff_whose_white_is_zero_is_inverted_within_the_range_that_was_given(dtype, tmp_path):
    tifffile = pytest.importorskip("tifffile")
    pixels = np.linspace(0, 4000, 64).reshape(8, 8).astype(dtype)
    tifffile.imwrite(tmp_path / "x.tif", pixels, photometric="miniswhite")
    given = Reading(ValueRange(0, 4000, given=True))
    shown = as_image(tmp_path / "x.tif", reading=given)[0].numpy()
    np.testing.assert_allclose(shown, 1 - pixels / 4000, atol=1e-3)


def test_a_column_that_is_nearly_binary_is_not_dropped_without_a_word(tmp_path):
    rows = [
        "file,edema,cardio,mass",
        *(f"{i}.png,0,1,{i % 2}" for i in range(19)),
        "19.png,0,1,yes",
    ]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    for i in range(20):
        Image.fromarray(np.full((8, 8), i, np.uint8)).save(tmp_path / f"{i}.png")
    with pytest.warns(DiffMICWarning, match="column 'mass'.*1 cells are neither 0 nor 1.*'yes'"):
        table = read_csv(tmp_path / "labels.csv")
    assert table.label_names == ["edema", "cardio"]
