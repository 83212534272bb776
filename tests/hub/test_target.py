"""The folder of a save: nothing of somebody else is replaced, and ``~`` is the home folder."""

import json
from pathlib import Path

import numpy as np
import pytest
from tiny import TinyBackbone, small, stripes

from diffmic import DiffMICClassifier, InputError
from diffmic.hub.target import save_target

pytestmark = pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")
VIT = json.dumps({"model_type": "vit", "hidden_size": 768})
OURS = json.dumps({"format_version": 2, "weights_sha256": "0"})


@pytest.fixture(scope="module")
def fitted():
    return DiffMICClassifier(**small(max_epochs=1)).fit(*stripes(30))


def fill(folder, files):
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        if text is None:
            (folder / name).mkdir()
        else:
            (folder / name).write_text(text)


def everything(folder):
    return {
        str(file.relative_to(folder)): file.read_bytes() if file.is_file() else None
        for file in folder.rglob("*")
    }


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"config.json": VIT}, r"config\.json belongs to another model \(model_type: vit\)"),
        ({"config.json": '{"port": 80}'}, r"config\.json was not written by diffmic .*port"),
        ({"config.json": "[1, 2]"}, r"config\.json was not written by diffmic"),
        ({"config.json": ""}, r"config\.json was not written by diffmic"),
        ({"config.json": VIT, "pytorch_model.bin": "w"}, r"config\.json belongs to another model"),
        ({"model.safetensors": "weights"}, r"model\.safetensors is not of a model that diffmic"),
        ({"pytorch_model.bin": "weights"}, r"another model \(pytorch_model\.bin\)"),
        ({"README.md": "---\nlibrary_name: transformers\n---\n# Vit"}, "model of transformers"),
        ({".git": None, "main.py": ""}, r"folder of a project \(\.git"),
        ({"pyproject.toml": "", "README.md": "# Mine"}, r"folder of a project \(pyproject\.toml"),
        ({"config.json": None}, r"config\.json was not written by diffmic"),
    ],
    ids=str,
)
def test_a_folder_of_something_else_is_refused_and_left_as_it_was(fitted, tmp_path, files, message):
    fill(tmp_path / "theirs", files)
    before = everything(tmp_path)
    with pytest.raises(InputError, match=rf"{message}.*Nothing was written\. Give another folder"):
        fitted.save_pretrained(tmp_path / "theirs")
    assert everything(tmp_path) == before


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"metrics.csv": "1", "plots": None},
        {"README.md": "# Written before the model"},
        {
            ".git": None,
            ".gitattributes": "",
            "README.md": "---\nlicense: mit\n---\n",
            "LICENSE": "",
        },
        {"config.json": OURS, "model.safetensors": "old", ".git": None, "main.py": ""},
        {"config.json": "{", "README.md": "library_name: diffmic\n<!-- Made by diffmic; a card"},
    ],
    ids=str,
)
def test_a_folder_in_which_nothing_of_others_is_replaced_is_used(fitted, tmp_path, files):
    fill(tmp_path / "ours", files)
    fitted.save_pretrained(tmp_path / "ours")
    DiffMICClassifier.from_pretrained(tmp_path / "ours", backbone=TinyBackbone(), device="cpu")
    assert files.keys() <= {file.name for file in (tmp_path / "ours").iterdir()}


def test_neither_the_home_nor_the_root_folder_is_filled(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    for path in ("~", str(tmp_path), tmp_path / "a" / "..", Path(tmp_path.anchor)):
        with pytest.raises(InputError, match=r"your home folder|the root folder"):
            save_target(path)


@pytest.mark.parametrize(
    "path", [b"model", "a\0b", "x" * 5000, "file", "file/model", "b\udcf6se"], ids=repr
)
def test_what_cannot_be_a_folder_is_refused(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    with pytest.raises(InputError, match=r"path is|No folder can be made"):
        save_target(path)


def test_the_home_folder_has_a_short_name_wherever_a_path_goes_in(fitted, tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.chdir(tmp_path)
    for path in ("~/saved/model", Path("~/other")):
        fitted.save_pretrained(path)
        loaded = DiffMICClassifier.from_pretrained(path, backbone=TinyBackbone(), device="cpu")
        X = stripes(3)[0]
        np.testing.assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))
    assert {entry.name for entry in tmp_path.iterdir()} == {"home"}
    assert (home / "saved" / "model" / "config.json").is_file()
