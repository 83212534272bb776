"""The environment of a process that imports this checkout, without a network."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def environment():
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
