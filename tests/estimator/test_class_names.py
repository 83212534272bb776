"""Names travel with the classes: into the model, its files, its card, and not to other classes."""

import copy

import numpy as np
import pandas
import pytest
from sklearn.base import clone
from tiny import TinyBackbone, small
from torch.utils.data import Dataset

from diffmic import DiffMICClassifier, InputError
from diffmic.errors import DiffMICWarning

pytestmark = pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")

NAMES = ["across", "up", "plain"]


class Named(Dataset):
    def __init__(self, X, y, classes):
        self.X, self.y, self.classes = X, y, classes

    def __len__(self):
        return len(self.X)

    def __getitem__(self, index):
        return self.X[index], int(self.y[index])


def new(**options):
    return DiffMICClassifier(**small(max_epochs=1, **options))


def loaded(classifier, folder):
    classifier.save_pretrained(folder)
    return DiffMICClassifier.from_pretrained(folder, backbone=TinyBackbone(), device="cpu")


@pytest.fixture(scope="module")
def named(images):
    return new().fit(Named(*images, NAMES))


def test_names_of_the_data_are_those_of_the_model_its_files_and_its_card(named, tmp_path):
    assert named.class_names is None
    assert named.class_names_ == NAMES
    again = loaded(named, tmp_path)
    assert again.class_names is None
    assert again.class_names_ == NAMES
    assert again.model_.data_names == tuple(NAMES)
    assert "(1, 3): across, up, plain" in (tmp_path / "README.md").read_text()
    assert loaded(again, tmp_path / "again").class_names_ == NAMES


def test_given_names_go_before_those_of_the_data(images, tmp_path):
    given = {2: "none", 0: "horizontal", 1: "vertical"}
    classifier = new(class_names=given).fit(Named(*images, NAMES))
    assert classifier.class_names_ == ["horizontal", "vertical", "none"]
    assert classifier.class_names is given
    assert loaded(classifier, tmp_path).class_names_ == ["horizontal", "vertical", "none"]
    renamed = copy.copy(classifier).set_params(class_names=["a", "b", "c"])
    assert renamed.class_names_ == ["a", "b", "c"]
    with pytest.raises(InputError, match="class_names has 2 names"):
        _ = renamed.set_params(class_names=["a", "b"]).class_names_


def test_labels_without_names_are_their_own_names(fitted, fitted_multilabel):
    assert fitted.class_names_ == ["0", "1", "2"]
    assert fitted_multilabel.class_names_ == ["0", "1"]


@pytest.mark.parametrize("kind", ["as many classes", "fewer classes", "multi-label", "clone"])
def test_a_loaded_model_fitted_on_other_classes_forgets_their_names(images, tmp_path, kind):
    X, y = images
    classifier = loaded(new(class_names=NAMES).fit(X, y), tmp_path / "old")
    classifier.set_params(warm_start=True, max_epochs=1, random_state=0)
    if kind == "clone":
        classifier = clone(classifier)
    targets, names = {
        "as many classes": (np.array(["cat", "dog", "eel"])[y], ["cat", "dog", "eel"]),
        "clone": (np.array(["cat", "dog", "eel"])[y], ["cat", "dog", "eel"]),
        "fewer classes": (y == 0, ["False", "True"]),
        "multi-label": (
            pandas.DataFrame({"mass": y == 0, "edema": y > 0}),
            ["mass", "edema"],
        ),
    }[kind]
    classifier.fit(X, targets)
    assert classifier.class_names is None
    assert classifier.class_names_ == names
    classifier.save_pretrained(tmp_path / "new")
    card = (tmp_path / "new" / "README.md").read_text()
    assert "across" not in card
    assert ", ".join(names) in card


def test_a_warm_start_on_the_same_classes_keeps_their_names(named, images):
    classifier = copy.deepcopy(named).set_params(warm_start=True).fit(*images)
    assert classifier.class_names_ == NAMES
    assert copy.deepcopy(named).fit(*images).class_names_ == ["0", "1", "2"]  # starts anew


def test_the_same_numbers_with_other_names_are_other_classes(named, images, fits):
    X, y = images
    classifier = copy.deepcopy(named).set_params(warm_start=True)
    with pytest.warns(DiffMICWarning, match=r"changed from \['across', .* re-initialising"):
        classifier.fit(Named(X, y, ["cat", "dog", "eel"]))
    assert classifier.class_names_ == ["cat", "dog", "eel"]
    learnt, begun = named.network_.state_dict(), fits[0][0]
    assert not (learnt["prior.saliency.weight"] == begun["prior.saliency.weight"]).all()


def test_a_list_of_names_is_not_taken_for_other_classes(images):
    X, y = images
    classifier = new(class_names=NAMES).fit(X, y)
    with pytest.raises(InputError, match=r"class_names is still \['across'.*class_names=None"):
        classifier.fit(X, np.array(["cat", "dog", "eel"])[y])
    assert classifier.class_names_ == NAMES
    classifier.set_params(class_names={"cat": "Cat", "dog": "Dog", "eel": "Eel"})
    classifier.fit(X, np.array(["cat", "dog", "eel"])[y])
    assert classifier.class_names_ == ["Cat", "Dog", "Eel"]


def test_evaluations_compare_labels_by_name(named, images):
    X, y = images
    expected = named.evaluate(X, y)
    turned = Named(X, 2 - y, NAMES[::-1])
    with pytest.warns(DiffMICWarning, match="classes of X are numbered otherwise") as warned:
        assert named.evaluate(turned) == expected
    assert len(warned) == 1
    assert warned[0].filename == __file__
    assert named.score(turned) == expected["diffusion"]["accuracy"]
    with pytest.raises(InputError, match=r"X has the classes \['spots'\]"):
        named.score(Named(X, y, ["across", "up", "spots"]))
    words = np.array(NAMES)[y]
    assert named.evaluate(X, words) == expected


@pytest.mark.parametrize("task", ["ordinal", "multilabel"])
def test_a_loaded_model_of_another_task_can_be_fitted_on_classes_without_an_order(
    images, tmp_path, task
):
    X, y = images
    target = y if task == "ordinal" else (y[:, None] == [0, 1]).astype(int)
    classifier = loaded(new(task=task).fit(X, target), tmp_path)
    classifier.set_params(warm_start=True, max_epochs=1)
    words = np.array(["cat", "dog", "eel"])[y]
    with pytest.warns(DiffMICWarning, match=f"task is '{task}'.*taken from y.*task='auto'"):
        classifier.fit(X, words)
    assert classifier.task_.name == "multiclass"
    assert classifier.class_names_ == ["cat", "dog", "eel"]
    with pytest.raises(InputError, match=f"'{task}'"):
        new(task=task).fit(X, words)  # asked for, not inherited


@pytest.mark.usefixtures("no_predictions")
def test_labels_that_the_model_does_not_know_are_named_before_any_work(named, images):
    X, y = images
    message = r"unseen labels: \[3\]; the known classes are \[0 \(across\), 1 \(up\), 2 \(plain\)\]"
    with pytest.raises(InputError, match=message):
        named.evaluate(X, y + 1)
    for method in (named.evaluate, named.score):
        with pytest.raises(InputError, match="numbers as text here: convert them"):
            method(X, y.astype(str))


@pytest.fixture
def no_predictions(monkeypatch):
    monkeypatch.setattr("diffmic.inference.FittedModel.evidence", None)


def test_a_score_counts_labels_of_other_classes_as_wrong(named, images):
    X, y = images
    right = named.predict(X) == y
    assert named.score(X, np.where(right, y, 7)) == right.mean()
