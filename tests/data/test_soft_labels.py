"""Soft labels are probabilities in the order of the classes, and stay with their images."""

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose
from tiny import stripes

from diffmic.data import read_training_data
from diffmic.errors import InputError

N = 24
X, Y = stripes(N)
SOFT = np.random.RandomState(0).dirichlet(np.ones(3), N)
NAMES = ("none", "rising", "falling")


def read(soft, y=Y, images=X, **options):
    given = {"validation_fraction": None, "class_weight": None, "rng": np.random.RandomState(0)}
    columns = dict.fromkeys(("sample_weight", "groups", "validation_data"))
    return read_training_data(images, y, soft_labels=soft, **columns | given | options)


@pytest.mark.parametrize(
    "form",
    [
        np.asarray,
        torch.from_numpy,
        np.ndarray.tolist,
        lambda soft: soft.astype(np.float32),
        lambda soft: pd.DataFrame(soft),
        lambda soft: pd.DataFrame(soft, columns=[0, 1, 2])[[2, 0, 1]],
        lambda soft: pd.DataFrame(soft, columns=["0", "1", "2"])[["1", "2", "0"]],
        lambda soft: pd.DataFrame(soft, columns=NAMES)[["falling", "none", "rising"]],
    ],
    ids=["array", "tensor", "list", "float32", "table", "classes", "text", "display names"],
)
def test_columns_are_in_the_order_of_the_classes(form):
    data = read(form(SOFT), class_names=NAMES)
    assert data.training.soft.dtype == torch.float32
    assert_allclose(data.training.soft, SOFT, rtol=1e-6)
    assert data.training.softened().targets is data.training.soft
    np.testing.assert_array_equal(data.training.targets.argmax(dim=1), Y)


@pytest.mark.parametrize("classes", [["a", "b", "c"], [1, 2, 3], [0.0, 1.0, 2.0]])
def test_columns_of_a_table_without_names_are_taken_by_position(classes):
    data = read(pd.DataFrame(SOFT), [classes[label] for label in Y])
    assert_allclose(data.training.soft, SOFT, rtol=1e-6)


def test_grades_with_an_order_of_their_own_have_columns_in_that_order():
    y = pd.Categorical([["low", "mid", "high"][n] for n in Y], ["low", "mid", "high"], ordered=True)
    for soft in (
        SOFT,
        pd.DataFrame(SOFT),
        pd.DataFrame(SOFT[:, [2, 0, 1]], columns=["high", "low", "mid"]),
    ):
        assert_allclose(read(soft, y).training.soft, SOFT, rtol=1e-6)


def test_without_them_the_labels_are_learnt():
    training = read(None).training
    assert training.soft is None
    assert training.softened() is training


def test_rounded_rows_are_made_to_sum_to_one():
    soft = read(SOFT.round(2)).training.soft
    assert_allclose(soft.sum(dim=1), 1, rtol=1e-6)


def test_the_training_part_has_those_of_its_images():
    data = read(SOFT, validation_fraction=0.25)
    of = {image.tobytes(): soft for image, soft in zip(X, SOFT, strict=True)}
    own = [of[image.numpy()[0].tobytes()] for image in data.training.images]
    assert_allclose(data.training.soft, own, rtol=1e-6)
    assert data.validation.soft is None


def test_those_of_images_that_are_left_out_go_with_them(tmp_path):
    from PIL import Image

    files = []
    for number, image in enumerate(X):
        files.append(tmp_path / f"{number}.png")
        Image.fromarray(image).save(files[-1])
    files[3].write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="1 of 24 images"):
        data = read(SOFT, images=files, on_error="skip")
    assert_allclose(data.training.soft, np.delete(SOFT, 3, axis=0), rtol=1e-6)
    wrong = np.where(np.arange(N)[:, None] == 10, np.nan, SOFT)
    with pytest.raises(InputError, match="Row 10 is"):  # as the user counts
        read(wrong, images=files, on_error="skip")


INDICATOR = np.eye(3, dtype=int)[Y] | np.eye(3, dtype=int)[(Y + 1) % 3]


@pytest.mark.parametrize(
    ("soft", "y", "message"),
    [
        (SOFT[:-1], Y, "24 images, but soft_labels has 23 entries"),
        (SOFT[:, :2], Y, r"shape \(24, 2\).*the 3 classes in y, \[0, 1, 2\]"),
        (pd.DataFrame(np.ones((N, 4)) / 4, columns=list("0123")), Y, r"columns .*'3'\].*Leave out"),
        (SOFT[:, 0], Y, r"shape \(24,\).*each of the 3 classes"),
        (Y, Y, r"shape \(24,\).*each of the 3 classes"),
        (SOFT * 3, Y, r"whose sum is 1. Row 0 is .*24 such rows.*Divide counts"),
        (SOFT - 0.5 * np.eye(3)[0] + 0.5 * np.eye(3)[1], Y, "at least 0"),
        (np.where(np.arange(N)[:, None] == 5, np.nan, SOFT), Y, r"Row 5 is \[nan.*1 such rows"),
        (SOFT.astype(str)[:, ::-1].astype(object) + "x", Y, "something other than numbers"),
        (pd.DataFrame(SOFT, columns=["a", "b", "c"]), Y, r"columns \['a', 'b', 'c'\].*\[0, 1, 2\]"),
        (SOFT, INDICATOR, "exclusive classes, and this task is multilabel"),
    ],
)
def test_what_is_no_distribution_over_the_classes_is_refused(soft, y, message):
    with pytest.raises(InputError, match=message):
        read(soft, y)
