"""The benchmark of doubt: what it adds up is right, and the command runs."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import small, stripes
from typer.testing import CliRunner

from diffmic import DiffMICClassifier

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))
import trust  # noqa: E402
from trust_bench import measures, readings  # noqa: E402

pytestmark = [
    pytest.mark.benchmarks,
    pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning"),
]


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Two small data sets and models of them."""
    for name, seed in (("busi", 0), ("aptos", 1)):
        folder = tmp_path / "data" / readings.DATA_SETS[name].folder
        folder.mkdir(parents=True)
        lines = ["file,label,split"]
        images, y = stripes(60, seed=seed)
        for i, (image, label) in enumerate(zip(images, y, strict=True)):
            Image.fromarray(image).save(folder / f"{i}.png")
            lines.append(f"{i}.png,{label},val")
        (folder / "labels.csv").write_text("\n".join(lines))
    parameters = small(backbone="test_resnet", pretrained=False, max_epochs=1)
    wrong = np.where(np.random.RandomState(0).rand(60) < 0.2, (y + 1) % 3, y)
    DiffMICClassifier(**parameters).fit(images, wrong).save_pretrained(tmp_path / "model")
    monkeypatch.setattr(trust, "MODELS", dict.fromkeys(("busi", "aptos"), str(tmp_path / "model")))
    monkeypatch.setattr(readings, "MODELS", trust.MODELS)
    monkeypatch.setattr(trust, "N_DRAWS", 3)
    monkeypatch.setattr(readings, "N_DRAWS", 3)
    monkeypatch.setattr(measures, "N_RESAMPLES", 20)
    monkeypatch.setattr(measures, "N_HALVES", 5)
    return tmp_path


def test_the_command_measures_and_its_table_tells(world):
    results = world / "trust.csv"
    command = ["run", "--data", str(world / "data"), "--sets", "busi", "--results", str(results)]
    for _ in range(2):  # the second run replaces the rows of the first
        outcome = CliRunner().invoke(trust.app, command, catch_exceptions=False)
        assert outcome.exit_code == 0
    with results.open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["question"] for row in rows} == {"risk", "strange", "sets"}
    assert len({tuple(row.items()) for row in rows}) == len(rows)
    groups = {row["group"] for row in rows if row["question"] == "strange"}
    assert groups == {"upside down", "noise", "blank", "aptos"}
    noise = {r["measure"]: float(r["value"]) for r in rows if r["group"] == "noise"}
    assert noise[measures.DISTANCE] > 0.9
    areas = [float(r["value"]) for r in rows if r["what"] == "area"]
    assert all(0 <= area <= 1 for area in areas)
    covered = [float(r["value"]) for r in rows if r["question"] == "sets"]
    assert len(covered) == 6
    assert all(0.6 < value <= 1 for value in covered)
    table = CliRunner().invoke(trust.app, ["table", "--results", str(results)]).output
    assert "| distance in the embeddings |" in table


def test_a_set_without_a_model_is_refused(world):
    command = ["run", "--data", str(world), "--sets", "pneumonia"]
    assert CliRunner().invoke(trust.app, command).exit_code == 2
