"""Fits by several processes; test_distributed.py starts it by torchrun: OUT CASE ..."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny import RECIPE, small, stripes

from diffmic import DiffMICClassifier

X, y = stripes(61)  # 46 for training: no batch is shared out evenly
LABELS = np.stack([y == 0, y < 2], axis=1).astype(float)
LABELS[3, 1] = np.nan
CASES: dict[str, dict[str, Any]] = {
    # Batches of 16 and a last one of 14; dropout and noise.
    "default": {"recipe": replace(RECIPE, context_dropout=0.3, feature_noise=1.0)},
    "uncached": {
        "recipe": replace(RECIPE, cached=False, n_cached_views=0, batch_size=15),
        "region_backbone": "test_resnet",
        "pretrained": False,
        "image_size": 64,
        "max_epochs": 1,
    },
    # A last batch of 2, of which only two processes have an image; in stage two, 3 or 4 of 3.
    "few": {"batch_size": 11, "recipe": replace(RECIPE, batch_size=3), "max_epochs": 2},
    "unvalidated": {"validation_fraction": None, "max_epochs": 1},
}


def record(case: str, *, distributed: bool) -> dict[str, Any]:
    """What a fit gives, as plain values and tensors."""
    parameters = {"batch_size": 16, "precision": "fp32"} | CASES[case]
    clf = DiffMICClassifier(**small(distributed=distributed, **parameters))
    clf.fit(X, LABELS if case == "few" else y)
    return {
        "proba": torch.from_numpy(clf.predict_proba(X[:20])),
        "prior": torch.from_numpy(clf.predict_proba(X[:20], stage="prior")),
        "weights": {name: tensor.clone() for name, tensor in clf.network_.state_dict().items()},
        "losses": torch.tensor([row["train_loss"] for row in clf.history_]),
        "verdict": repr([clf.validation_scores_, clf.calibrations_, clf.thresholds_]),
    }


def fit_all(out: Path, cases: list[str]) -> None:
    found = {case: record(case, distributed=True) for case in cases}
    torch.save(found, out / f"{os.environ['RANK']}.pt")


if __name__ == "__main__":
    fit_all(Path(sys.argv[1]), sys.argv[2:])
