"""Checkpoints with the names of the authors of DiffMIC-v2 become our networks."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from safetensors.torch import load_file, save_file
from torch import nn

from diffmic import DiffMICClassifier, InputError, ModelFileError
from diffmic.convert import (
    convert_checkpoint,
    convert_state_dict,
    convert_weights,
    read_checkpoint,
)
from diffmic.hub.authors import load_converted, sizes_of
from diffmic.model import NetworkPlan, build_network, resolve_architecture
from diffmic.random import LocalRNG
from diffmic.tasks import MULTICLASS, MULTILABEL
from diffmic.training import resolve_recipe

pytestmark = pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")
GOLDEN = Path(__file__).parents[1] / "golden"
ARCHITECTURE = replace(
    resolve_architecture("paper-v2"),
    prior_backbone="test_resnet",
    region_backbone="test_resnet",
    feature_dim=16,
    num_train_timesteps=1000,
)
# What the encoders and the prior are called is not part of the table: the names are made up.
RENAME = {
    "aux.": "prior.",
    "enc.": "image_encoder.",
    "enc_l.": "region_encoder.",
    "proj.": "context.image_projection.",
    "proj_l.": "context.region_projection.",
}


def golden(name):
    return load_file(next(GOLDEN.glob(f"{name}_*.safetensors")))


def golden_checkpoint():
    """The weights of the golden denoiser, under the authors' names."""
    w = {name[2:]: t for name, t in golden("d2").items() if name.startswith("w.")}
    found = {"cond_weight": w["fusion_logits"][None]}
    for theirs, name in {
        "norm": "image_bn",
        "norm_l": "patch_bn",
        **{f"unetnorm{n}": f"layer{n}.bn" for n in (1, 2, 3)},
    }.items():
        found[f"{theirs}.weight"], found[f"{theirs}.bias"] = w[f"{name}.gamma"], w[f"{name}.beta"]
        found[f"{theirs}.running_mean"] = w[f"{name}.mean"]
        found[f"{theirs}.running_var"] = w[f"{name}.var"]
        found[f"{theirs}.num_batches_tracked"] = torch.tensor(7)
    for n in (1, 2, 3):
        found[f"lin{n}.lin.weight"] = w[f"layer{n}.weight"][..., None, None]
        found[f"lin{n}.lin.bias"] = w[f"layer{n}.bias"]
        found[f"lin{n}.embed.weight"] = w[f"layer{n}.time_embedding"]
    found["lin4.weight"], found["lin4.bias"] = w["out.weight"][..., None, None], w["out.bias"]
    return found


def paper_network(task=MULTICLASS):
    plan = NetworkPlan(
        backbone="test_resnet",
        architecture=ARCHITECTURE,
        image_size=96,
        num_classes=3,
        task=task,
        diffusion=resolve_recipe("paper-v2").diffusion,
    )
    with LocalRNG(0):
        return build_network(plan).eval()


def whole_checkpoint(network, **others):
    """The golden denoiser, and random encoders and prior under made-up names."""
    found = golden_checkpoint()
    for name, tensor in network.state_dict().items():
        for theirs, ours in RENAME.items():
            if name.startswith(ours):
                found[theirs + name.removeprefix(ours)] = tensor.clone()
    return found | others


@pytest.fixture(scope="module")
def network():
    return paper_network()


def last(maps):
    return maps.movedim(-3, -1)


@torch.no_grad()
def test_the_golden_weights_under_the_authors_names_give_the_golden_result(network):
    g, tensors = golden("d2"), convert_state_dict(whole_checkpoint(network), rename=RENAME)
    assert sizes_of(tensors) == (3, 16, 6, 1000)
    loaded = paper_network()
    load_converted(loaded, tensors)
    loaded.context.image_projection = loaded.context.region_projection = nn.Identity()
    context = loaded.context(g["image_feature"], g["patch_features"])
    torch.testing.assert_close(context, g["fused_feature"], atol=5e-6, rtol=0)
    output = loaded.denoiser(last(g["guidance_map"]), last(g["noisy_map"]), g["timesteps"], context)
    torch.testing.assert_close(output, last(g["eps_eval"]), atol=5e-6, rtol=0)


@torch.no_grad()
def test_a_converted_network_samples_the_golden_trajectory(network):
    """From the golden start, features and guidance to the golden scores, through ``sample``."""
    e = golden("e")
    loaded = paper_network()
    load_converted(loaded, convert_state_dict(whole_checkpoint(network), rename=RENAME))
    loaded.context.image_projection = loaded.context.region_projection = nn.Identity()
    start = last(e["y"][0])[:, 0]  # distance d occurs at (0, d): (B, K, C)
    guidance = last(e["guidance_map"])[:, 0]
    conditions = loaded.encode(torch.rand(2, 3, 96, 96))
    conditions = replace(
        conditions,
        image_features=e["image_feature"],
        region_features=e["patch_features"],
        global_logits=guidance[:, 0],
        local_logits=guidance[:, -1],
    )
    for image in range(2):  # each image has a start of its own
        one = conditions[slice(image, image + 1)]
        scores = loaded.sample(one, start[image][None], num_steps=10)
        torch.testing.assert_close(scores[:, 0], e["scores"][image : image + 1], atol=2e-5, rtol=0)


def wrapped(kind, tensors):
    if kind == "module":
        return {f"module.{name}": t for name, t in tensors.items()}
    if kind == "compiled":
        return {f"module._orig_mod.{name}": t for name, t in tensors.items()}
    if kind == "lightning":
        inside = {f"model.{name}": t for name, t in tensors.items()}
        return {"state_dict": inside, "epoch": 3, "hyper_parameters": {"lr": 0.1}}
    if kind == "nested":
        return {"model": {"state_dict": tensors}, "optimizer": {"state": {}, "param_groups": []}}
    if kind == "list":
        return [tensors, {"state": {}, "param_groups": []}, 10, 20]
    return tensors


@pytest.mark.parametrize("kind", ["plain", "module", "compiled", "lightning", "nested", "list"])
def test_wrappers_of_frameworks_are_taken_off(tmp_path, kind):
    plain = golden_checkpoint()
    torch.save(wrapped(kind, plain), tmp_path / "checkpoint.pth")
    found = convert_state_dict(read_checkpoint(tmp_path / "checkpoint.pth"))
    expected = convert_state_dict(plain)
    assert found.keys() == expected.keys()
    assert all(found[name].equal(tensor) for name, tensor in expected.items())


def test_safetensors_and_half_precision_are_read(tmp_path):
    halves = {n: t.half() if t.is_floating_point() else t for n, t in golden_checkpoint().items()}
    save_file(halves, tmp_path / "checkpoint.bin")  # known by its content
    found = convert_state_dict(read_checkpoint(tmp_path / "checkpoint.bin"))
    assert found["denoiser.out.bias"].dtype == torch.float32
    assert found["denoiser.layers.0.gain"].shape == (1000, 16)


def test_counters_may_be_missing():
    plain = {n: t for n, t in golden_checkpoint().items() if "num_batches" not in n}
    assert convert_state_dict(plain).keys() == convert_state_dict(golden_checkpoint()).keys()


def test_what_is_unknown_or_missing_is_listed():
    found = golden_checkpoint() | {"extra.weight": torch.zeros(2)}
    del found["unetnorm2.running_var"], found["lin1.embed.weight"]
    with pytest.raises(ModelFileError, match=r"extra\.weight") as caught:
        convert_state_dict(found)
    for name in ("'unetnorm2.running_var'", "'lin1.embed.weight'", "1 unknown", "2 missing"):
        assert name in str(caught.value)
    with pytest.raises(ModelFileError, match="no unknown names"):
        convert_state_dict(found, ignore=["extra."])


@pytest.mark.parametrize(
    ("name", "tensor", "said"),
    [
        ("lin2.lin.weight", torch.zeros(16, 15, 1, 1), "lin2.lin.weight becomes"),
        ("lin2.lin.weight", torch.zeros(16, 16, 3, 3), "lin2.lin.weight becomes"),
        ("cond_weight", torch.zeros(2, 16, 7), "cond_weight cannot be"),
        ("cond_weight", torch.zeros(1, 15, 7), "cond_weight becomes"),
        ("lin3.embed.weight", torch.zeros(11, 16), "lin3.embed.weight becomes"),
        ("lin1.embed.weight", torch.zeros(1, 16), "cannot be"),
        ("norm.weight", torch.zeros(17), "norm.weight becomes"),
        ("norm.running_var", torch.full((16,), torch.nan), "NaN"),
        ("lin4.bias", torch.zeros(3, dtype=torch.long), "not floats"),
        ("lin4.bias", torch.zeros(3, dtype=torch.complex64), "complex"),
        ("lin4.weight", torch.zeros(()), "cannot be"),
    ],
)
def test_tensors_that_do_not_fit_are_named(name, tensor, said):
    with pytest.raises(ModelFileError, match=said):
        convert_state_dict(golden_checkpoint() | {name: tensor})


def test_tensors_of_other_backbones_are_listed(network):
    found = convert_state_dict(whole_checkpoint(network), rename=RENAME)
    found["prior.classifier.weight"] = torch.zeros(3, 5)
    found["nowhere"] = found.pop("prior.saliency.weight")
    with pytest.raises(ModelFileError, match=r"nowhere.*prior\.saliency.*\(3, 5\) instead of"):
        load_converted(paper_network(), found)


class Danger:
    def __reduce__(self):
        return (os.mkdir, ("/nowhere/at/all",))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no file"),
        (b"", "no checkpoint"),
        (b"hello, this is text", "no checkpoint"),
        ({"model": {"a": torch.zeros(1)}, "state_dict": {"a": torch.zeros(1)}}, "2 may be"),
        ({"weights": {"a": torch.zeros(1)}}, "0 may be"),
        (Danger(), "more than tensors"),
        ({"a": torch.zeros(1), "module.a": torch.zeros(1)}, "twice"),
    ],
)
def test_files_that_are_no_checkpoints_are_refused(tmp_path, content, said):
    file = tmp_path / "checkpoint.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        torch.save(content, file)
    with pytest.raises(ModelFileError, match=said):
        read_checkpoint(file)


def test_a_key_chooses_among_several(tmp_path):
    plain = golden_checkpoint()
    torch.save({"model": plain, "extra": {"ema": plain}}, tmp_path / "c.pth")
    assert read_checkpoint(tmp_path / "c.pth", key="extra.ema").keys() == plain.keys()
    with pytest.raises(ModelFileError, match="'other'"):
        read_checkpoint(tmp_path / "c.pth", key="other")


def test_two_denoisers_in_a_file_are_refused():
    plain = golden_checkpoint()
    both = {f"{part}.{name}": t for part in ("model", "ema") for name, t in plain.items()}
    with pytest.raises(ModelFileError, match="several denoisers"):
        convert_state_dict(both)
    assert convert_state_dict(both, ignore=["ema."]).keys() == convert_state_dict(plain).keys()


def converted(tmp_path, network, **parameters):
    torch.save(whole_checkpoint(network), tmp_path / "checkpoint.pth")
    return convert_checkpoint(
        tmp_path / "checkpoint.pth",
        rename=RENAME,
        **{
            "classes": ["a", "b", "c"],
            "backbone": "test_resnet",
            "architecture": ARCHITECTURE,
            "image_size": 96,
            **parameters,
        },
    )


def test_a_converted_model_predicts_is_saved_and_loads(tmp_path, network):
    clf = converted(tmp_path, network, class_names=["A", "B", "C"])
    X = np.random.RandomState(0).randint(0, 256, (4, 96, 96, 3), np.uint8)
    proba = clf.predict_proba(X)
    assert_allclose(proba.sum(axis=1), 1)
    assert list(clf.class_names_) == ["A", "B", "C"]
    clf.save_pretrained(tmp_path / "model")
    loaded = DiffMICClassifier.from_pretrained(tmp_path / "model", device="cpu")
    assert_allclose(loaded.predict_proba(X), proba, atol=1e-6)
    assert "converted from another project" in (tmp_path / "model" / "README.md").read_text()


def test_a_multilabel_model_has_thresholds(tmp_path):
    clf = converted(tmp_path, paper_network(MULTILABEL), classes=[0, 1, 2], task="multilabel")
    assert clf.predict(np.zeros((2, 96, 96, 3), np.uint8)).shape == (2, 3)
    clf.save_pretrained(tmp_path / "model")


@pytest.mark.parametrize(
    ("parameters", "error", "said"),
    [
        ({"classes": ["a", "b"]}, InputError, "3 classes"),
        ({"classes": ["a", "b", "b"]}, InputError, "different"),
        ({"image_size": "auto"}, InputError, "image_size"),
        ({"image_size": 0}, InputError, "image_size"),
        ({"backbone": "resnet10t"}, ModelFileError, "missing"),
        ({"nonsense": 1}, TypeError, "nonsense"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(tmp_path, network, parameters, error, said):
    with pytest.raises(error, match=said):
        converted(tmp_path, network, **parameters)


def run(*options):
    return subprocess.run(
        [sys.executable, "-c", "from diffmic.cli import app; app()", "convert", *map(str, options)],
        capture_output=True,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "COLUMNS": "200"},
    )


def test_the_command_writes_weights(tmp_path):
    torch.save(wrapped("lightning", golden_checkpoint()), tmp_path / "c.ckpt")
    done = run(tmp_path / "c.ckpt", "--to", tmp_path / "ours.safetensors")
    assert done.returncode == 0, done.stderr
    assert load_file(tmp_path / "ours.safetensors")["denoiser.out.weight"].shape == (3, 16)


@pytest.mark.slow
def test_the_command_writes_a_model_from_two_files(tmp_path, network):
    whole = whole_checkpoint(network)
    prior = {name: t for name, t in whole.items() if name.startswith("aux.")}
    torch.save(prior, tmp_path / "prior.pth")
    torch.save({n: t for n, t in whole.items() if n not in prior}, tmp_path / "denoiser.pth")
    options = ["--classes", "0,1,2", "--image-size", "96", "--region-size", "32"]
    for name in ("--backbone", "--prior-backbone", "--region-backbone"):
        options += [name, "test_resnet"]
    for theirs, ours in RENAME.items():
        options += ["--rename", f"{theirs}={ours}"]
    files = [tmp_path / "denoiser.pth", tmp_path / "prior.pth"]
    done = run(*files, "--to", tmp_path / "model", *options)
    assert done.returncode == 0, done.stderr
    clf = DiffMICClassifier.from_pretrained(tmp_path / "model", device="cpu")
    assert clf.classes_.tolist() == [0, 1, 2]
    X = np.random.RandomState(0).randint(0, 256, (2, 96, 96, 3), np.uint8)
    again = converted(tmp_path, network)
    assert_allclose(clf.predict_proba(X), again.predict_proba(X), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--to", "model"], "needs --classes"),
        (["--to", "model", "--classes", "a,b"], "3 classes"),
        (["--to", "model", "--classes", "a,b,c"], "missing"),
        (["--to", "x.safetensors", "--rename", "nonsense"], "THEIRS=OURS"),
        (["--to", "x.safetensors", "--key", "nonsense"], "nonsense"),
    ],
)
def test_the_command_says_what_is_wrong_in_a_line(tmp_path, monkeypatch, options, said):
    from typer.testing import CliRunner

    from diffmic.cli import app

    monkeypatch.chdir(tmp_path)
    torch.save(golden_checkpoint(), tmp_path / "c.pth")
    result = CliRunner().invoke(app, ["convert", "c.pth", *options])
    assert result.exit_code == 1
    assert said in result.output
    assert "Traceback" not in result.output
    assert [file.name for file in tmp_path.iterdir()] == ["c.pth"]


def test_weights_do_not_replace_a_folder(tmp_path):
    torch.save(golden_checkpoint(), tmp_path / "c.pth")
    with pytest.raises(InputError, match="is a folder"):
        convert_weights(tmp_path / "c.pth", tmp_path)
