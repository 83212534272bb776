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
    """Seconds of whole processes that import something and end."""
    runs = {name: _process(code) for name, code in STATEMENTS.items()}
    return {"seconds": race(runs, rounds, at_least=0)}


def _process(code: str) -> Run:
    return lambda: subprocess.run([sys.executable, "-c", code], check=True)
