"""10,000 damaged model files: each is refused with a documented error, or predicts numbers.

Each mutation follows from its seed: a failure names the seeds, by which it can be repeated.
"""

import hashlib
import json

import numpy as np
import pytest
from fuzz.attempts import attempt_all
from fuzz.mutations import of_bytes, of_json, of_safetensors
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from states import STATES, X, needed
from tiny import small, stripes

from diffmic import DiffMICClassifier
from diffmic.runtime import OnnxClassifier
from diffmic.training import checkpoint_file

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]
SAVED = ("integers, conformal", "labels partly known", "v1")


@pytest.fixture(scope="module", params=SAVED)
def saved(request, tmp_path_factory):
    """Folder of a model, and how to load it."""
    folder = tmp_path_factory.mktemp("model")
    STATES[request.param]().save_pretrained(folder)
    return folder, needed(request.param)


def used(folder, options):
    clf = DiffMICClassifier.from_pretrained(folder, **options)
    assert np.isfinite(clf.predict_proba(X[:2])).all()
    clf.predict(X[:2])


def test_configurations_of_changed_values(saved, tmp_path):
    folder, options = saved
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())

    def attempt(rng):
        (tmp_path / "config.json").write_bytes(of_json(rng, config))
        used(tmp_path, options)

    found, faults = attempt_all(range(1200), attempt)
    assert not faults
    assert found["refused"] > 600
    assert found["used"] > 100  # not everything that a file says is needed


def test_configurations_of_changed_bytes(saved, tmp_path):
    folder, options = saved
    config = (folder / "config.json").read_bytes()
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())

    def attempt(rng):
        (tmp_path / "config.json").write_bytes(of_bytes(rng, config))
        used(tmp_path, options)

    found, faults = attempt_all(range(900), attempt)
    assert not faults
    assert found["refused"] > 800


@pytest.mark.parametrize("change", [of_safetensors, of_bytes])
def test_weights_whose_checksum_fits(saved, tmp_path, change):
    folder, options = saved
    config = json.loads((folder / "config.json").read_text())
    weights = (folder / "model.safetensors").read_bytes()

    def attempt(rng):
        changed = change(rng, weights)
        (tmp_path / "model.safetensors").write_bytes(changed)
        told = config | {"weights_sha256": hashlib.sha256(changed).hexdigest()}
        (tmp_path / "config.json").write_text(json.dumps(told))
        used(tmp_path, options)

    found, faults = attempt_all(range(500), attempt)
    assert not faults
    assert found["refused"] > 400


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    clf = STATES["booleans, tuned"]()
    return clf.export_onnx(tmp_path_factory.mktemp("onnx") / "model.onnx").read_bytes()


def predicted(content):
    clf = OnnxClassifier(content, num_threads=1)
    assert np.isfinite(clf.predict_proba(X[:2])).all()
    clf.predict(X[:2])


def test_exported_models_of_changed_bytes(exported):
    found, faults = attempt_all(range(400), lambda rng: predicted(of_bytes(rng, exported)))
    assert not faults
    assert found["refused"] > 200


def test_exported_models_of_changed_metadata(exported):
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(exported)
    (entry,) = [entry for entry in model.metadata_props if entry.key == "diffmic"]
    told = json.loads(entry.value)

    def attempt(rng):
        entry.value = of_json(rng, told).decode()
        predicted(model.SerializeToString())

    found, faults = attempt_all(range(400), attempt)
    assert not faults
    assert found["refused"] > 200


def test_checkpoints_of_training(tmp_path):
    """Of changed bytes; and of changed values, whose checksum fits."""
    folder, (images, y) = tmp_path / "checkpoints", stripes(24)
    DiffMICClassifier(**small(max_epochs=1, checkpoint_dir=folder)).fit(images, y)
    file = max(folder.glob("*.safetensors"), key=lambda file: file.stat().st_size)
    content, tensors = file.read_bytes(), load_file(file)
    with safe_open(file, framework="pt") as header:
        told = header.metadata()
    values = json.loads(told["values"])

    def attempt(rng):
        if rng.random() < 0.5:
            change = of_safetensors if rng.random() < 0.5 else of_bytes
            file.write_bytes(change(rng, content))
        else:
            text = of_json(rng, values).decode()
            changed = told | {"values": text, "sha256": checkpoint_file._digest(text, tensors)}
            save_file(tensors, file, metadata=changed)
        checkpoint_file.read(file)

    found, faults = attempt_all(range(600), attempt)
    assert not faults
    assert found["refused"] > 300
