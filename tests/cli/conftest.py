"""A tiny saved model, a folder per class, and the command as a process."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from PIL import Image
from tiny import small, stripes

from diffmic import DiffMICClassifier, DiffMICWarning

NAMES = ["across", "along", "plain"]


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """Folder of a saved model with a backbone that timm knows, of three named classes."""
    folder = tmp_path_factory.mktemp("command") / "model"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DiffMICWarning)
        clf = DiffMICClassifier(
            **small(backbone="test_resnet", pretrained=False, class_names=NAMES)
        )
        clf.fit(*stripes(60)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A folder per class with 30 images."""
    folder = tmp_path_factory.mktemp("photos")
    write(folder, *stripes(30, seed=1))
    return folder


def write(folder, X, y):
    for number, (image, label) in enumerate(zip(X, y, strict=True)):
        (folder / NAMES[label]).mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / NAMES[label] / f"{number:03}.png")


@pytest.fixture
def command(tmp_path, environment):
    """Run the command as a process, in an empty folder."""

    def run(*arguments, **how):
        return subprocess.run(
            [sys.executable, "-m", "diffmic", *map(str, arguments)],
            capture_output=True,
            text=True,
            **{"cwd": tmp_path, "env": environment} | how,
        )

    return run


@pytest.fixture(scope="session")
def environment():
    """Environment of a process that imports this checkout, without a network."""
    root = str(Path(__file__).parents[2])
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": root, "HF_HUB_OFFLINE": "1"}
