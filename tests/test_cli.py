"""The command line."""

import numpy as np
import pytest
from typer.testing import CliRunner

from diffmic.cli import app
from diffmic.cli.messages import told
from diffmic.demo import MEANINGS, table
from diffmic.errors import warn_user
from diffmic.tasks import classification_metrics


@pytest.mark.slow
def test_the_demo_trains_prints_both_stages_and_saves_model_and_picture(tmp_path):
    options = ["--folder", str(tmp_path), "--images", "60", "--epochs", "1"]
    (tmp_path / "of_mine.txt").touch()
    result = CliRunner().invoke(app, ["demo", *options])
    assert result.exit_code == 0, result.output
    header = next(
        line for line in result.output.splitlines() if line.split() == ["prior", "diffusion"]
    )
    assert header
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "auc", "nll", "ece"):
        row = next(line for line in result.output.splitlines() if line.startswith(name + " "))
        assert len(row.split()) == 3
    said = " ".join(result.stdout.split())
    for meaning in ("nll Negative log-likelihood", "auc How well", "ece Gap", "The prior is"):
        assert meaning in said
    assert max(map(len, result.stdout.replace(str(tmp_path), "").splitlines())) <= 80
    assert [line.split(":")[0] for line in result.stdout.splitlines() if "saved" in line] == [
        *(f"saved {tmp_path / 'model'}", f"saved {tmp_path / 'predictions.png'}")
    ]
    assert "diffmic train photos/ --out my-model" in said
    assert "%|" not in result.output  # no bar, as there is no terminal
    assert (tmp_path / "predictions.png").stat().st_size > 10_000
    saved = {file.name for file in (tmp_path / "model").iterdir()}
    assert saved == {"README.md", "config.json", "model.safetensors"}


def test_the_table_has_the_stages_side_by_side():
    metrics = {"prior": {"accuracy": 0.5}, "diffusion": {"accuracy": 0.75}}
    assert [line.split() for line in table(metrics).splitlines()] == [
        ["prior", "diffusion"],
        ["accuracy", "0.500", "0.750"],
    ]


def test_every_metric_of_the_demo_has_a_meaning():
    y = np.arange(12) % 3
    assert set(classification_metrics(y, np.eye(3)[y])) == set(MEANINGS)


def test_without_a_command_the_help_is_shown():
    result = CliRunner().invoke(app, [])
    assert "demo" in result.output


def test_a_warning_of_each_batch_is_told_once(capsys):
    with told():
        for n in (12, 6):
            warn_user(f"{n} of {n} images are nearly black.")
        warn_user("Something else.")
    assert capsys.readouterr().err.splitlines() == [
        "diffmic: warning: 12 of 12 images are nearly black.",
        "diffmic: warning: Something else.",
    ]
