"""What SECURITY.md promises: no network unasked, nothing of patients kept, no code executed."""

import json
import logging
import pickle
import re
import socket
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from data.test_dicom import dicom
from tiny import TinyBackbone, small, stripes

import diffmic
from diffmic import DiffMICClassifier, InputError, ModelFileError
from diffmic.convert import read_checkpoint
from diffmic.datasets import inspect, read_csv

PATIENT = {
    "PatientName": "Doe^Jane",
    "PatientID": "MRN-48151623",
    "PatientBirthDate": "19630511",
    "InstitutionName": "St. Elsewhere",
    "ReferringPhysicianName": "House^Gregory",
    "AccessionNumber": "ACC-7734",
    "StudyDescription": "Secretstudy",
}
WORDS = ("Doe", "Jane", "MRN-48151623", "19630511", "Elsewhere", "House", "ACC-7734", "Secretstudy")


@pytest.fixture
def no_network(monkeypatch):
    """Any use of the network is an error, and is remembered if someone catches it."""
    asked = []

    def refuse(*arguments, **options):
        asked.append(arguments)
        raise AssertionError(f"Something asked for the network: {arguments}")

    for name in ("connect", "connect_ex", "sendto", "bind"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "gethostbyname", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    yield
    assert not asked


@pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")
def test_nothing_uses_the_network_unasked(no_network, tmp_path):
    X, y = stripes(40)
    clf = DiffMICClassifier(**small(max_epochs=1, backbone="test_resnet", pretrained=False))
    clf.fit(X, y).calibrate(X, y).conformalize(X, y)
    clf.evaluate(X, y)
    clf.explain(X[:2])
    clf.predict_uncertainty(X[:2])
    clf.save_pretrained(tmp_path)
    loaded = DiffMICClassifier.from_pretrained(tmp_path, device="cpu")
    pickle.loads(pickle.dumps(loaded)).predict(X[:2])
    inspect(X, y)
    diffmic.list_pretrained()


@pytest.fixture
def studies(tmp_path):
    """DICOM files, all of whose tags of the patient are filled, with a table of their labels."""
    folder = tmp_path / "studies"
    folder.mkdir()
    X, y = stripes(30)
    for number, pixels in enumerate(X):
        (folder / f"{number}.dcm").write_bytes(dicom(pixels.astype(np.int16), **PATIENT))
    rows = "".join(f"{n}.dcm,{label},p{n // 2}\n" for n, label in enumerate(y))
    (folder / "labels.csv").write_text("file,label,patient\n" + rows)
    return folder


def test_nothing_of_a_patient_is_saved_logged_or_said(studies, tmp_path, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    table = read_csv(studies / "labels.csv", group="patient")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        clf = DiffMICClassifier(**small(max_epochs=1, verbose=1)).fit(table)
        proba = clf.predict_proba([studies / "0.dcm"])
        clf.explain([studies / "0.dcm"])
        report = clf.evaluate(table)
        said = [str(inspect(table)), repr(table), repr(clf), str(report), str(vars(clf).keys())]
    assert proba.shape == (1, 3)
    content = (studies / "0.dcm").read_bytes()
    for damaged in (content[:-30], content.replace(b"MONOCHROME2", b"XONOCHROME2"), content[:200]):
        (studies / "0.dcm").write_bytes(damaged)
        with pytest.raises(InputError) as error:
            clf.predict([studies / "0.dcm"])
        reason = error.value
        while reason is not None:  # what a traceback shows
            said.append(str(reason))
            reason = reason.__cause__ or reason.__context__
    clf.save_pretrained(tmp_path / "model")
    said += [str(warning.message) for warning in caught]
    said += [record.getMessage() for record in caplog.records]
    said += capfd.readouterr()
    kept = [file.read_bytes() for file in (tmp_path / "model").iterdir()] + [pickle.dumps(clf)]
    for word in WORDS:
        assert not [text for text in said if word in text]
        assert not [content for content in kept if word.encode() in content]
    # Nor are names of files and patients in a model.
    assert not [
        content for content in kept if b".dcm" in content or str(studies).encode() in content
    ]


class Trap:
    """Code that runs when it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("sprung"),)


@pytest.mark.parametrize("place", ["config.json", "model.safetensors"])
@pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")
def test_a_pickle_in_place_of_a_file_is_not_run(fitted, place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fitted.save_pretrained("model")
    for content in (pickle.dumps(Trap()), trapped_checkpoint()):
        (tmp_path / "model" / place).write_bytes(content)
        with pytest.raises(ModelFileError):
            DiffMICClassifier.from_pretrained("model", backbone=TinyBackbone(), device="cpu")
        Path("checkpoint.pt").write_bytes(content)
        with pytest.raises(ModelFileError):
            read_checkpoint("checkpoint.pt")
        weights = small(backbone="test_resnet", pretrained="checkpoint.pt", max_epochs=1)
        with pytest.raises(diffmic.DiffMICError):
            DiffMICClassifier(**weights).fit(*stripes(12))
    assert not Path("sprung").exists()


def trapped_checkpoint():
    torch.save({"state_dict": Trap()}, "trap.pt")
    return Path("trap.pt").read_bytes()


def test_a_configuration_imports_nothing(fitted, tmp_path, monkeypatch):
    """Names of modules in a file are words for messages."""
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    fitted.save_pretrained(tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    text = re.sub(r'"module": "[^"]*"', '"module": "trap.Net"', file.read_text())
    config = json.loads(text)
    config["network"]["architecture"]["denoiser"] = {"own": "trap.Net"}
    for changed in (text, json.dumps(config)):
        file.write_text(changed)
        with pytest.raises(ModelFileError, match=r"trap\.Net"):
            DiffMICClassifier.from_pretrained(tmp_path / "model", device="cpu")
