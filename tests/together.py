"""Fits by several processes; test_distributed.py starts it by torchrun: OUT CASE ..."""

import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny import RECIPE, small, stripes
from torch.utils.data import Dataset

from diffmic import DiffMICClassifier, InputError
from diffmic.model import Architecture

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
    "joint": {
        "recipe": replace(RECIPE, cached=False, n_cached_views=0, joint=True, balance=0.0),
        "max_epochs": 2,
    },
    "zoom": {
        "architecture": Architecture(regions="zoom", feature_dim=16, num_train_timesteps=50),
        "augment": "auto",
        "image_size": 32,
        "max_epochs": 1,
    },
    "bf16": {"precision": "bf16", "max_epochs": 1},
    "fp16": {"precision": "fp16", "max_epochs": 1},
}


def record(case: str, *, distributed: bool) -> dict[str, Any]:
    """What a fit gives, as plain values and tensors."""
    parameters = {"batch_size": 16, "precision": "fp32"} | CASES[case]
    clf = DiffMICClassifier(**small(distributed=distributed, **parameters))
    images = stripes(61, size=96)[0] if case == "zoom" else X
    clf.fit(images, LABELS if case == "few" else y)
    return {
        "proba": torch.from_numpy(clf.predict_proba(images[:20])),
        "prior": torch.from_numpy(clf.predict_proba(images[:20], stage="prior")),
        "weights": {name: tensor.clone() for name, tensor in clf.network_.state_dict().items()},
        "losses": torch.tensor([row["train_loss"] for row in clf.history_]),
        "verdict": repr([clf.validation_scores_, clf.calibrations_, clf.thresholds_]),
    }


def fit_all(out: Path, cases: list[str]) -> None:
    found = {case: record(case, distributed=True) for case in cases}
    torch.save(found, out / f"{os.environ['RANK']}.pt")


class Dying(Dataset[Any]):
    """Images of which one kills the process that reads it, or cannot be read there."""

    def __init__(self, how: str, first: Path) -> None:
        self.how, self.first = how, first

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        others = os.environ["RANK"] != "1" or self.first.exists()
        if not others and epochs_of(self.first.parent):
            if self.how == "restarted":
                self.first.touch()
            if self.how == "unreadable":
                raise OSError("the disk of this machine is gone")
            os.kill(os.getpid(), signal.SIGKILL)
        return X[index], int(y[index])


def epochs_of(out: Path) -> int:
    """Number of checkpoints in a folder: training has begun when there is one."""
    return len([*out.glob("checkpoint-*.safetensors")])


def fit_and_die(how: str, out: Path) -> None:
    """A fit one of whose processes dies in its second epoch; what became of it in this one."""
    clf = DiffMICClassifier(
        **small(distributed=True, precision="fp32", batch_size=16, checkpoint_dir=out)
    )
    try:
        clf.fit(Dying(how, out / "first"), resume=how == "restarted")
    except Exception as reason:
        (out / f"{os.environ['RANK']}.txt").write_text(f"{type(reason).__name__}: {reason}")
        if how == "unreadable":
            wait_for_others(out)
        raise
    (out / f"{os.environ['RANK']}.txt").write_text("fitted")
    if os.environ["RANK"] == "0":
        np.save(out / "proba.npy", clf.predict_proba(X[:20]))


def wait_for_others(out: Path, longest: float = 120.0) -> None:
    """Stay until every process has told what became of it: torchrun kills all when one ends."""
    until = time.monotonic() + longest
    told = [out / f"{rank}.txt" for rank in range(int(os.environ["WORLD_SIZE"]))]
    while not all(each.exists() and each.stat().st_size for each in told):
        if time.monotonic() > until:
            return
        time.sleep(0.05)


def refused(out: Path) -> None:
    """What fits say that cannot be done together, and a fit after them; saved by all at once."""
    rank = int(os.environ["RANK"])
    mine, labels = np.roll(X, rank, axis=0), np.roll(y, rank)
    tried: list[tuple[dict[str, Any], Any, Any]] = [
        ({}, mine, y),
        ({}, X, labels),
        ({}, X[rank:], y[rank:]),
        ({"recipe": "paper-v1"}, X, y),
        ({"time_limit": 60}, X, y),
        ({"max_epochs": 0 if rank else 1}, X, y),
    ]
    told = []
    for parameters, images, targets in tried:
        try:
            DiffMICClassifier(**small(distributed=True, **parameters)).fit(images, targets)
        except InputError as reason:
            told.append(str(reason))
    state = np.random.RandomState(0)
    clf = DiffMICClassifier(**small(distributed=True, max_epochs=1, random_state=state)).fit(X, y)
    told.append(str(state.randint(1000)))
    for _ in range(5):
        clf.save_pretrained(out / "model")
    (out / f"{rank}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    if sys.argv[1] == "refused":
        refused(Path(sys.argv[2]))
    elif sys.argv[1] in ("killed", "unreadable", "restarted"):
        fit_and_die(sys.argv[1], Path(sys.argv[2]))
    else:
        fit_all(Path(sys.argv[1]), sys.argv[2:])
