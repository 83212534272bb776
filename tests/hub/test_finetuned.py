"""The card of a fine-tuned model says what it began from."""

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
from huggingface_hub import ModelCard as HubCard
from tiny import small, stripes

from diffmic import DiffMICClassifier, ModelCard, published
from diffmic.estimator import persistence
from diffmic.published import Published

pytestmark = pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")
X, Y = stripes(30)
TOLD = ModelCard(dataset="APTOS\n2019.", license="other", license_note="Research only.")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("somewhere") / "first"
    parameters = small(backbone="test_resnet", pretrained=False, max_epochs=1)
    DiffMICClassifier(**parameters).fit(X, Y).save_pretrained(folder, card=TOLD)
    return folder


def load_by(kind, folder, monkeypatch):
    """The model, loaded in one of three ways."""
    if kind == "folder":
        return DiffMICClassifier.from_pretrained(folder, device="cpu")
    if kind == "short name":
        monkeypatch.setattr(published, "BUNDLED", folder.parent)
        monkeypatch.setitem(published.REGISTRY, "first", Published("Stripes."))
        return DiffMICClassifier.from_pretrained("first", device="cpu")
    monkeypatch.setattr(persistence, "locate", lambda *_, **__: (folder, None))
    return DiffMICClassifier.from_pretrained("org/first", revision="v1", device="cpu")


def read(folder):
    text = (folder / "README.md").read_text()
    return HubCard(text).data.get("base_model"), text


NAMES = {
    "folder": ("`first`", None),
    "short name": ("`first`", "first"),
    "repository": ("`org/first@v1`", "org/first"),
}


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("labels", [Y, np.array(["a", "b", "c"])[Y]], ids=["same", "other"])
def test_the_card_names_the_model_its_data_and_its_licence(
    folder, tmp_path, monkeypatch, kind, labels
):
    clf = load_by(kind, folder, monkeypatch).set_params(warm_start=True)
    clf = pickle.loads(pickle.dumps(copy.copy(clf)))
    for _ in range(2):  # also after a second fit
        clf.fit(X, labels)
    clf.save_pretrained(tmp_path / "second")
    base_model, text = read(tmp_path / "second")
    name, expected = NAMES[kind]
    assert base_model == expected
    assert (
        f"Fine-tuned from {name}, a model of diffmic. That model was trained on APTOS 2019. "
        "Licence of that model: Research only."
    ) in text
    assert str(folder.parent) not in text
    assert "APTOS 2019" not in text.partition("## Data")[2]  # is not that of the new one
    monkeypatch.undo()
    again = DiffMICClassifier.from_pretrained(tmp_path / "second", device="cpu")
    assert again.card_ == clf.card_


def test_a_card_of_the_users_says_it_too(folder, tmp_path, monkeypatch):
    clf = load_by("repository", folder, monkeypatch).set_params(warm_start=True).fit(X, Y)
    clf.save_pretrained(tmp_path, card=ModelCard(summary="Mine."))
    base_model, text = read(tmp_path)
    assert base_model == "org/first"
    assert "Mine." in text
    assert "Fine-tuned from `org/first@v1`" in text
    clf.save_pretrained(tmp_path, card=ModelCard(base_model="other/model", started_from="Anew."))
    assert read(tmp_path)[0] == "other/model"
    assert "Anew." in read(tmp_path)[1]


def test_a_model_that_began_anew_does_not_say_so(folder, tmp_path, monkeypatch):
    clf = load_by("repository", folder, monkeypatch)
    clf.save_pretrained(tmp_path / "as loaded")
    assert read(tmp_path / "as loaded")[0] is None
    clf.fit(X, Y).set_params(warm_start=True).fit(X, Y).save_pretrained(tmp_path / "anew")
    base_model, text = read(tmp_path / "anew")
    assert base_model is None
    assert "Fine-tuned" not in text
    assert replace(clf.card_) == ModelCard()
