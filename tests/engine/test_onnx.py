"""Models exported as ONNX, and the engine of ONNX Runtime."""

import copy
import json
import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import RECIPE, TinyBackbone, small, stripes
from torch import nn

from diffmic import DiffMICClassifier, InputError, ModelFileError
from diffmic.engine.reduced import reduced
from diffmic.model import DiffusionSettings
from diffmic.runtime import OnnxClassifier

pytestmark = [
    pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning"),
    pytest.mark.slow,  # an export takes seconds
]
DPM = replace(RECIPE, diffusion=DiffusionSettings(sampler="dpm-solver++", readout="last"))
OWN = replace(RECIPE, cached=False, n_cached_views=0)
KINDS = {
    "pixel crops": {
        "region_backbone": TinyBackbone(),
        "region_size": 16,
        "n_regions": 2,
        "recipe": OWN,
    },
    "dpm-solver": {"recipe": DPM},
}


def fitted(**parameters):
    X, y = stripes(60)
    return DiffMICClassifier(**small(max_epochs=1, **parameters)).fit(X, y), X, y


@pytest.fixture(scope="module")
def gray():
    return fitted()


@pytest.fixture(scope="module")
def exported(gray, tmp_path_factory):
    file = tmp_path_factory.mktemp("onnx") / "model.onnx"
    assert gray[0].export_onnx(file) == file
    return OnnxClassifier(file)


@pytest.mark.parametrize("n_images", [1, 2, 7])
@pytest.mark.parametrize("stage", ["diffusion", "prior"])
def test_any_number_of_images_gets_the_probabilities_of_the_estimator(
    gray, exported, n_images, stage
):
    clf, X, _ = gray
    found = exported.predict_proba(X[:n_images], stage=stage)
    np.testing.assert_allclose(found, clf.predict_proba(X[:n_images], stage=stage), atol=1e-5)


def test_an_image_does_not_depend_on_its_batch(gray, exported):
    X = gray[1]
    np.testing.assert_allclose(
        exported.predict_proba(X[:9], batch_size=4), exported.predict_proba(X[:9]), atol=1e-6
    )


def test_metadata_tell_what_a_program_needs(gray, exported):
    clf = gray[0]
    assert exported.classes_.tolist() == clf.classes_.tolist()
    assert exported.task_ == "multiclass"
    assert exported.image_size_ == clf.image_size_
    assert exported.metadata_["num_steps"] == 3
    assert exported.metadata_["n_draws"] == 2
    assert (exported.predict(gray[1]) == clf.predict(gray[1])).mean() > 0.98


@pytest.mark.parametrize("kind", KINDS)
def test_other_architectures_and_options(kind, tmp_path):
    clf, X, _ = fitted(**KINDS[kind])
    file = clf.export_onnx(tmp_path / "model.onnx", num_steps=2, n_draws=3)
    np.testing.assert_allclose(
        OnnxClassifier(file).predict_proba(X[:5]),
        clf.predict_proba(X[:5], num_steps=2, n_draws=3),
        atol=1e-5,
    )


def test_multilabel_decides_by_its_thresholds(tmp_path):
    X, y = stripes(80)
    Y = np.stack([y == 0, y == 1], axis=1).astype(int)
    clf = DiffMICClassifier(**small(max_epochs=1)).fit(X, Y)
    exported = OnnxClassifier(clf.export_onnx(tmp_path / "model.onnx"))
    np.testing.assert_allclose(exported.predict_proba(X), clf.predict_proba(X), atol=1e-5)
    assert (exported.predict(X) == clf.predict(X)).mean() > 0.98


def test_grades_are_decided_by_their_cut_points(tmp_path):
    clf, X, _ = fitted(task="ordinal")
    cuts = np.array([0.2, 0.4])
    clf.model_ = replace(clf.model_, thresholds={"diffusion": cuts, "prior": cuts})
    exported = OnnxClassifier(clf.export_onnx(tmp_path / "model.onnx"))
    for stage in ("diffusion", "prior"):
        expected = clf.predict(X, stage=stage)
        assert (expected != clf.predict_proba(X, stage=stage).argmax(axis=1)).any()
        assert (exported.predict(X, stage=stage) == expected).mean() > 0.98


def test_a_range_of_pixel_values_travels(tmp_path):
    X, y = stripes(60)
    deep = X.astype(np.uint16) * 16
    clf = DiffMICClassifier(**small(max_epochs=1)).fit(deep, y)
    exported = OnnxClassifier(clf.export_onnx(tmp_path / "model.onnx"))
    assert exported.metadata_["value_range"] == [0, 4095]
    np.testing.assert_allclose(exported.predict_proba(deep), clf.predict_proba(deep), atol=1e-5)


def test_a_model_that_stopped_before_the_diffusion_has_the_prior_alone(gray, tmp_path):
    clf, X, _ = gray
    prior = copy.copy(clf)
    kept = {"prior": clf.model_.calibrations["prior"]}
    prior.model_ = replace(clf.model_, calibrations=kept)
    exported = OnnxClassifier(prior.export_onnx(tmp_path / "model.onnx"))
    with pytest.raises(InputError, match=r"this model has \['prior'\]"):
        exported.predict_proba(X[:2])
    np.testing.assert_allclose(
        exported.predict_proba(X[:2], stage="prior"),
        clf.predict_proba(X[:2], stage="prior"),
        atol=1e-5,
    )


def test_what_cannot_be_exported_is_told(gray, tmp_path):
    clf = gray[0]
    with pytest.raises(InputError, match="no folder"):
        clf.export_onnx(tmp_path / "missing" / "model.onnx")
    with pytest.raises(InputError, match="is a folder"):
        clf.export_onnx(tmp_path)
    with pytest.raises(InputError, match="num_steps"):
        clf.export_onnx(tmp_path / "model.onnx", num_steps=0)
    views = copy.copy(clf).set_params(n_views=2)
    with pytest.raises(InputError, match="n_views=1"):
        views.export_onnx(tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


class Branching(nn.Module):
    """A backbone that asks for a value of its images."""

    def __init__(self):
        super().__init__()
        self.net = TinyBackbone()

    def forward(self, images):
        return self.net(images) if images.sum() > -1e9 else self.net(-images)


def test_a_backbone_that_branches_on_values_is_refused(tmp_path):
    clf, _, _ = fitted(backbone=Branching())
    with pytest.raises(InputError, match="cannot be exported"):
        clf.export_onnx(tmp_path / "model.onnx")
    with pytest.raises(InputError, match="cannot be exported by torch"):
        clf.export_torch(tmp_path / "model.pt2")
    assert list(tmp_path.iterdir()) == []


def test_the_engine_of_onnx_runtime_predicts_as_torch_does(gray):
    clf, X, _ = gray
    fast = copy.copy(clf).compile("onnxruntime")
    assert fast.model_.engine.kind == "onnxruntime"
    for options in ({}, {"n_draws": 5}, {"num_steps": 7}):
        np.testing.assert_allclose(
            fast.predict_proba(X[:5], **options), clf.predict_proba(X[:5], **options), atol=1e-5
        )
    found, expected = fast.explain(X[:3]), clf.explain(X[:3])
    np.testing.assert_allclose(found.saliency, expected.saliency, atol=1e-4)
    again = pickle.loads(pickle.dumps(fast))
    assert again.model_.engine.kind == "auto"
    np.testing.assert_allclose(again.predict_proba(X[:5]), clf.predict_proba(X[:5]), atol=1e-5)


def test_a_mistake_of_onnx_runtime_is_found(gray, monkeypatch):
    from diffmic.engine import onnx

    run = onnx._run
    monkeypatch.setattr(onnx, "_run", lambda *a: [x + 0.1 for x in run(*a)])
    with pytest.raises(InputError, match="other scores than torch"):
        copy.copy(gray[0]).compile("onnxruntime")


def test_missing_packages_are_named(gray, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match=r"diffmic\[onnx\]"):
        gray[0].export_onnx(tmp_path / "model.onnx")


def feeds_of(X):
    pixels = np.repeat(X[:, None], 3, axis=1)
    return [{"images": pixels[i : i + 8]} for i in range(0, len(X), 8)]


@pytest.fixture(scope="module")
def graph(gray, tmp_path_factory):
    import onnx

    return onnx.load(gray[0].export_onnx(tmp_path_factory.mktemp("onnx") / "model.onnx"))


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_weights_of_fewer_bits_are_compared_with_those_of_float32(gray, graph, precision):
    X = gray[1]
    found, largest = reduced(graph, precision, feeds_of(X), tolerance=0.9)
    clf = OnnxClassifier(found.SerializeToString())
    whole = OnnxClassifier(graph.SerializeToString())
    apart = max(
        abs(clf.predict_proba(X, stage=stage) - whole.predict_proba(X, stage=stage)).max()
        for stage in ("diffusion", "prior")
    )
    assert 0 < largest == pytest.approx(apart, abs=1e-6)
    assert largest < {"float16": 0.02, "int8": 0.5}[precision]
    stored = {tensor.data_type for tensor in found.graph.initializer}
    assert stored & {"float16": {10}, "int8": {3}}[precision]
    with pytest.raises(InputError, match=f"In {precision}.* of 60 images.*Nothing was written"):
        reduced(graph, precision, feeds_of(X), tolerance=largest / 2)


def test_a_file_of_half_precision(gray, exported, tmp_path):
    clf, X, _ = gray
    file = clf.export_onnx(tmp_path / "half.onnx", precision="float16", images=X[:20])
    half = OnnxClassifier(file)
    assert half.metadata_["precision"] == "float16"
    assert half.metadata_["largest_difference"] < 1e-5  # a fit rounds what it trains
    assert exported.metadata_["precision"] == "float32"
    np.testing.assert_allclose(half.predict_proba(X), clf.predict_proba(X), atol=1e-4)


def test_what_other_precisions_need_is_told(gray, tmp_path):
    clf, X, _ = gray
    file = tmp_path / "model.onnx"
    for options, message in [
        ({"precision": "int4"}, "precision is 'int4'"),
        ({"precision": "int8"}, "pass images"),
        ({"images": X}, "float16"),
        ({"precision": "int8", "images": X, "tolerance": 0}, "tolerance is 0"),
        ({"precision": "int8", "images": X[:0]}, "image"),
    ]:
        with pytest.raises(InputError, match=message):
            clf.export_onnx(file, **options)
    assert not file.exists()


LOADED = """
import sys
sys.modules["diffmic"] = None  # importing it fails
import torch
program = torch.export.load(sys.argv[1], extra_files=(extra := {"diffmic.json": ""})).module()
images = torch.load(sys.argv[2], weights_only=True)
torch.save([program(images[:n])[0] for n in (1, 2, 7)], sys.argv[2])
print(extra["diffmic.json"])
"""


def test_a_program_of_torch_needs_no_diffmic(gray, tmp_path):
    clf, X, _ = gray
    file = clf.export_torch(tmp_path / "model.pt2")
    torch.save(torch.from_numpy(X[:7])[:, None].expand(-1, 3, -1, -1), tmp_path / "images.pt")
    command = [sys.executable, "-c", LOADED, str(file), str(tmp_path / "images.pt")]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["classes"] == clf.classes_.tolist()
    expected = clf.predict_proba(X[:7])
    for found in torch.load(tmp_path / "images.pt"):
        np.testing.assert_allclose(found, expected[: len(found)], atol=1e-5)


def test_torch_is_left_as_it_was(gray, tmp_path):
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    gray[0].export_onnx(tmp_path / "model.onnx")
    assert torch.equal(before, torch.get_rng_state())
    assert threads == torch.get_num_threads()


@pytest.mark.parametrize("content", [b"", b"nonsense" * 100], ids=["empty", "nonsense"])
def test_damaged_files_are_refused(content, tmp_path):
    file = tmp_path / "model.onnx"
    file.write_bytes(content)
    with pytest.raises(ModelFileError, match="no ONNX file"):
        OnnxClassifier(file)
    with pytest.raises(ModelFileError, match="no file"):
        OnnxClassifier(tmp_path / "other.onnx")


def test_a_foreign_file_is_refused(exported, gray, tmp_path):
    import onnx

    file = gray[0].export_onnx(tmp_path / "model.onnx")
    graph = onnx.load(file)
    kept = [entry for entry in graph.metadata_props if entry.key != "diffmic"]
    del graph.metadata_props[:]
    graph.metadata_props.extend(kept)
    onnx.save(graph, file)
    with pytest.raises(ModelFileError, match="not written by"):
        OnnxClassifier(file)
