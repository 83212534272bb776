"""Images a second through Ray Data, a worker with one thread, beside one process with one."""

import tempfile
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
    """Seconds of one process, and of :func:`diffmic.scale.predict`, in turns.

    ``ratio_per_worker`` is that of the rate of a worker, between its first share and its last, to
    that of the process: what starting Ray and loading the model takes is told beside it.
    """
    import ray

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    clf = settings.estimator("default").set_params(batch_size=settings.batch)
    found = []
    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
    try:
        with tempfile.TemporaryDirectory() as folder:
            files = _files(Path(folder), settings, n_images)
            clf.predict_proba(files[: settings.batch])
            for number in range(rounds):
                started = time.perf_counter()
                proba = clf.predict_proba(files)
                alone = time.perf_counter() - started
                out = Path(folder, f"out-{number}")
                started = time.perf_counter()
                scale.predict(files, clf, out, concurrency=workers)
                found.append(_round(out, proba, alone, time.perf_counter() - started, workers))
    finally:
        ray.shutdown()
        torch.set_num_threads(before)
    return {
        "images": n_images,
        "workers": workers,
        "ratio_per_worker": round(median(each["ratio"] for each in found), 3),
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


def _round(out: Path, proba: Any, alone: float, whole: float, workers: int) -> dict[str, float]:
    """Rates of a round, and the largest difference of a probability."""
    import pyarrow.parquet as pq

    parts = sorted(out.glob("*.parquet"), key=lambda part: part.stat().st_mtime)
    shares = [pq.read_table(part).sort_by("file") for part in parts]
    rows = pq.read_table(out).sort_by("file")
    columns = [name for name in rows.column_names if name.startswith("p_")]
    there = np.stack([rows[name].to_numpy() for name in columns], axis=1)
    seconds = parts[-1].stat().st_mtime - parts[workers - 1].stat().st_mtime
    n_images = sum(len(share) for share in shares[workers:])
    rate = n_images / seconds / workers
    return {
        "alone_images_a_second": round(len(proba) / alone, 2),
        "worker_images_a_second": round(rate, 2),
        "ratio": rate / (len(proba) / alone),
        "ray_seconds_in_all": round(whole, 1),
        "largest_difference": float(np.abs(there - proba).max()),
    }
