"""``diffmic train``, ``explain`` and ``calibrate`` as processes."""

import json
import os
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import stripes
from typer.testing import CliRunner

from diffmic import DiffMICClassifier
from diffmic.cli import app

QUICK = ["--backbone", "test_resnet", "--from-scratch", "--epochs", "1", "--image-size", "32"]


@pytest.mark.slow
def test_train_leaves_model_card_report_and_the_command_that_repeats_it(photos, command, tmp_path):
    done = command("train", photos, "--out", "made", *QUICK)
    assert done.returncode == 0, done.stderr
    made = tmp_path / "made"
    assert {file.name for file in made.iterdir()} == {
        *("config.json", "model.safetensors", "README.md", "report.html", "command.txt")
    }
    assert "6 test images" in done.stdout
    assert "| accuracy |" in done.stdout
    for told in ("24 to learn from", "across: 8, along: 8, plain: 8", "0 to 255", "32 × 32"):
        assert told in done.stderr
    assert "time" not in [line.split(" ")[0] for line in done.stderr.splitlines()]  # too short
    page = (made / "report.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!data:)', page)  # one file
    assert page.count("data:image/png;base64,") >= 4
    for told in ("Reliability", "Confusion", "Worst mistakes", "Not a medical device", "to "):
        assert told in page
    assert "6 images" in page
    assert "photos" in (made / "README.md").read_text()
    first = DiffMICClassifier.from_pretrained(made)
    assert first.class_names_ == ["across", "along", "plain"]

    words = shlex.split((made / "command.txt").read_text())
    words[words.index("made")] = "again"
    assert command(*words[1:]).returncode == 0
    second = DiffMICClassifier.from_pretrained(tmp_path / "again")
    image = next(photos.glob("*/*.png"))
    assert (first.predict_proba([image]) == second.predict_proba([image])).all()


@pytest.mark.slow
def test_without_matplotlib_there_is_a_report_and_a_line_that_says_so(
    photos, command, environment, tmp_path
):
    (tmp_path / "without" / "matplotlib").mkdir(parents=True)
    (tmp_path / "without" / "matplotlib" / "__init__.py").write_text("raise ImportError('none')")
    paths = {"PYTHONPATH": os.pathsep.join([str(tmp_path / "without"), environment["PYTHONPATH"]])}
    done = command("train", photos, "--out", "made", "--test", 0, *QUICK, env=environment | paths)
    assert done.returncode == 0, done.stderr
    assert "pip install 'diffmic[plots]'" in done.stderr
    page = (tmp_path / "made" / "report.html").read_text()
    assert "no test part" in page
    assert "<img" not in page


@pytest.mark.slow
def test_a_plan_is_shown_without_training_and_a_foreign_folder_is_refused_first(
    photos, command, tmp_path
):
    done = command("train", photos, "--out", "made", "--dry-run", *QUICK)
    assert done.returncode == 0
    assert "24 to learn from" in done.stderr
    assert not (tmp_path / "made").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "bert"}')
    done = command("train", photos, "--out", "other", *QUICK)
    assert done.returncode == 1
    assert "bert" in done.stderr
    assert "to learn from" not in done.stderr


@pytest.mark.parametrize("name", ["train", "inspect"])
def test_a_damaged_image_is_told_once_with_the_option_that_leaves_it_out(name, photos, tmp_path):
    data = tmp_path / "photos"
    shutil.copytree(photos, data)
    (data / "along" / "bad.png").write_text("no image")
    (data / "along" / "copy.png").write_bytes(next(data.glob("along/0*.png")).read_bytes())
    out = ["--out", str(tmp_path / "made")] if name == "train" else []
    done = CliRunner().invoke(app, [name, str(data), *out])
    assert done.exit_code == {"train": 1, "inspect": 3}[name]
    told = " ".join(done.output.split())
    assert told.count("bad.png' is not an image") == 1
    assert "'diffmic train --skip-damaged' leaves them out" in told
    assert "'diffmic train' keeps them together" in told
    assert "on_error" not in told
    assert "fit(" not in told
    if name == "inspect":
        done = CliRunner().invoke(app, [name, str(data), "--json"])
        assert "--skip-damaged" in json.loads(done.stdout)["problems"][0]


@pytest.fixture
def scans(tmp_path, monkeypatch):
    """A folder per class with float arrays in −1000…1000; it lies in the working directory."""
    monkeypatch.chdir(tmp_path)
    for number, (image, label) in enumerate(zip(*stripes(30, seed=1), strict=True)):
        folder = tmp_path / "scans" / "abc"[label]
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{number:02}.npy", image.astype(np.float32) / 255 * 2000 - 1000)
    return Path("scans")


def run(*words):
    return CliRunner().invoke(app, [*map(str, words)])


@pytest.mark.slow
def test_what_needs_a_range_of_values_is_trained_with_an_option(scans):
    refused = run("inspect", scans)
    assert refused.exit_code == 1
    assert "train with --value-range low high" in refused.stderr
    values = ["--value-range", -1000, 1000]
    assert run("inspect", scans, *values).exit_code == 0
    done = run("train", scans, "--out", "made", *values, *QUICK, "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert "black -1000, white 1000; as read: 0 to 1 (gray, floats)" in done.stderr
    assert "black -1000, white 1000" in Path("made/report.html").read_text(encoding="utf-8")
    made = DiffMICClassifier.from_pretrained("made", device="cpu")
    assert made.value_range == (-1000, 1000)

    words = shlex.split(Path("made/command.txt").read_text(encoding="utf-8"))
    words[words.index("made")] = "again"
    assert run(*words[1:]).exit_code == 0
    one, two = (Path(name, "model.safetensors").read_bytes() for name in ("made", "again"))
    assert one == two

    image = sorted(scans.glob("a/*.npy"))[0]
    done = run("predict", "made", image, "--format", "jsonl")
    row = json.loads(done.stdout)
    proba = made.predict_proba([np.load(image)])[0]
    np.testing.assert_allclose([row[f"p_{name}"] for name in "abc"], proba, atol=1e-5)
    assert run("evaluate", "made", scans, "--skip-damaged", "--resamples", 10).exit_code == 0
    assert run("explain", "made", image, "--out", "pictures").exit_code == 0


@pytest.mark.parametrize("name", ["train", "inspect"])
@pytest.mark.parametrize("values", [(5, 1), (1, 1), ("nan", 1), (0, "inf"), (1,), ("a", "b")])
def test_a_range_of_values_that_is_none_is_refused_in_a_line(name, values, scans):
    done = run(
        name, scans, *(["--out", "made"] if name == "train" else []), "--value-range", *values
    )
    if len(values) == 1 or "a" in values:
        assert done.exit_code == 2
        assert "--value-range" in done.stderr
    else:
        assert done.exit_code == 1
        assert done.stderr.count("\n") == 1
        low, high = map(float, values)
        assert done.stderr.startswith(f"diffmic: --value-range is ({low}, {high}); give the values")
    assert not Path("made").exists()


@pytest.mark.slow
def test_explain_tells_regions_and_draws_them(saved, photos, command, tmp_path):
    image = next(photos.glob("*/*.png"))
    done = command("explain", saved, image, image, "nowhere.png", "--out", "pictures")
    assert done.returncode == 3
    assert "nowhere.png" in done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 2
    assert len(rows[0]["regions"]) == len(rows[0]["attention"]) > 0
    numbers = [*np.ravel(rows[0]["regions"]), *rows[0]["attention"]]
    assert all(len(repr(float(number)).partition(".")[2]) <= 4 for number in numbers)
    assert rows[0]["picture"] != rows[1]["picture"]
    assert "drew 2 picture(s) in pictures" in done.stderr
    assert "1 image(s) could not be read" in done.stderr
    with Image.open(tmp_path / rows[0]["picture"]) as picture:
        assert min(picture.size) > 100


def test_pictures_of_explanations_have_names_of_their_own(saved, tmp_path):
    left, right = tmp_path / "left", tmp_path / "right"
    for name in ("left/eye.png", "left/Eye.jpg", "left/1.2.840.7", "right/eye.png", "right/1.2.3"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        image = Image.fromarray(stripes(3)[0][0])
        image.save(tmp_path / name, "JPEG" if name.endswith("jpg") else "PNG")
    content = {file: file.read_bytes() for file in left.iterdir()}
    done = CliRunner().invoke(
        app, ["explain", str(saved), str(left), str(right), "--out", str(left), "--device", "cpu"]
    )
    assert done.exit_code == 0
    assert all(file.read_bytes() == before for file, before in content.items())
    drawn = [json.loads(line)["picture"] for line in done.stdout.splitlines()]
    assert [Path(picture).name for picture in drawn] == [
        *("1.2.840.7-regions.png", "Eye-regions.png", "eye-regions-2.png"),
        *("1.2.3-regions.png", "eye-regions-3.png"),
    ]
    assert all(Path(picture).is_file() for picture in drawn)


def test_pictures_of_explanations_are_not_explained(saved, tmp_path):
    Image.fromarray(stripes(3)[0][0]).save(tmp_path / "a.png")
    out = tmp_path / "pictures"
    done = CliRunner().invoke(app, ["explain", str(saved), str(tmp_path), "--out", str(out)])
    assert done.exit_code == 0
    assert [file.name for file in out.iterdir()] == ["a-regions.png"]


def test_pictures_show_the_evidence_for_the_class_that_their_title_names(
    saved, photos, monkeypatch, tmp_path
):
    """Not for that of the prior, which may hold another class most probable."""
    from diffmic import plots

    drawn = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        plots, "plot_regions", lambda *_, **how: (drawn.append(how), plt.subplots()[1])[1]
    )
    plt = pytest.importorskip("matplotlib.pyplot")
    images = [str(next(photos.glob(f"{name}/*.png"))) for name in ("along", "plain")]
    done = CliRunner().invoke(app, ["explain", str(saved), *images, "--out", "pictures"])
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    names = ["across", "along", "plain"]
    assert [how["saliency"] for how in drawn] == [names.index(row["predicted"]) for row in rows]


@pytest.mark.slow
def test_calibrate_saves_a_model_with_other_probabilities(saved, photos, command, tmp_path):
    done = command("calibrate", saved, photos, "--out", "ours")
    assert done.returncode == 0, done.stderr
    assert "30 images" in done.stdout
    assert re.search(r"diffusion: \d\.\d+ → \d\.\d+", done.stdout)
    assert DiffMICClassifier.from_pretrained(tmp_path / "ours").recalibration_.n_images == 30


@pytest.mark.slow
def test_a_training_goes_on_from_its_checkpoint(photos, command, tmp_path):
    words = ["--test", 0, "--checkpoint-dir", "saved", *QUICK]
    assert command("train", photos, "--out", "one", *words).returncode == 0
    done = command("train", photos, "--out", "two", "--resume", *words)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "saved").is_dir()
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two
    assert command("train", photos, "--out", "three", "--resume", *QUICK).returncode == 1


def test_an_interval_in_the_report_is_not_broken_over_lines():
    from diffmic.cli.report import _table

    cells = _table([], [["AUC", "0.8 (0.7 to 0.9)", "<b> (3 to 4)"]])
    assert "<td>0.8 <span>(0.7 to 0.9)</span></td>" in cells
    assert "<td>&lt;b&gt; <span>(3 to 4)</span></td>" in cells
