"""The speed benchmark: it measures what it says, keeps it, and draws it."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))
import speed  # noqa: E402
from speed_bench import targets, timing  # noqa: E402
from speed_bench.compiled import compiled  # noqa: E402
from speed_bench.fit import stopwatch  # noqa: E402
from speed_bench.memory import memory_of  # noqa: E402
from speed_bench.models import QUICK, pictures  # noqa: E402
from speed_bench.report import shares, tables  # noqa: E402
from speed_bench.targets import Target, verdicts  # noqa: E402
from speed_bench.timing import race, ratio  # noqa: E402

pytestmark = pytest.mark.benchmarks


def command(*arguments):
    """What the command prints."""
    done = CliRunner().invoke(speed.app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """File and tables of a run on tiny networks."""
    file = tmp_path_factory.mktemp("speed") / "deep" / "speed.json"
    options = ["--quick", "--rounds", 2, "--fit-images", 20, "--fit-epochs", 2]
    options += ["--without", "memory", "--without", "compile"]
    return file, command("run", *options, "--json", file)


def test_a_run_keeps_everything_with_its_circumstances(measured):
    report = json.loads(measured[0].read_text())
    assert report.keys() == {
        *("date", "commit", "processor", "instructions", "cores", "threads", "platform"),
        *("allocator", "versions", "rounds", "settings", "seconds", "targets"),
        *("predict", "stages", "factors", "paper", "paper_factors", "imports", "shards"),
        *("v1_factors", "engine", "fit", "pipeline"),
    }
    assert report["seconds"].keys() == set(speed.PARTS) - {"memory", "compile"}
    assert report["versions"].keys() >= {"diffmic", "torch", "timm"}
    wanted = {"steps", "draws", "classes", "precision", "images", "threads"}
    assert report["factors"].keys() == wanted | {"ONNX Runtime", "exported"}
    assert report["paper_factors"].keys() == {"steps", "draws", "classes", "threads"}
    assert report["paper_factors"]["steps"][0]["seconds"].keys() - {"encoder", "resnet18"} == {
        str(n) for n in QUICK.paper_steps
    }
    by_steps = report["v1_factors"]["steps"][0]
    assert by_steps["model"] == "diffmic-v1"
    assert by_steps["seconds"].keys() >= {str(n) for n in QUICK.v1_steps}
    varied = [*report["factors"].values(), *report["paper_factors"].values()]
    records = [*report["predict"], *(record for found in varied for record in found)]
    for record in records:
        assert record["seconds"].keys() > {"encoder", "resnet18"}
    kinds = {"auto", "plain"}
    for record in report["predict"]:
        ours = kinds if record["model"] == "default" else {"fp32", "bf16"}
        assert record["seconds"].keys() == ours | {"encoder", "resnet18"}
    assert [record["model"] for record in report["engine"]] == ["default", "paper-v2"]
    assert all(record["seconds"].keys() == kinds for record in report["engine"])
    for record in [
        *records,
        *report["engine"],
        *report["stages"],
        report["paper"]["sampling"],
        report["imports"],
    ]:
        assert all(len(s) == 2 and min(s) > 0 for s in record["seconds"].values())
    assert {(r["model"], r["images"]) for r in report["predict"]} == {
        *(("default", n) for n in QUICK.batches),
        *(("paper-v2", n) for n in QUICK.paper_batches),
    }
    assert report["paper"]["scores_differ"] < 1e-5 < report["paper"]["largest_score"] < 1
    assert [record["model"] for record in report["stages"]] == ["default", "paper-v2"]
    for record in report["stages"]:
        assert sum(shares(record).values()) == pytest.approx(1)
    assert [shard["processes"] for shard in report["shards"]] == sorted({1, os.cpu_count()})
    assert all(shard["images_an_hour"] > 0 for shard in report["shards"])
    fit = report["fit"]
    assert fit["images"] == {"training": 17, "validation": 3}
    assert sum(fit["shares"].values()) == pytest.approx(1)
    assert all(fit["seconds"][part] > 0 for part in ("stage one", "caching", "stage two"))
    assert [(r["images"], r["workers"]) for r in report["pipeline"]] == [
        *(("array of 64 px", 0), ("array of 64 px", 2)),
        *(("JPEG of 80 px", 0), ("JPEG of 80 px", 2)),
    ]
    assert all(0 < r["share"] < 1 for r in report["pipeline"])
    assert {"import diffmic / import torch, sklearn"} <= {row["what"] for row in report["targets"]}


def test_tables_are_made_from_the_file_alone(measured):
    file, printed = measured
    assert command("table", file) == printed
    for heading in (
        "Predictions",
        "Targets",
        "Making an engine",
        "Parts of a prediction",
        "Images an hour",
        "A fit of 2 epochs",
        "Importing",
        "Stage one waiting for images",
    ):
        assert f"## {heading}" in printed
    assert "| default, batch 4 | 50 steps |" in printed
    assert "| diffmic-v1, batch 4 | 1000 steps |" in printed
    assert "| default, batch 1 | plain |" in printed
    assert "| paper-v2, batch 1 | bf16 |" in printed
    assert "| paper-v2, batch 2 | 16 draws |" in printed


def test_the_page_is_timed_without_gradio(tmp_path):
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    told = command("page", tmp_path / "a.png", "--calls", "4")
    assert re.search(r"threads: first call \d+ ms, then \d+–\d+ ms, median \d+ ms", told)


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_plot_writes_a_picture(measured, tmp_path, kind):
    picture = tmp_path / "pictures" / f"speed.{kind}"
    command("plot", measured[0], "--output", picture)
    assert picture.stat().st_size > 5000


def test_predictions_on_another_device_have_no_limits_to_meet(tmp_path):
    file = tmp_path / "speed.json"
    printed = command("gpu", "--device", "cpu", "--quick", "--rounds", 1, "--json", file)
    report = json.loads(file.read_text())
    assert report["factors"]["steps"][0]["seconds"].keys() >= {"10", "50", "encoder"}
    assert report["factors"].keys() == {"steps", "draws"}
    assert report["targets"] == []
    assert "| default, batch 4 | 50 steps |" in printed
    assert "| diffmic-v1, batch 4 | 1000 steps |" in printed
    assert ", cpu, " in printed


def test_parts_can_be_chosen_and_left_out(monkeypatch):
    monkeypatch.setattr(speed, "has_compiler", lambda: True)
    assert speed.wanted(None, None) == list(speed.PARTS)
    assert speed.wanted(["predict.default", "fit"], None) == ["predict.default", "fit"]
    assert speed.wanted(["predict"], None) == ["predict.default", "predict.paper-v2"]
    assert speed.wanted(["factors"], ["factors.steps"]) == [
        part for part in speed.PARTS if part.startswith("factors.") and part != "factors.steps"
    ]
    with pytest.raises(typer.BadParameter, match=r"There is no part 'steps'; there are: predict"):
        speed.wanted(["steps"], None)
    monkeypatch.setattr(speed, "has_compiler", lambda: False)
    assert speed.wanted(None, ["fit"]) == [n for n in speed.PARTS if n not in ("fit", "compile")]


def test_a_part_is_measured_alone(tmp_path):
    file = tmp_path / "speed.json"
    names = ("predict.default", "factors.steps", "v1_factors.steps")
    parts = [word for name in names for word in ("--part", name)]
    printed = command("run", "--quick", "--rounds", 1, *parts, "--json", file)
    report = json.loads(file.read_text())
    assert report["seconds"].keys() == set(names)
    assert {record["model"] for record in report["predict"]} == {"default"}
    assert report["factors"].keys() == {"steps"}
    assert "default, 50 steps / 10 steps" in {row["what"] for row in report["targets"]}
    assert "| default, batch 4 | 50 steps |" in printed
    assert "| diffmic-v1, batch 4 | 1000 steps |" in printed


def test_memory_of_fits_is_measured_alone_and_stays_when_all_else_is_measured_again(tmp_path):
    file = tmp_path / "speed.json"
    printed = command("memory", "--quick", "--json", file)
    report = json.loads(file.read_text())
    records = report["fit_memory"]["records"]
    assert [(r["kind"], r["images"]) for r in records] == [
        (kind, n) for kind in ("JPEG files", "array") for n in QUICK.fit_sizes
    ]
    assert all(r["above_mb"] > 0 for r in records)
    assert [row["at most"] for row in report["targets"]] == [50, 50]
    assert "## Anonymous memory of a fit" in printed
    again = command("run", "--quick", "--rounds", 1, "--part", "factors.steps", "--json", file)
    assert json.loads(file.read_text())["fit_memory"] == report["fit_memory"]
    assert "## Anonymous memory of a fit" in again


def test_a_fit_is_measured_anew_and_all_else_stays(measured, tmp_path):
    file = tmp_path / "speed.json"
    file.write_text(measured[0].read_text())
    printed = command("fit", "--quick", "--images", 20, "--epochs", 1, "--json", file)
    before, report = (json.loads(f.read_text()) for f in (measured[0], file))
    assert report["fit"]["epochs"] == 1
    assert report["fit"]["date"] == report["date"]
    assert f"held out ({report['date']})" in printed
    changed = {name for name in report if report[name] != before[name]}
    assert changed == {"fit", "targets"}


def test_the_commit_is_that_of_the_checkout(tmp_path, monkeypatch):
    def git(*arguments):
        identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        done = subprocess.run(
            ["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    file = tmp_path / "speed.py"
    file.touch()
    monkeypatch.setattr(speed, "__file__", str(file))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert speed.commit() is None
    git("init")
    git("add", ".")
    git("commit", "--message", "first")
    assert speed.commit() == git("rev-parse", "HEAD")
    file.write_text("changed")
    assert speed.commit() == git("rev-parse", "HEAD") + ", changed"


def test_encoding_and_sampling_are_raced_as_they_are_and_compiled():
    record = compiled(QUICK, 2, backend="eager")
    assert record["seconds_to_compile"].keys() == {"encode", "sample"}
    assert record["seconds"].keys() == {
        *("encode", "encode, compiled", "sample", "sample, compiled"),
    }
    assert all(len(seconds) == 2 for seconds in record["seconds"].values())
    circumstances = speed.circumstances()
    assert "| sample |" in tables(circumstances | {"compile": record})


def test_compiling_is_given_up_when_it_takes_too_long():
    record = compiled(replace(QUICK, compile_seconds=0.1), 2)
    assert record == {"given_up_after_seconds": 0.1}
    assert "Given up after 0.1 s" in tables(speed.circumstances() | {"compile": record})


def test_candidates_take_turns_in_either_order(monkeypatch):
    now, called = [0.0], []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])

    def taking(name, seconds):
        def run():
            called.append(name)
            now[0] += seconds

        return run

    seconds = race({"a": taking("a", 0.25), "b": taking("b", 1)}, 2, at_least=0.5)
    assert called[:4] == ["a", "a", "b", "b"]  # warm-up
    assert called[4:] == ["a", "a", "b", "b", "a", "a"]
    assert seconds == {"a": [0.25, 0.25], "b": [1, 1]}


def test_a_ratio_is_that_of_the_same_round():
    floor = np.array([1.0, 1.0, 9.0, 1.0, 5.0])  # a disturbed machine
    assert ratio(1.25 * floor, floor) == pytest.approx(1.25)


def test_tables_and_picture_of_an_earlier_file_can_still_be_made(tmp_path):
    file = BENCHMARKS / "results" / "speed.json"
    assert "| default, batch 32 | fp32 |" in command("table", file)
    command("plot", file, "--output", tmp_path / "speed.png")
    assert (tmp_path / "speed.png").stat().st_size > 5000


def test_targets_are_judged_as_far_as_they_were_measured(monkeypatch):
    wanted = [
        Target("a", lambda report: report["fit"]["a"], 1.3),
        Target("b", lambda report: report["fit"]["b"], 50, at_least=True),
        Target("c", lambda report: report["paper"]["c"], 1),
    ]
    monkeypatch.setattr(targets, "TARGETS", wanted)
    assert verdicts({"fit": {"a": 1.4, "b": 60.0}}) == [
        {"what": "a", "found": 1.4, "at most": 1.3, "met": False},
        {"what": "b", "found": 60.0, "at least": 50, "met": True},
    ]


def test_an_untrained_estimator_predicts_the_same_each_time_it_is_built():
    images = pictures(3, 64)
    one, other = (QUICK.estimator("default", n_classes=4).predict_proba(images) for _ in range(2))
    assert one.shape == (3, 4)
    np.testing.assert_array_equal(one, other)


def test_a_stopwatch_leaves_functions_as_they_were(monkeypatch):
    with stopwatch({"shape": (np, "shape")}) as seconds:
        before = np.shape([1])
    assert before == (1,)
    assert seconds["shape"] > 0
    assert np.shape.__module__ == "numpy"


def test_memory_is_that_of_a_process_of_its_own():
    ballast = np.ones(2**27, np.uint8)  # which a child must not be charged for
    [record] = memory_of(replace(QUICK, batches=(), paper_batches=()))
    assert record["what"] == "encoder"
    assert 0 < record["above_importing_mb"] < ballast.nbytes / 2**20
