"""What importing costs: fresh processes, in turns."""

import subprocess
import sys
from typing import Any

from .timing import Run, race

STATEMENTS = {
    "torch and scikit-learn": "import torch, sklearn",
    "diffmic": "import diffmic",
    "its estimator": "from diffmic import DiffMICClassifier",
}


def imports(rounds: int) -> dict[str, Any]:
    """Seconds of fresh processes, until something is imported."""
    runs = {name: _process(code) for name, code in STATEMENTS.items()}
    return {"seconds": race(runs, rounds, at_least=0)}


def _process(code: str) -> Run:
    at_once = f"{code}; import os; os._exit(0)"  # without taking down what was imported
    return lambda: subprocess.run([sys.executable, "-c", at_once], check=True)
