"""Images of a CPU second through Ray Data, a worker with one thread, beside one such process."""

import os
import tempfile
import threading
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image

from diffmic import scale

from .models import Settings, pictures


def through_ray(settings: Settings, n_images: int, workers: int, rounds: int) -> dict[str, Any]:
    """One process, and :func:`diffmic.scale.predict`, in turns.

    ``ratio_per_core`` is that of images in a CPU second of the workers, after their first share,
    to those of the process, so that other work on the machine has no part in it. What starting the
    workers takes is in ``ray_seconds``. Linux alone: processes are looked up in ``/proc``.
    """
    import ray

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    clf = settings.estimator("default").set_params(batch_size=settings.batch)
    share = scale.share_size(n_images, workers, settings.batch)
    found = []
    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
    try:
        with tempfile.TemporaryDirectory() as folder:
            files = _files(Path(folder), settings, n_images)
            clf.predict_proba(files[: settings.batch])
            for number in range(rounds):
                began, cpu = time.perf_counter(), time.process_time()
                proba = clf.predict_proba(files)
                alone = n_images / (time.process_time() - cpu)
                seconds = {"alone_seconds": time.perf_counter() - began}
                out, began = Path(folder, f"out-{number}"), time.perf_counter()
                with _Watch(out) as watch:
                    scale.predict(files, clf, out, concurrency=workers)
                seconds["ray_seconds"] = time.perf_counter() - began
                rates = {"alone": alone, "worker": watch.shares_a_second() * share}
                found.append(rates | seconds | {"difference": _difference(out, proba)})
    finally:
        ray.shutdown()
        torch.set_num_threads(before)
    return {
        "images": n_images,
        "workers": workers,
        "ratio_per_core": round(median(each["worker"] / each["alone"] for each in found), 3),
        "rounds": found,
    }


def _files(folder: Path, settings: Settings, n_images: int) -> list[Path]:
    """JPEG files with as many names as there are images."""
    some = pictures(settings.batch, settings.large_size)
    files = [folder / f"{number:06}.jpg" for number in range(n_images)]
    for number, file in enumerate(files):
        if number < len(some):
            Image.fromarray(some[number]).save(file, quality=90)
        else:
            file.symlink_to(files[number % len(some)])
    return files


class _Watch:
    """Number of shares that are done, and CPU seconds of the workers, as both rise."""

    def __init__(self, out: Path) -> None:
        self.out, self.over, self.cpu = out, threading.Event(), 0.0
        self.seen: dict[int, float] = {}  # CPU seconds at which so many shares were seen first

    def __enter__(self) -> "_Watch":
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()
        self.seen[len(list(self.out.glob("*.parquet")))] = self.cpu  # the last end with the worker

    def _watch(self) -> None:
        while not self.over.wait(0.05):
            self.cpu = max(self.cpu, _cpu_seconds())
            if done := len(list(self.out.glob("*.parquet"))):
                self.seen.setdefault(done, self.cpu)

    def shares_a_second(self) -> float:
        """Shares in a CPU second after the first."""
        first, last = min(self.seen), max(self.seen)
        return (last - first) / (self.seen[last] - self.seen[first])


def _cpu_seconds() -> float:
    """CPU seconds of the workers of Ray Data that run now."""
    ticks = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if b"MapWorker" in (process / "cmdline").read_bytes():
                fields = (process / "stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])  # user and system
        except OSError:  # it has ended
            continue
    return ticks / os.sysconf("SC_CLK_TCK")


def _difference(out: Path, proba: Any) -> float:
    """Largest difference of a probability."""
    import pyarrow.parquet as pq

    rows = pq.read_table(out).sort_by("file")
    columns = [name for name in rows.column_names if name.startswith("p_")]
    found = np.stack([rows[name].to_numpy() for name in columns], axis=1)
    return float(np.abs(found - proba).max())
