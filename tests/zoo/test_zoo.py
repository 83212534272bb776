"""The zoo's command trains, measures, saves and publishes."""

import importlib
import json
import shutil
import sys
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hub.hub_server import HubServer, use
from hub.test_format_1 import downgrade
from PIL import Image
from safetensors.torch import load_file
from tiny import RECIPE, stripes
from typer.testing import CliRunner

from diffmic import DiffMICClassifier, ModelCard
from diffmic.hub.card import is_generated
from diffmic.hub.configuration import FORMAT_VERSION
from diffmic.hub.files import digest
from diffmic.model import Architecture
from diffmic.published import BUNDLED, REGISTRY
from diffmic.tasks import MULTILABEL, ORDINAL

ROOT = Path(__file__).parents[2]
SETTINGS = {
    "backbone": "test_resnet",
    "pretrained": False,
    "image_size": 32,
    "max_epochs": 2,
    "recipe": RECIPE,
    # As files of format version 1 mean it.
    "architecture": Architecture(feature_dim=16, region_importance="paper", region_map="coarse"),
    "task": "ordinal",
}
pytestmark = [
    pytest.mark.benchmarks,
    pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning"),
]


@pytest.fixture
def zoo(monkeypatch):
    """The command's module, with one small model beside the real ones."""
    monkeypatch.syspath_prepend(str(ROOT))
    module = importlib.import_module("zoo.__main__")
    recipes = sys.modules["zoo.recipes"]
    small = recipes.ZooModel(
        "stripes",
        SETTINGS | {"class_names": ["none", "rising", "falling"]},
        ModelCard(summary="Tells stripes.", dataset="Stripes", license="apache-2.0"),
    )
    monkeypatch.setitem(recipes.ZOO, "diffmic-v2-stripes", small)
    return module


@pytest.fixture
def data(tmp_path):
    """A data set as those of the zoo: images, and a table with labels and splits."""
    folder = tmp_path / "data" / "stripes"
    folder.mkdir(parents=True)
    lines = ["file,label,split"]
    for i, (image, label) in enumerate(zip(*stripes(60), strict=True)):
        Image.fromarray(image).save(folder / f"{i}.png")
        lines.append(f"{i}.png,{label},{('train', 'train', 'val', 'test')[i % 4]}")
    (folder / "labels.csv").write_text("\n".join(lines))
    return tmp_path / "data"


def told(outcome):
    """What a command printed, without the frame that typer draws around an error."""
    return " ".join(outcome.output.replace("│", "").split())


def run(zoo, *arguments):
    return CliRunner().invoke(zoo.app, [str(argument) for argument in arguments])


def test_train_saves_a_model_whose_card_tells_what_was_measured(zoo, data, tmp_path):
    models, results = tmp_path / "models", tmp_path / "results"
    places = ("--data", data, "--models", models, "--results", results)
    options = ("--seed", 3, "--max-epochs", 1)
    outcome = run(zoo, "train", "diffmic-v2-stripes", *places, *options, "--verbose", 0)
    assert outcome.exit_code == 0, outcome.output
    record = json.loads((results / "diffmic-v2-stripes.json").read_text())
    assert record["command"].endswith("--seed 3 --max-epochs 1")
    assert record["versions"]["diffmic"] == version("diffmic")
    assert record["recipe"] == asdict(RECIPE)
    assert record["largest_change_by_half_precision"] == 0  # this recipe rounds the weights
    clf = DiffMICClassifier.from_pretrained(models / "diffmic-v2-stripes")
    assert clf.classes_.tolist() == [0, 1, 2]
    assert clf.class_names_ == ["none", "rising", "falling"]
    assert clf.card_.test_scores == record["test"]
    assert clf.card_.n_test == 15
    card = (models / "diffmic-v2-stripes" / "README.md").read_text()
    assert "One training run, seed 3, 1 epochs" in card
    assert f"| quadratic kappa | {record['test']['prior']['kappa']:.3f} (" in card
    paths = [data / "stripes" / f"{i}.png" for i in range(3, 60, 4)]
    y = [int(label) for label in stripes(60)[1][3::4]]
    for stage, scores in clf.evaluate(paths, y).items():
        assert scores == pytest.approx(record["test"][stage])


def test_a_model_learns_out_of_fold_predictions_as_soft_labels(zoo, data, tmp_path, monkeypatch):
    recipes = sys.modules["zoo.recipes"]
    how = recipes.OutOfFold({"max_epochs": 1}, share=0.25, n_folds=3)
    recipe = replace(recipes.ZOO["diffmic-v2-stripes"], out_of_fold=how)
    monkeypatch.setitem(recipes.ZOO, "diffmic-v2-stripes", recipe)
    results = tmp_path / "results"
    places = ("--data", data, "--results", results)
    train = ("train", "diffmic-v2-stripes", *places, "--models", tmp_path / "models")
    refused = run(zoo, *train)
    assert refused.exit_code == 2
    assert "predict diffmic-v2-stripes first" in told(refused)
    fits = []
    fit = DiffMICClassifier.fit

    def noted(self, X, y, **options):
        fits.append((X, y, options))
        return fit(self, X, y, **options)

    monkeypatch.setattr(DiffMICClassifier, "fit", noted)
    assert run(zoo, "predict", "diffmic-v2-stripes", *places, "--fold", 3).exit_code == 2
    assert run(zoo, "predict", "diffmic-v2-stripes", *places, "--fold", 0).exit_code == 0
    refused = run(zoo, *train)
    assert "has 10 predictions, not one for each" in " ".join(
        refused.output.replace("│", "").split()
    )
    fits.clear()
    outcome = run(zoo, "predict", "diffmic-v2-stripes", *places)
    assert outcome.exit_code == 0, outcome.output
    file = results / "out-of-fold" / "diffmic-v2-stripes.csv"
    rows = [line.split(",") for line in file.read_text().splitlines()[1:]]
    training = {f"{i}.png": int(y) for i, y in enumerate(stripes(60)[1]) if i % 4 < 2}
    assert sorted(row[0] for row in rows) == sorted(training)
    for number, (X, y, _) in enumerate(fits):
        seen, left = {Path(x).name for x in X}, {row[0] for row in rows if row[1] == str(number)}
        assert seen | left == set(training)
        assert not seen & left
        assert [training[Path(x).name] for x in X] == y.tolist()
    before = file.read_text()
    assert run(zoo, "predict", "diffmic-v2-stripes", *places, "--fold", 1).exit_code == 0
    assert file.read_text() == before

    outcome = run(zoo, *train, "--verbose", 0)
    assert outcome.exit_code == 0, outcome.output
    X, y, options = fits[-1]
    predicted = {row[0]: np.array(row[2:], float) for row in rows}
    for path, label, soft in zip(X, y, options["soft_labels"], strict=True):
        expected = 0.75 * np.eye(3)[label] + 0.25 * predicted[Path(path).name]
        np.testing.assert_allclose(soft, expected, atol=1e-12)
    record = json.loads((results / "diffmic-v2-stripes.json").read_text())
    assert record["out_of_fold"] == asdict(how)

    changed = replace(recipe, out_of_fold=replace(how, parameters={"max_epochs": 2}))
    monkeypatch.setitem(recipes.ZOO, "diffmic-v2-stripes", changed)
    assert "was made with {'parameters': {'max_epochs': 1}" in told(run(zoo, *train))


def test_a_model_that_learns_labels_as_they_are_predicts_no_fold(zoo, data, tmp_path):
    refused = run(zoo, "predict", "diffmic-v2-stripes", "--data", data, "--results", tmp_path)
    assert refused.exit_code == 2
    assert "learns the labels as they are" in told(refused)


def test_push_publishes_the_trained_model_in_half_precision(zoo, data, tmp_path, monkeypatch):
    places = ("--models", tmp_path / "models", "--results", tmp_path / "results")
    told = ("--data", data, "--verbose", 0)
    assert run(zoo, "train", "diffmic-v2-stripes", *places, *told).exit_code == 0
    models = tmp_path / "models" / "diffmic-v2-stripes"
    trained = (models / "model.safetensors").read_bytes()
    with HubServer() as hub:
        use(monkeypatch, hub, tmp_path / "cache")
        monkeypatch.setenv("HF_TOKEN", "hf_good")
        outcome = run(
            zoo, "push", "diffmic-v2-stripes", "--repository", "org/diffmic-v2-stripes", *places
        )
        assert outcome.exit_code == 0, outcome.output
        files = hub.files("org/diffmic-v2-stripes")
        assert hub.url in outcome.output
        assert len(hub.commits("org/diffmic-v2-stripes")) == 2  # the Hub's own, and ours
    assert files["model.safetensors"] == trained
    assert files["NOTICE"] == (models / "NOTICE").read_bytes()
    assert b"Test part, 15 images" in files["README.md"]


def test_push_needs_nothing_but_a_token_for_the_model_of_the_package(zoo, tmp_path, monkeypatch):
    """Its measures were recorded before the recipe and the versions were."""
    bundled = BUNDLED / "diffmic-v2-aptos"
    with HubServer() as hub:
        use(monkeypatch, hub, tmp_path / "cache")
        monkeypatch.setenv("HF_TOKEN", "hf_good")
        outcome = run(zoo, "push", "diffmic-v2-aptos", "--models", tmp_path / "models")
        assert outcome.exit_code == 0, outcome.output
        files = hub.files("tester/diffmic-v2-aptos")
        assert hub.unknown == []
    for name in ("model.safetensors", "NOTICE"):
        assert files[name] == (bundled / name).read_bytes()
    assert b'from_pretrained("tester/diffmic-v2-aptos")' in files["README.md"]
    assert b"Test part, 701 images" in files["README.md"]


def test_push_without_a_token_says_what_to_do(zoo, tmp_path, monkeypatch):
    with HubServer() as hub:
        use(monkeypatch, hub, tmp_path / "cache")
        outcome = run(zoo, "push", "diffmic-v2-aptos", "--models", tmp_path / "models")
        assert outcome.exit_code == 2
        assert "hf auth login" in outcome.output
        assert "--repository" in outcome.output


def test_push_refuses_weights_of_which_nothing_was_measured(zoo, data, tmp_path, monkeypatch):
    places = ("--models", tmp_path / "models", "--results", tmp_path / "results")
    to = ("--repository", "org/diffmic-v2-stripes")
    outcome = run(zoo, "push", "diffmic-v2-stripes", *to, *places)
    assert outcome.exit_code != 0
    assert "is missing" in outcome.output
    train = ("train", "diffmic-v2-stripes", "--data", data, "--verbose", 0, *places)
    assert run(zoo, *train).exit_code == 0
    monkeypatch.setattr(zoo, "HALF_PRECISION_TOLERANCE", -1.0)
    assert run(zoo, *train).exit_code != 0
    outcome = run(zoo, "push", "diffmic-v2-stripes", *to, *places)
    assert outcome.exit_code != 0
    assert "other weights" in outcome.output


def test_a_model_that_half_precision_changes_is_saved_in_full(zoo, data, tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "HALF_PRECISION_TOLERANCE", -1.0)
    places = ("--data", data, "--models", tmp_path / "models", "--results", tmp_path / "results")
    outcome = run(zoo, "train", "diffmic-v2-stripes", *places, "--verbose", 0)
    assert outcome.exit_code != 0
    assert "Half precision changes probabilities" in outcome.output
    assert not (tmp_path / "results").exists()
    weights = load_file(tmp_path / "models" / "diffmic-v2-stripes" / "model.safetensors")
    assert torch.float16 not in {tensor.dtype for tensor in weights.values()}


def test_an_unknown_name_is_refused_with_the_names_that_there_are(zoo, tmp_path):
    outcome = run(zoo, "train", "diffmic-v2-brain", "--data", tmp_path)
    assert outcome.exit_code != 0
    assert "diffmic-v2-aptos" in outcome.output


def test_models_are_trained_as_the_accuracy_benchmark_trains(zoo, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    data_sets = importlib.import_module("accuracy_bench.tasks").DATA_SETS
    for name, recipe in zoo.ZOO.items():
        if name == "diffmic-v2-stripes":
            continue
        data_set = data_sets[name.removeprefix("diffmic-v2-").replace("pneumoniamnist", "medmnist")]
        assert recipe.folder == data_set.folder
        how = recipe.out_of_fold  # whose models are trained as the benchmark's, before this one
        parameters = recipe.parameters | (how.parameters if how else {})
        for parameter in ("image_size", "max_epochs", "augment", "task"):
            assert parameters.get(parameter, "auto") == getattr(data_set, parameter), name


def test_every_model_of_the_zoo_has_a_name_that_from_pretrained_knows(zoo):
    assert set(zoo.ZOO) - {"diffmic-v2-stripes"} == set(REGISTRY)


def forget_doubt(folder, record, **changes):
    """Save a model as one that was trained before models knew of doubt."""
    clf = DiffMICClassifier.from_pretrained(folder)
    clf.model_ = replace(clf.model_, doubt=None, alone=None, shares=None, **changes)
    clf.save_pretrained(folder, dtype="float16")
    weights = digest((folder / "model.safetensors").read_bytes())
    told = json.loads(record.read_text()) | {"weights_sha256": weights}
    record.write_text(json.dumps(told, indent=2) + "\n")


def test_convert_keeps_weights_probabilities_card_and_terms(zoo, data, tmp_path):
    name, models, results = "diffmic-v2-stripes", tmp_path / "models", tmp_path / "results"
    places = ("--models", models, "--results", results)
    assert run(zoo, "train", name, "--data", data, "--verbose", 0, *places).exit_code == 0
    trained, record = models / name, results / f"{name}.json"
    forget_doubt(trained, record, thresholds={})  # format version 1 knows no grades
    downgrade(trained, tmp_path / "old")
    shutil.copytree(tmp_path / "old", trained, dirs_exist_ok=True)
    before, files = json.loads(record.read_text()), contents(trained)
    X = stripes(6, seed=1)[0]
    old = DiffMICClassifier.from_pretrained(trained)
    assert old.task_.name == "multiclass"  # format version 1 knows no grades

    outcome = run(zoo, "convert", name, *places)
    assert outcome.exit_code == 0, outcome.output
    assert f"{name}: probabilities changed by at most 0, the weights are the same" in outcome.output
    config = json.loads((trained / "config.json").read_text())
    assert (config["format_version"], config["task"]) == (FORMAT_VERSION, "ordinal")
    new = DiffMICClassifier.from_pretrained(trained)
    assert new.card_ == old.card_
    assert is_generated((trained / "README.md").read_text())
    for stage in ("prior", "diffusion"):
        expected = old.predict_proba(X, stage=stage)
        np.testing.assert_allclose(new.predict_proba(X, stage=stage), expected, atol=1e-6)
    assert json.loads(record.read_text()) == before
    after = contents(trained)
    assert {file for file in files if after[file] != files[file]} == {"config.json", "README.md"}


def test_convert_teaches_doubt_and_shares_where_there_are_images(zoo, data, tmp_path):
    name, models, results = "diffmic-v2-stripes", tmp_path / "models", tmp_path / "results"
    places = ("--models", models, "--results", results)
    assert run(zoo, "train", name, "--data", data, "--verbose", 0, *places).exit_code == 0
    trained = DiffMICClassifier.from_pretrained(models / name).model_
    forget_doubt(models / name, results / f"{name}.json")
    outcome = run(zoo, "convert", name, *places, "--data", data)
    assert outcome.exit_code == 0, outcome.output
    found = DiffMICClassifier.from_pretrained(models / name).model_
    assert found.alone.calibration.temperature == pytest.approx(
        trained.alone.calibration.temperature, rel=1e-3
    )
    for stage, quantiles in trained.doubt.confidence.items():
        np.testing.assert_allclose(found.doubt.confidence[stage], quantiles, atol=1e-3)
    np.testing.assert_allclose(found.doubt.reference.mean, trained.doubt.reference.mean, atol=1e-4)
    np.testing.assert_allclose(found.shares, trained.shares, atol=1e-6)


def test_convert_leaves_files_alone_that_would_predict_otherwise(zoo, data, tmp_path, monkeypatch):
    name, models, results = "diffmic-v2-stripes", tmp_path / "models", tmp_path / "results"
    places = ("--models", models, "--results", results)
    assert run(zoo, "train", name, "--data", data, "--verbose", 0, *places).exit_code == 0
    clf = DiffMICClassifier.from_pretrained(models / name)
    with torch.no_grad():  # such weights that half precision moves probabilities
        for parameter in clf.network_.parameters():
            parameter.mul_(1 + 1e-3)
    clf.save_pretrained(models / name)
    weights = digest((models / name / "model.safetensors").read_bytes())
    record = results / f"{name}.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"weights_sha256": weights}))
    before = contents(models / name)
    monkeypatch.setattr(zoo, "CONVERSION_TOLERANCE", 1e-9)
    outcome = run(zoo, "convert", name, *places)
    assert outcome.exit_code != 0
    assert "nothing was saved" in outcome.output
    assert contents(models / name) == before


def test_the_accuracy_of_single_labels_gets_its_name_of_today(zoo):
    earlier = {"prior": {"accuracy": 0.9, "nll": 0.2}}
    multilabel, grades = (SimpleNamespace(task_=task) for task in (MULTILABEL, ORDINAL))
    today = {"prior": {"label_accuracy": 0.9, "nll": 0.2}}
    assert zoo.todays(earlier, multilabel) == today
    both = {"prior": {"accuracy": 0.4, "label_accuracy": 0.9}}
    assert zoo.todays(both, multilabel) == both
    assert zoo.todays(earlier, grades) == earlier


def contents(folder):
    """What each file of a folder holds."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_trial_does_not_replace_the_models_of_the_zoo(zoo, data, tmp_path):
    trial = ("train", "diffmic-v2-stripes", "--data", data, "--max-epochs", 1)
    for place in ((), ("--models", tmp_path / "models"), ("--results", tmp_path / "results")):
        outcome = run(zoo, *trial, *place)
        assert outcome.exit_code == 2
        assert "--max-epochs is for trying" in outcome.output
    assert not (tmp_path / "models").exists()


@pytest.mark.skipif(not (ROOT / "zoo" / "models").is_dir(), reason="not a checkout")
@pytest.mark.parametrize("name", sorted(set(REGISTRY) - {p.name for p in BUNDLED.glob("*/")}))
def test_a_model_of_the_checkout_is_the_one_that_was_measured(name):
    folder = ROOT / "zoo" / "models" / name
    weights = digest((folder / "model.safetensors").read_bytes())
    record = json.loads((ROOT / "zoo" / "results" / f"{name}.json").read_text())
    assert weights == record["weights_sha256"] == REGISTRY[name].sha256
    assert is_generated((folder / "README.md").read_text())
    assert "These weights carry the terms" in (folder / "NOTICE").read_text()
    assert json.loads((folder / "config.json").read_text())["format_version"] == FORMAT_VERSION
    clf = DiffMICClassifier.from_pretrained(folder)
    assert clf.card_.test_scores == record["test"]
    assert clf.predict_proba(torch.rand(2, 3, 64, 64)).shape == (2, len(clf.classes_))


def test_a_trained_model_takes_other_regions(zoo, data, tmp_path, monkeypatch):
    monkeypatch.setitem(zoo.ZOO["diffmic-v2-stripes"].parameters, "image_size", 128)
    name, models, results = "diffmic-v2-stripes", tmp_path / "models", tmp_path / "results"
    places = ("--models", models, "--results", results)
    assert run(zoo, "train", name, "--data", data, "--verbose", 0, *places).exit_code == 0
    before = DiffMICClassifier.from_pretrained(models / name)
    outcome = run(zoo, "regions", name, "--data", data, *places)
    assert outcome.exit_code == 0, outcome.output
    after = DiffMICClassifier.from_pretrained(models / name)
    for clf, form in ((before, "paper"), (after, "fused")):
        assert clf.model_.plan.architecture.region_importance == form
        assert clf.network_.prior.importance == form
    weights, learnt = before.network_.state_dict(), after.network_.state_dict()
    assert all(torch.equal(weights[key], value) for key, value in learnt.items())
    X, _ = stripes(8, seed=1)
    assert (before.explain(X).boxes != after.explain(X).boxes).any()
    record = json.loads((results / f"{name}.json").read_text())
    assert record["region_importance"] == "fused"
    assert after.card_.test_scores["diffusion"]["nll"] == record["test"]["diffusion"]["nll"]
    assert "region_importance='fused' instead of 'paper'" in after.card_.split
    assert (models / name / "NOTICE").is_file()
