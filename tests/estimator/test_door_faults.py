"""Faults of what comes in at the door, each with the right answer."""

import json

import numpy as np
import pytest
import torch
from tiny import small, stripes
from torch.utils.data import ConcatDataset, Dataset

from diffmic import DiffMICClassifier, InputError
from diffmic.data.training_data import _rows
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
    assert len(_rows(values, [0, 3])) == 2


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
