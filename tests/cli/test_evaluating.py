"""``diffmic evaluate``, ``calibrate`` and ``info``: what they tell besides figures."""

import csv
import os
import shutil
from dataclasses import replace

import pytest
from PIL import Image
from tiny import small, stripes
from typer.testing import CliRunner

from diffmic import DiffMICClassifier
from diffmic.cli import app
from diffmic.cli.loading import name_of
from diffmic.hub import ModelCard

pytestmark = pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")
NAMES = ["across", "along", "plain"]
TRAINED = "the model was trained on data named"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model that was trained on data named photos."""
    folder = tmp_path_factory.mktemp("known") / "model"
    clf = DiffMICClassifier(**small(backbone="test_resnet", pretrained=False, class_names=NAMES))
    clf.fit(*stripes(60)).save_pretrained(folder, card=ModelCard(dataset="photos"))
    return str(folder)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    root = tmp_path_factory.mktemp("places")
    for name in ("photos", "others"):
        (root / name).mkdir()
        for n, (image, label) in enumerate(zip(*stripes(24, seed=1), strict=True)):
            (root / name / NAMES[label]).mkdir(exist_ok=True)
            Image.fromarray(image).save(root / name / NAMES[label] / f"{n:03}.png")
    files = sorted((root / "photos").glob("*/*.png"))
    with open(root / "photos.csv", "w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["file", "label", "split"])
        for n, file in enumerate(files):
            table.writerow([file, file.parent.name, ("train", "Test")[n % 2]])
    (root / "csv").mkdir()
    (root / "csv" / "photos").write_bytes((root / "photos.csv").read_bytes())
    return root


def run(*words):
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == 0, done.output
    return done


@pytest.mark.parametrize("words", [("evaluate", "--resamples", 0), ("calibrate", "--out", "new")])
def test_damaged_images_end_the_work_or_are_left_out(model, places, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(places / "others", tmp_path / "mixed")
    bad = next((tmp_path / "mixed" / "across").iterdir())
    bad.write_bytes(bad.read_bytes()[:-40])
    command, *options = words
    done = CliRunner().invoke(app, [command, model, "mixed", *map(str, options)])
    assert done.exit_code == 1
    assert bad.name in done.stderr
    assert "--skip-damaged leaves out images" in done.stderr
    done = run(command, model, "mixed", *options, "--skip-damaged")
    assert "1 of 24 images cannot be read and are left out" in done.stderr
    assert bad.name in done.stderr
    assert "23 images of mixed" in done.stdout
    for file in (tmp_path / "mixed").glob("*/*.png"):
        file.write_bytes(file.read_bytes()[:-40])
    done = CliRunner().invoke(app, [command, model, "mixed", *map(str, options), "--skip-damaged"])
    assert done.exit_code == 1
    assert "None of the 24 images" in done.stderr


def test_evaluate_warns_of_data_that_have_the_name_of_those_of_the_training(model, places):
    done = run("evaluate", model, places / "photos", "--resamples", 0)
    assert TRAINED in done.stderr
    assert "'photos'" in done.stderr
    assert done.stdout.rstrip().endswith("of the same patients.")
    done = run("evaluate", model, f"{places / 'photos'}{os.sep}", "--format", "json")
    assert TRAINED in done.stderr
    assert done.stdout.startswith("[")
    done = run("evaluate", model, places / "others", "--resamples", 0)
    assert TRAINED not in done.stderr
    assert "only if the model was trained on none of these" in done.stdout


def test_the_test_split_of_the_data_is_no_part_of_the_training(model, places):
    data = places / "csv" / "photos"
    assert TRAINED not in run("evaluate", model, data, "--resamples", 0).stderr
    assert TRAINED in run("evaluate", model, data, "--resamples", 0, "--split", "train").stderr


def test_calibrate_warns_too_and_says_which_figures_are_good(model, places, tmp_path):
    done = run("calibrate", model, places / "photos", "--out", tmp_path / "ours")
    assert TRAINED in done.stderr
    assert "smaller is better" in done.stdout
    done = run("calibrate", model, places / "others", "--out", tmp_path / "theirs")
    assert TRAINED not in done.stderr


def test_data_are_named_by_their_folder_however_it_is_given(tmp_path, monkeypatch):
    (tmp_path / "photos" / "within").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "photos")
    given = [".", "..", "within/..", str(tmp_path / "photos") + os.sep, "pneumoniamnist_64"]
    assert [name_of(data) for data in given] == [
        *("photos", tmp_path.name, "photos", "photos", "pneumoniamnist_64")
    ]


def test_info_tells_metrics_in_words_side_by_side_in_80_columns(model):
    lines = run("info", model).stdout.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("validation part"))
    assert "diffusion alone" in lines[start]
    assert any(line.split()[:2] == ["negative", "log-likelihood"] for line in lines[start:])
    assert not any("_" in line for line in lines[start:])
    assert max(map(len, lines[start:])) <= 80


def test_info_tells_figures_of_the_test_part_where_there_are_no_others(tmp_path):
    clf = DiffMICClassifier.from_pretrained("diffmic-v2-aptos")
    clf.model_ = replace(clf.model_, record=replace(clf.model_.record, validation_scores={}))
    clf.save_pretrained(tmp_path, card=clf.card_)
    lines = run("info", tmp_path).stdout.splitlines()
    assert not any(line.startswith("validation") for line in lines)
    assert [line.split()[-4:] for line in lines if line.startswith("test part:")] == [
        ["prior", "diffusion", "diffusion", "alone"]
    ]
