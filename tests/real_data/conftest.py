"""Real images, from the folder that DIFFMIC_DATA names."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_folder() -> Path:
    folder = os.environ.get("DIFFMIC_DATA")
    if not folder:
        pytest.skip("DIFFMIC_DATA does not name a folder of images")
    return Path(folder)
