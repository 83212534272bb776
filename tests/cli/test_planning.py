"""From data to a plan of the training."""

import numpy as np
import pytest
from PIL import Image
from tiny import small, stripes

from diffmic import DiffMICClassifier
from diffmic.cli.loading import chosen_part, read_data
from diffmic.cli.planning import (
    _of_all_classes,
    divided,
    duration,
    seconds_of_fit,
    without_damaged,
)
from diffmic.datasets import ImageTable, inspect
from diffmic.errors import InputError


def table(n=60, **fields):
    labels = np.arange(n) % 3
    return ImageTable([f"{i}.png" for i in range(n)], labels, ["0", "1", "2"], **fields)


def test_without_splits_a_test_part_is_drawn_with_each_class_and_whole_groups():
    groups = np.repeat(np.arange(30), 2)
    labelled = table()
    labelled.labels[:] = groups % 3
    parts = divided(labelled, groups, test=0.2, task="auto", seed=0)
    assert parts.validation is None
    assert len(parts.train) + len(parts.test) == 60
    assert 6 <= len(parts.test) <= 18
    assert set(parts.test.labels.tolist()) == {0, 1, 2}
    assert not set(parts.train.groups.tolist()) & set(parts.test.groups.tolist())
    again = divided(labelled, groups, test=0.2, task="auto", seed=0)
    assert again.test.paths == parts.test.paths


def test_the_splits_of_the_data_are_kept_whatever_they_are_called():
    splits = np.array(["Training", "valid", "testing"])[np.arange(60) // 20]
    parts = divided(table(splits=splits), np.arange(60), test=0.2, task="auto", seed=0)
    assert [len(p) for p in (parts.train, parts.validation, parts.test)] == [20, 20, 20]
    assert parts.train.paths[0] == "0.png"
    assert parts.train.groups is None


def test_a_test_part_is_drawn_from_the_training_part_alone():
    splits = np.array(["train", "val"])[np.arange(60) // 30]
    parts = divided(table(splits=splits), np.arange(60), test=0.2, task="auto", seed=0)
    assert len(parts.validation) == 30
    assert len(parts.train) + len(parts.test) == 30


def test_no_test_part_if_none_is_wanted():
    assert divided(table(), np.arange(60), test=0, task="auto", seed=0).test is None


@pytest.mark.parametrize("names", [["train", "fold2"], ["val", "test"]])
def test_splits_that_say_nothing_are_refused(names):
    splits = np.array(names)[np.arange(60) // 30]
    with pytest.raises(InputError, match="needed are train"):
        divided(table(splits=splits), np.arange(60), test=0.2, task="auto", seed=0)


def test_damaged_images_end_the_work_unless_they_are_to_be_skipped(photos, tmp_path):
    import shutil

    folder = shutil.copytree(photos, tmp_path / "photos")
    bad = sorted(folder.glob("across/*.png"))[2]
    bad.write_bytes(bad.read_bytes()[:60])
    images = read_data(str(folder))
    found = inspect(images, verbose=0)
    with pytest.raises(InputError, match="--skip-damaged"):
        without_damaged(images, found, skip=False)
    rest, kept = without_damaged(images, found, skip=True)
    assert len(rest) == len(kept) == 29
    assert bad not in rest.paths
    assert rest.splits is None


def test_data_may_be_folders_tables_or_medmnist_and_else_the_message_says_so(photos, tmp_path):
    assert len(read_data(str(photos))) == 30
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "l.csv").write_text("file,label,who\na.png,x,1\n")
    assert read_data(str(tmp_path / "l.csv"), group="who").groups.tolist() == ["1"]
    (tmp_path / "own.npz").write_bytes(b"")
    for wrong, why in [("nothing", "no folder"), (str(tmp_path / "own.npz"), "MedMNIST")]:
        with pytest.raises(InputError, match=why):
            read_data(wrong)
    with pytest.raises(InputError, match="no file"):
        read_data("pneumoniamnist_64")  # a name of MedMNIST, which is not downloaded


def test_an_evaluation_takes_the_test_split():
    splits = np.array(["train", "test"])[np.arange(60) // 30]
    assert chosen_part(table(splits=splits), None).paths[0] == "30.png"
    assert len(chosen_part(table(), None)) == 60
    with pytest.raises(InputError, match="--split"):
        chosen_part(table(splits=np.array(["a", "b"])[np.arange(60) // 30]), None)


def test_a_rehearsal_has_images_of_all_classes():
    labels = np.array([0] * 95 + [1] * 4 + [2])
    assert {0, 1, 2} == set(labels[_of_all_classes(labels, 6)].tolist())


def test_a_fit_that_is_short_is_not_rehearsed(photos):
    clf = DiffMICClassifier(**small())
    assert seconds_of_fit(clf, read_data(str(photos))) is None


@pytest.mark.slow
def test_the_estimate_is_of_the_order_of_the_fit_and_leaves_the_estimator_alone(tmp_path):
    import time

    for number, (pixels, label) in enumerate(zip(*stripes(600), strict=True)):
        (tmp_path / str(label)).mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / str(label) / f"{number}.png")
    images = read_data(str(tmp_path))
    clf = DiffMICClassifier(
        **small(backbone="test_resnet", pretrained=False, recipe="default", max_epochs=8)
    )
    said = seconds_of_fit(clf, images)
    assert "model_" not in vars(clf)
    started = time.perf_counter()
    clf.fit(images)
    took = time.perf_counter() - started
    assert took / 5 < said < took * 5


def test_durations_are_told_in_fitting_units():
    assert [duration(s) for s in (3.2, 119, 600, 7200)] == [
        "3 seconds", "119 seconds", "10 minutes", "2 hours",
    ]  # fmt: skip
