"""The command that trains a paper's preset on an official download."""

import csv
import sys
from dataclasses import replace
from pathlib import Path

import downloads
import pytest
import typer

from diffmic.estimator import presets

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))
import reproduce  # noqa: E402

pytestmark = [
    pytest.mark.benchmarks,
    pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning"),
]


@pytest.fixture
def tiny_presets(monkeypatch):
    """Presets of the papers, with networks that train in a second."""
    from diffmic.model import Architecture

    tiny = Architecture(
        prior_backbone="test_resnet",
        region_backbone="test_resnet",
        crop="square",
        n_regions=2,
        region_size=16,
        feature_dim=8,
        num_train_timesteps=50,
    )
    own = {"backbone": "test_resnet", "pretrained": False, "architecture": tiny, "image_size": 64}
    small = {**own, "num_steps": 3, "verbose": 0, "device": "cpu"}
    for name, preset in presets.PRESETS.items():
        parameters = preset.parameters | small
        monkeypatch.setitem(presets.PRESETS, name, replace(preset, parameters=parameters))


@pytest.mark.parametrize(
    ("preset", "data_set", "size"),
    [
        ("paper-v2-aptos", "aptos", 40),
        ("paper-v1-isic2018", "isic2018", 42),
        ("paper-v2-chestxray14", "chestxray14", 40),
        ("paper-v2", "busi", 10),
    ],
)
def test_a_run_adds_a_row_for_each_stage_and_number_of_steps(
    tiny_presets, tmp_path, preset, data_set, size
):
    getattr(downloads, data_set)(tmp_path / "download", size)
    results = tmp_path / "results.csv"
    reproduce.run(
        preset,
        tmp_path / "download",
        data_set="" if preset.endswith(data_set) else data_set,
        seed=1,
        steps=[1, 3],
        max_epochs=1,
        denoiser_epochs=2,
        backbone="",
        num_workers=0,
        on_error="raise",
        results=results,
    )
    with results.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    stages = ("prior", "diffusion", "diffusion_alone")
    assert [(r["stage"], r["steps"]) for r in rows] == [(s, n) for n in ("1", "3") for s in stages]
    for row in rows:
        assert (row["preset"], row["data_set"]) == (preset, data_set)
        assert (row["max_epochs"], row["denoiser_epochs"]) == ("1", "2")
        assert 0 <= float(row["accuracy"]) <= 1
        assert bool(row["kappa"]) == (data_set == "aptos")


def test_a_data_set_without_a_reader_is_an_error(tmp_path):
    for preset in ("paper-v2-pmg2000", "paper-v2"):
        with pytest.raises(typer.BadParameter, match="no reader of"):
            reproduce.run(preset, tmp_path, data_set="")
