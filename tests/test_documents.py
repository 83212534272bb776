"""Documents that run: docstring examples, the quickstart notebook, the README's commands."""

import doctest
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "name", ["diffmic.classifier", "diffmic.datasets.inspecting", "diffmic.datasets.lesions"]
)
def test_examples_in_docstrings_are_true(name):
    results = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert results.attempted > 0
    assert results.failed == 0


@pytest.mark.slow
def test_the_quickstart_notebook_runs_and_beats_chance(tmp_path, monkeypatch):
    monkeypatch.delenv("MPLBACKEND", raising=False)  # the notebook shows its pictures itself
    path = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    monkeypatch.setenv("PYTHONPATH", path)  # the kernel, which starts elsewhere, tests this copy
    notebook = nbformat.read(ROOT / "examples" / "quickstart.ipynb", as_version=4)
    client = NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    text = "".join(
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])
    )
    accuracies = {
        m[1]: float(m[2]) for m in re.finditer(r"(prior|diffusion) \{'accuracy': ([\d.]+)", text)
    }
    assert accuracies.keys() == {"prior", "diffusion"}
    assert min(accuracies.values()) > 0.5  # of three equally frequent classes
    pictures = [
        o
        for cell in notebook.cells
        for o in cell.get("outputs", [])
        if "image/png" in o.get("data", {})
    ]
    assert len(pictures) == 3


def test_the_stored_notebook_holds_no_errors():
    notebook = nbformat.read(ROOT / "examples" / "quickstart.ipynb", as_version=4)
    kinds = [o["output_type"] for cell in notebook.cells for o in cell.get("outputs", [])]
    assert "error" not in kinds


@pytest.mark.slow
def test_the_example_script_trains_on_a_folder_per_class(tmp_path):
    from PIL import Image

    from diffmic.datasets import make_lesions

    X, y = make_lesions(60, image_size=32, random_state=0)
    for number, (image, label) in enumerate(zip(X, y, strict=True)):
        folder = tmp_path / f"class{label}"
        folder.mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / f"{number}.png")
    options = ["--backbone", "test_resnet", "--from-scratch", "--epochs", "1"]
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "train_on_folder.py", tmp_path, *options],
        check=True,
        capture_output=True,
        text=True,
    )
    rows = {line.strip("| ").split(" | ")[0] for line in done.stdout.splitlines()}
    expected = {"accuracy", "balanced accuracy", "macro F1", "macro AUC"}
    assert expected | {"expected calibration error"} <= rows
    assert "12 test images" in done.stdout


@pytest.mark.slow
def test_the_bundled_model_grades_scikit_images_retina_without_a_network(tmp_path):
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "empty")}
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "grade_retina.py"],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
    )
    rows = [line.split() for line in done.stdout.splitlines()[1:6]]
    proba = {int(row[0]): (float(row[-2]), float(row[-1])) for row in rows}
    assert sorted(proba) == [0, 1, 2, 3, 4]
    assert min(proba[0]) > 0.9  # a healthy eye
    assert (tmp_path / "retina-regions.png").stat().st_size > 10_000
