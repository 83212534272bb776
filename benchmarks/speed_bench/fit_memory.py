"""Anonymous memory of fits on few and on many images, each in a process of its own.

``python -m speed_bench.fit_memory '{"kind": …}'`` is such a process; it prints megabytes as JSON.
"""

import json
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torchvision
from numpy.typing import NDArray
from PIL import Image

from diffmic import DiffMICClassifier, DiffMICWarning
from diffmic.training import resolve_recipe

from .models import TINY, Settings
from .processes import STATUS, in_a_process, own_megabytes

KINDS = ("JPEG files", "array")
SIZE = 64  # pixels of a side
LATER = (timm, torchvision)  # a fit imports them: not what its images take


def memory_of_fits(settings: Settings) -> list[dict[str, Any]]:
    """Peaks of a fit and a prediction above what there was before, for both kinds of images, in MB.

    The network is tiny, but what stage two keeps of each image is not: 7 kB.
    """
    if not STATUS.is_file():
        raise SystemExit(f"Memory of fits is read from {STATUS}, which only Linux has.")
    with tempfile.TemporaryDirectory() as folder:
        for number, image in enumerate(_noise(max(settings.fit_sizes))):
            Image.fromarray(image).save(_file(folder, number), quality=90)
        jobs = [
            {"kind": kind, "images": n, "folder": folder}
            for kind in KINDS
            for n in settings.fit_sizes
        ]
        found = [job | in_a_process("fit_memory", job, settings) for job in jobs]
    return [{name: value for name, value in f.items() if name != "folder"} for f in found]


def _noise(n_images: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (n_images, SIZE, SIZE), np.uint8)


def _file(folder: str, number: int) -> Path:
    return Path(folder) / f"{number}.jpg"


@contextmanager
def _watched() -> Iterator[list[float]]:
    """The first entry is the peak of anonymous memory inside, in MB."""
    peak, over = [own_megabytes("RssAnon")], threading.Event()

    def watch() -> None:
        while not over.is_set():
            peak[0] = max(peak[0], own_megabytes("RssAnon"))
            time.sleep(0.01)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


def main(task: dict[str, Any]) -> None:
    """Fit and predict once; print what that took beside the images themselves."""
    torch.set_num_threads(task["threads"])
    n_images, settings = task["images"], Settings(default=TINY)
    X: Any = _noise(n_images)
    if task["kind"] == "JPEG files":
        X = [_file(task["folder"], number) for number in range(n_images)]
    clf = DiffMICClassifier(
        **settings.parameters("default"),
        image_size=SIZE,
        recipe=replace(resolve_recipe("default"), n_cached_views=1),
        max_epochs=1,
        validation_fraction=0.05,
        device="cpu",
        random_state=0,
        verbose=0,
    )
    before, started = own_megabytes("RssAnon"), time.perf_counter()
    with warnings.catch_warnings(), _watched() as peak:
        warnings.simplefilter("ignore", DiffMICWarning)
        clf.fit(X, np.arange(n_images) % 3).predict_proba(X)
    seconds = round(time.perf_counter() - started, 1)
    print(json.dumps({"before_mb": before, "above_mb": peak[0] - before, "seconds": seconds}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
