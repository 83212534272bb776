"""What a user gets: the wheel, the sdist, the public names, and what an import costs."""

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Wheel and sdist of the checkout, built with the hatchling that is installed."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT],
        check=True,
        capture_output=True,
    )
    return next(folder.glob("*.whl")), next(folder.glob("*.tar.gz"))


def modules():
    return {str(f.relative_to(ROOT)) for f in (ROOT / "diffmic").rglob("*.py")}


@pytest.mark.packaging
def test_the_wheel_holds_every_module_the_bundled_weights_and_nothing_else(built):
    names = {n for n in zipfile.ZipFile(built[0]).namelist() if ".dist-info/" not in n}
    bundled = {
        f"diffmic/hub/bundled/diffmic-v2-aptos/{name}"
        for name in ("config.json", "model.safetensors", "README.md", "NOTICE")
    }
    assert names == modules() | {"diffmic/py.typed", "diffmic/app/page.css"} | bundled
    assert built[0].stat().st_size < 15e6


@pytest.mark.packaging
def test_the_wheel_names_licence_script_and_extras(built):
    wheel = zipfile.ZipFile(built[0])
    text = {n.split("/", 1)[1]: n for n in wheel.namelist() if ".dist-info/" in n}
    assert "licenses/LICENSE" in text
    assert "diffmic = diffmic.cli:app" in wheel.read(text["entry_points.txt"]).decode()
    metadata = wheel.read(text["METADATA"]).decode()
    assert "License-Expression: Apache-2.0" in metadata
    for extra in ("pretrained", "plots", "test", "all"):
        assert f"Provides-Extra: {extra}" in metadata


@pytest.mark.packaging
def test_the_sdist_holds_what_building_and_testing_need_and_no_pictures(built):
    with tarfile.open(built[1]) as archive:
        names = {n.split("/", 1)[1] for n in archive.getnames() if "/" in n}
    assert modules() <= names
    needed = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "tests/oldest.txt"}
    assert needed | {"tests/conftest.py", "tests/reference/diffmic-v2-aptos.json"} <= names
    assert not [n for n in names if n.lower().endswith((".jpg", ".jpeg", ".pth", ".pkl", ".npz"))]
    assert not [n for n in names if n.startswith("zoo/models/")]


def test_lower_bounds_are_the_versions_that_are_tested():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = map(
        Requirement, project["dependencies"] + project["optional-dependencies"]["plots"]
    )
    bounds = {r.name: str(r.specifier).replace(">=", "==") for r in requirements}
    lines = (ROOT / "tests" / "oldest.txt").read_text().splitlines()
    tested = [Requirement(line) for line in lines if not line.startswith("#")]
    assert {r.name: str(r.specifier) for r in tested} == bounds


def test_the_container_installs_a_part_of_the_requirements():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    known = {*project["dependencies"], *chain(*project["optional-dependencies"].values())}
    lines = (ROOT / "requirements-service.txt").read_text().splitlines()
    listed = {line for line in lines if not line.startswith("#")}
    assert listed - known == set()
    assert set(project["optional-dependencies"]["service"]) <= listed


def test_no_module_is_longer_than_400_lines():
    lengths = {
        name: len((ROOT / name).read_text(encoding="utf-8").splitlines()) for name in modules()
    }
    assert "diffmic/classifier.py" in lengths
    assert {name: n for name, n in lengths.items() if n > 400} == {}


def run_python(code):
    return subprocess.run(
        [sys.executable, "-P", "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()


def test_importing_the_package_brings_neither_torch_nor_timm():
    heavy = "torch timm torchvision matplotlib sklearn typer"
    loaded = run_python(
        f"import sys, diffmic; print(*[m for m in '{heavy}'.split() if m in sys.modules])"
    )
    assert loaded == []


def test_importing_the_estimator_leaves_what_it_does_not_need_yet_for_later():
    later = "timm torchvision matplotlib sklearn.metrics sklearn.model_selection"
    loaded = run_python(
        "import sys; from diffmic import DiffMICClassifier;"
        f"print(*[m for m in '{later}'.split() if m in sys.modules])"
    )
    assert loaded == []


def test_public_names_are_there_and_unknown_ones_are_not():
    import diffmic

    for name in diffmic.__all__:
        assert getattr(diffmic, name) is not None
        assert name in dir(diffmic)
    with pytest.raises(AttributeError, match="no_such_name"):
        getattr(diffmic, "no_such_name")  # noqa: B009


RUNS = [".ci/run", ".github/workflows/tests.yml"]


@pytest.mark.skipif(not (ROOT / RUNS[0]).exists(), reason="not in the sdist")
def test_the_files_that_ci_runs_are_there_and_the_workflow_runs_them_too():
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in RUNS]
    here, there = [set(re.findall(r"tests/[\w/.]+", text)) for text in texts]
    assert len(here) > 5
    assert here == there
    assert [name for name in here if not (ROOT / name).exists()] == []
