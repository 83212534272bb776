"""Fits that are killed again and again, and go on; run by test_resume.py in a process of its own.

Prints a line of JSON for each: digests of what an undisturbed fit and a killed one ended with.
"""

import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

import torch
from tiny import RECIPE, small, stripes

import diffmic.training.checkpoint as checkpoint
from diffmic import DiffMICClassifier

RECIPES = {
    "cached": replace(RECIPE, context_dropout=0.3, feature_noise=1.0),
    "joint": replace(RECIPE, cached=False, n_cached_views=0, joint=True, balance=0.0),
}
# Calls before which a fit is killed: in a write, while stage two is prepared, in the calibration.
PLACES = ["fsync", "replace", "unlink", "build_cache", "train_jointly", "verdict", "cross_fitted"]
FITS = stripes(50)
NEW = stripes(20, seed=1)[0]


class Killer:
    """Kills this process at a call of any Python or C function, by its number or name."""

    def __init__(self, at, name=None):
        self.left, self.name = at, name

    def __call__(self, frame, event, argument):
        if event not in ("call", "c_call"):
            return
        called = frame.f_code.co_name if event == "call" else argument.__name__
        if self.name in (None, called):
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def fitted(parameters, **options):
    warnings.simplefilter("ignore")
    classifier = DiffMICClassifier(**parameters).fit(*FITS, **options)
    found = hashlib.sha256()
    for tensor in classifier.network_.state_dict().values():
        found.update(tensor.contiguous().numpy().tobytes())
    for stage in ("prior", "diffusion"):
        found.update(classifier.predict_proba(NEW, stage=stage).tobytes())
    rows = [{k: v for k, v in r.items() if k != "seconds"} for r in classifier.history_]
    found.update(json.dumps([rows, classifier.validation_scores_]).encode())
    return found.hexdigest()


def in_a_child(work):
    """Result of a function in a forked process; None: it was killed."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, str(work()).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as result:
        said = result.read()
    _, status = os.waitpid(child, 0)
    assert said or os.WTERMSIG(status) == signal.SIGKILL
    return said or None


def main(name, n_kills, seed):
    torch.set_num_threads(1)  # before anything forks
    checkpoint.EVERY = 0.0  # after each batch
    draw = random.Random(seed)
    parameters = small(recipe=RECIPES[name], batch_size=8, max_epochs=2)
    expected = fitted(parameters)

    def count():
        killer = Killer(0)
        sys.setprofile(killer)
        fitted(parameters)
        sys.setprofile(None)
        return -killer.left

    n_calls = int(in_a_child(count))
    places, kills = [*PLACES], 0
    while kills < n_kills:
        with tempfile.TemporaryDirectory() as folder:
            result = None
            while result is None:
                killer = Killer(draw.randrange(1, n_calls))
                if kills % 3 == 0 and places:
                    place = places.pop()
                    killer = Killer(draw.randrange(1, 9) if place == "fsync" else 1, place)

                def work(killer=killer if kills < n_kills else None, folder=folder):
                    sys.setprofile(killer)
                    went_on = any(Path(folder).iterdir())
                    found = fitted(parameters | {"checkpoint_dir": folder}, resume=True)
                    return f"{found} {went_on}"

                result = in_a_child(work)
                kills += result is None
            found, went_on = result.split()
            print(json.dumps([expected, found, went_on]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
