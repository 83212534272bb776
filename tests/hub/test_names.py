"""A name is a folder, a short name, or a repository; everything else is a clear error."""

import shutil
from pathlib import Path

import pytest
from tiny import small, stripes

from diffmic import (
    DiffMICClassifier,
    InputError,
    ModelFileError,
    list_pretrained,
    published,
)
from diffmic.hub.card import is_generated
from diffmic.hub.files import digest
from diffmic.published import BUNDLED, REGISTRY, Published

pytestmark = pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    parameters = small(backbone="test_resnet", pretrained=False, max_epochs=1)
    DiffMICClassifier(**parameters).fit(*stripes(30)).save_pretrained(folder)
    return folder


@pytest.fixture
def bundled(saved, tmp_path, monkeypatch):
    """A registry in which one model comes with the package, and one is not published."""
    shutil.copytree(saved, tmp_path / "bundled" / "stripes-v1")
    checksum = digest((saved / "model.safetensors").read_bytes())
    monkeypatch.setattr(published, "BUNDLED", tmp_path / "bundled")
    monkeypatch.setitem(REGISTRY, "stripes-v1", Published("Stripes.", sha256=checksum))
    monkeypatch.setitem(REGISTRY, "stripes-v2", Published("More stripes."))
    return tmp_path / "bundled" / "stripes-v1"


def load(name, **options):
    return DiffMICClassifier.from_pretrained(name, device="cpu", **options)


def test_a_short_name_loads_what_comes_with_the_package(bundled):
    assert load("stripes-v1").predict_proba(stripes(3)[0]).shape == (3, 3)


@pytest.mark.parametrize(
    ("name", "advice"), [("a.onnx", "OnnxClassifier"), ("model.safetensors", r"config\.json and")]
)
def test_a_file_is_no_folder_of_a_model(tmp_path, name, advice):
    (tmp_path / name).write_bytes(b"x")
    for given in (tmp_path / name, str(tmp_path / name)):
        with pytest.raises(
            ModelFileError, match=f"no saved model .* is a file; give the folder.*{advice}"
        ):
            load(given)


def test_an_existing_folder_comes_before_a_short_name(bundled, saved, tmp_path, monkeypatch):
    shutil.copytree(saved, tmp_path / "here" / "stripes-v2")
    monkeypatch.chdir(tmp_path / "here")
    assert load("stripes-v2").classes_.tolist() == [0, 1, 2]


def test_weights_other_than_those_of_the_registry_are_refused(bundled, monkeypatch):
    monkeypatch.setitem(REGISTRY, "stripes-v1", Published("Stripes.", sha256="0" * 64))
    with pytest.raises(ModelFileError, match="should be 0000"):
        load("stripes-v1")


def test_a_name_that_nobody_has_published_says_so_and_how_to_make_it(bundled):
    with pytest.raises(
        ModelFileError,
        match=r"No published weights.*'stripes-v2'.*zoo/models/stripes-v2.*zoo train stripes-v2",
    ):
        load("stripes-v2")


def test_list_pretrained_says_where_each_model_is(bundled, monkeypatch):
    monkeypatch.setitem(REGISTRY, "stripes-v3", Published("Other stripes.", "org/stripes"))
    listed = list_pretrained()
    assert listed["stripes-v1"] == "Stripes. Comes with diffmic."
    assert listed["stripes-v3"] == "Other stripes. On the Hugging Face Hub: org/stripes."


def test_list_pretrained_lists_what_can_be_loaded_and_nothing_else():
    listed = list_pretrained()
    assert listed.keys() <= REGISTRY.keys()
    for name in listed:
        assert len(load(name).classes_) >= 2
    for name in REGISTRY.keys() - listed.keys():
        with pytest.raises(ModelFileError, match="No published weights are available"):
            load(name)


def test_models_beside_the_package_are_not_looked_for(bundled, saved, tmp_path):
    """An installed package has other people's folders beside it."""
    shutil.copytree(saved, tmp_path / "zoo" / "models" / "stripes-v2")
    assert "stripes-v2" not in list_pretrained()
    with pytest.raises(ModelFileError, match="No published weights are available"):
        load("stripes-v2")


@pytest.mark.parametrize(
    ("name", "close"),
    [
        *((name, "aptos") for name in ("diffmic-v2-apto", "aptos", "DiffMIC-v2-APTOS")),
        *(("DIFFMIC-V2-APTOS", "aptos"), ("ham", "ham10000"), ("chest", "chestxray14")),
        *(("BUSI", "busi"), ("v2", "busi")),
    ],
)
def test_an_unknown_name_lists_the_close_ones(name, close):
    with pytest.raises(ModelFileError, match=rf"close ones: .*diffmic-v2-{close}.*list_pretrained"):
        load(name)


def test_a_path_that_is_a_short_name_is_told_from_the_string():
    with pytest.raises(
        ModelFileError, match=r"pass the string: from_pretrained\('diffmic-v2-busi'"
    ):
        load(Path("diffmic-v2-busi"))


@pytest.mark.parametrize(
    "name",
    ["a/b/c", "../model", "./model", "/nowhere/model", "org/model@", "org@v1/model", "a" * 5000],
)
def test_what_is_no_name_is_an_error_without_a_network(name):
    with pytest.raises(ModelFileError, match="no saved model"):
        load(name)


def test_a_path_is_a_folder_and_never_a_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelFileError, match="no saved model 'org/model'"):
        load(Path("org/model"))
    with pytest.raises(ModelFileError, match="no saved model 'diffmic-v2-aptos'"):
        load(Path("diffmic-v2-aptos"))


def test_a_file_is_no_repository(saved, monkeypatch):
    monkeypatch.chdir(saved.parent)
    with pytest.raises(ModelFileError, match="no saved model"):
        load(f"{saved.name}/config.json")


def test_no_name_is_not_the_folder_one_happens_to_be_in(saved, monkeypatch):
    monkeypatch.chdir(saved)
    with pytest.raises(InputError, match="name is empty"):
        load("")


def test_a_revision_is_refused_where_there_are_none(bundled, saved):
    for name in (saved, "stripes-v1"):
        with pytest.raises(InputError, match="has no revisions"):
            load(name, revision="main")
    with pytest.raises(InputError, match=r"Two revisions: 'v1' .*'v2'"):
        load("org/model@v1", revision="v2")


def test_weights_in_the_package_are_those_of_the_registry():
    name = "diffmic-v2-aptos"
    assert [p.name for p in BUNDLED.glob("*/")] == [name]
    assert digest((BUNDLED / name / "model.safetensors").read_bytes()) == REGISTRY[name].sha256
    assert "APTOS" in (BUNDLED / name / "NOTICE").read_text()


def test_the_card_in_the_package_is_as_it_was_made():
    text = (BUNDLED / "diffmic-v2-aptos" / "README.md").read_text()
    assert is_generated(text)
    assert "**Licence**" in text
