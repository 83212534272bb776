"""Documents that run: docstring examples, the quickstart notebook, the README's commands."""

import doctest
import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]


WITH_EXAMPLES = sorted(
    ".".join(file.relative_to(ROOT).with_suffix("").parts)
    for file in (ROOT / "diffmic").rglob("*.py")
    if ">>> " in file.read_text(encoding="utf-8")
)
SKIPPED = {"diffmic.scale"}  # its only example needs a cluster
PUBLIC = [
    "diffmic",
    "diffmic.app",
    "diffmic.callbacks",
    "diffmic.convert",
    "diffmic.datasets",
    "diffmic.parts",
    "diffmic.plots",
    "diffmic.scale",
    "diffmic.service",
]
DOCS = ROOT / "docs"


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_in_docstrings_are_true(name):
    if name in SKIPPED:
        pytest.skip("its only example needs a cluster")
    results = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert results.attempted > 0
    assert results.failed == 0


def _in_the_reference(module, name, text):
    """Whether the page names it, also under the module where it is documented."""
    kind = getattr(importlib.import_module(module), name)
    if isinstance(kind, type) and issubclass(kind, Exception | Warning):
        return kind.__module__ == "diffmic.errors" or f"autoclass:: {module}.{name}\n" in text
    return re.search(rf"(auto\w+:: diffmic[\w.]*\.|`){name}(\n|`)", text) is not None


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_is_in_the_reference(module):
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    names = [n for n in importlib.import_module(module).__all__ if n != "__version__"]
    assert names
    assert [n for n in names if not _in_the_reference(module, n, text)] == []


def test_what_the_pages_import_is_in_the_reference():
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    pages = "\n".join(
        p.read_text(encoding="utf-8") for p in [*DOCS.glob("*.md"), ROOT / "README.md"]
    )
    imported = re.findall(r"^ *from (diffmic[\w.]*) import (\([^)]*\)|[^`\n(]+)$", pages, re.M)
    assert len(imported) > 20
    missing = {
        f"{module}.{name}"
        for module, names in imported
        for name in re.findall(r"\w+", names)
        if not name.islower() or callable(getattr(importlib.import_module(module), name, None))
        if not _in_the_reference(module, name, text)
    }
    assert missing == set()


def test_every_method_of_the_estimator_is_in_the_reference():
    from diffmic import DiffMICClassifier

    text = (DOCS / "api.md").read_text(encoding="utf-8")
    listed = re.search(r"diffmic\.DiffMICClassifier\n +:members: (.*)", text)[1].split(", ")
    own = {
        name
        for kind in DiffMICClassifier.__mro__
        if kind.__module__.startswith("diffmic")
        for name, value in vars(kind).items()
        if not re.match(r"_|(get|set)_params$|set_\w+_request$", name)
        and not isinstance(value, property)
        and callable(getattr(DiffMICClassifier, name, None))
    }
    assert own - set(listed) == set()


def _anchors(text):
    """Anchors of the headings, made as MyST makes them."""
    headings = re.findall(r"^##? (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", ["howto.md", "index.md"])
def test_links_of_the_first_pages_lead_to_headings(page):
    text = (DOCS / page).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([\w-]*\.md)?(?:#([\w-]+))?\)", text)
    assert links
    for file, anchor in links:
        target = (DOCS / (file or page)).read_text(encoding="utf-8")
        assert not anchor or anchor in _anchors(target), (file, anchor)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")
def test_the_examples_of_how_to_run():
    text = (DOCS / "howto.md").read_text(encoding="utf-8")
    cells = re.findall(r"^```\{code-cell\} ipython3\n(.*?)^```$", text, re.M | re.S)
    space: dict[str, object] = {}
    for number, cell in enumerate(cells):
        exec(compile(cell, f"howto.md, cell {number}", "exec"), space)
    assert space["clf"].get_params()["num_steps"] == 2
    X_new = space["X_new"]
    assert space["again"].predict_proba(X_new) == pytest.approx(
        space["clf"].predict_proba(X_new), abs=1e-6
    )


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_what_the_first_pages_show_runs_in_an_empty_folder(page, tmp_path):
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```(python)?\n(.*?)^```$", text, re.M | re.S)
    path = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub"), "PYTHONPATH": path}
    (tmp_path / "empty").mkdir()

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path / "empty",
            env=os.environ | environment,
        )
        assert done.returncode == 0, (arguments, done.stderr)

    for language, code in blocks:
        if language:
            run("-c", code)
    if page == "README.md":
        lines = "".join(code for language, code in blocks if not language).splitlines()
        commands = [shlex.split(line, comments=True) for line in lines]
        commands = [words[1:] for words in commands if words and words[0] == "diffmic"]
        assert len(commands) > 4
        for words in commands:
            run("-m", "diffmic", *words, *(["--help"] if words[0] == "app" else []))
        made = {path.name for path in (tmp_path / "empty").iterdir()}
        assert made == {"my-model", "photos", "trained", "predictions.csv", "pictures"}


def test_the_readme_names_files_that_exist_and_comes_to_the_tests_last():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"(?:docs|examples|zoo)/[\w.]*", text))
    assert len(named) > 8
    assert [name for name in named if not (ROOT / name).exists()] == []
    assert text.index("![") < text.index("## Install") < text.index("## Use")
    assert text.index("## Use") < text.index("## Tests")


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
