"""The command as a process: what goes to which stream, and exit codes."""

import csv
import io
import json
import subprocess
import sys

import numpy as np
import pytest

from diffmic import DiffMICClassifier, __version__


def test_help_and_version_do_not_import_torch(command, environment):
    code = (
        "import sys; from diffmic.cli import app\n"
        "try: app(['--help'])\n"
        "finally: assert not {'torch', 'numpy', 'sklearn'} & set(sys.modules), 'imported'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr
    done = command("--version")
    assert done.stdout == f"diffmic {__version__}\n"


def test_listing_models_does_not_import_torch(environment):
    code = "import sys; sys.modules['torch'] = None\nfrom diffmic.cli import app; app(['models'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert b"diffmic-v2-aptos" in done.stdout


def test_every_command_teaches_by_examples(command):
    from typer.main import get_command

    from diffmic.cli import app

    for name, one in get_command(app).commands.items():
        assert f"    diffmic {name}" in one.help, name


def test_wrong_usage_exits_with_2_and_a_wrong_model_with_1_in_one_line(command):
    assert command("predict").returncode == 2
    done = command("info", "no-such-model")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("diffmic: There is no saved model")
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_predict_goes_on_past_unreadable_files_and_tells_them_at_the_end(saved, photos, command):
    bad = photos.parent / "bad.png"
    bad.write_bytes(b"no image")
    done = command("predict", saved, bad, photos, "nowhere.png", "--batch-size", 8)
    assert done.returncode == 3
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert list(rows[0]) == ["file", "predicted", "p_across", "p_along", "p_plain"]
    files = sorted(photos.glob("*/*.png"))
    assert [row["file"] for row in rows] == list(map(str, files))
    proba = DiffMICClassifier.from_pretrained(saved).predict_proba(files)
    found = [[float(row[name]) for name in list(row)[2:]] for row in rows]
    np.testing.assert_allclose(found, proba, atol=1e-5)
    assert [row["predicted"] for row in rows] == [
        ["across", "along", "plain"][c] for c in proba.argmax(1)
    ]
    lines = done.stderr.splitlines()
    assert str(bad) in lines[0]
    assert "nowhere.png" in lines[1]
    assert "2 of 32 could not be read; 30 predictions" in lines[2]
    assert len(lines) == 3


@pytest.mark.slow
def test_predict_works_in_a_pipe_and_is_quiet_when_nobody_reads(saved, photos, environment):
    arguments = ["predict", str(saved), "-", "--format", "jsonl", "--batch-size", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "diffmic", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )
    file = next(photos.glob("*/*.png"))
    process.stdin.write(f"{file}\n{file}\n".encode())
    process.stdin.flush()
    first = json.loads(process.stdout.readline())  # before the list has ended
    assert first["file"] == str(file)
    process.stdout.close()
    try:
        process.stdin.write(f"{file}\n".encode() * 100)
        process.stdin.close()
    except BrokenPipeError:
        pass
    process.stdin = None
    _, told = process.communicate()
    assert process.returncode == 141
    assert told == b""


@pytest.mark.slow
def test_evaluate_inspect_and_info_write_json_for_other_programs(saved, photos, command):
    done = command("evaluate", saved, photos, "--resamples", 10, "--format", "json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert {row["stage"] for row in rows} == {"prior", "diffusion", "diffusion_alone"}
    assert {row["metric"] for row in rows} >= {"accuracy", "sensitivity"}
    done = command("info", saved, "--json")
    assert json.loads(done.stdout)["classes"] == ["across", "along", "plain"]
    (photos / "along" / "copy.png").write_bytes(next(photos.glob("across/*.png")).read_bytes())
    try:
        done = command("inspect", photos, "--json")
    finally:
        (photos / "along" / "copy.png").unlink()
    assert done.returncode == 3
    found = json.loads(done.stdout)
    assert len(found["conflicts"]) == 1
    assert found["images"] == 31
