"""How long stage one waits for its images: read, augmented and put into batches."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from accuracy_bench import encoders
from accuracy_bench.encoders import Job
from accuracy_bench.methods import OURS
from accuracy_bench.tasks import DataSet, Parts
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _BaseDataLoaderIter

from diffmic.data import LabelledImages
from diffmic.model import DiffMICNetwork
from diffmic.random import LocalRNG
from diffmic.tasks import MULTICLASS
from diffmic.training import TrainingOptions
from diffmic.training.precision import to_device, training_precision
from diffmic.training.prior_stage import train_prior

from .fit import part_of, stopwatch
from .models import Settings, pictures
from .predict import image_files

WORKERS = (0, 2)


def pipeline(settings: Settings) -> list[dict[str, Any]]:
    """An epoch of stage one from arrays and from larger JPEG files, with and without workers."""
    n_images, size = settings.epoch_images, settings.image_size
    y = np.arange(n_images) % settings.n_classes
    data_set = DataSet("generated", size, max_epochs=1)
    records = []
    with (
        patch.dict(encoders.DEFAULTS, settings.parameters("default")),
        image_files(settings) as files,
    ):
        sources: dict[str, Any] = {
            f"array of {size} px": pictures(n_images, size),
            f"JPEG of {settings.large_size} px": np.resize(np.array(files, object), n_images),
        }
        for kind, X in sources.items():
            part = part_of(X, y, settings.n_classes)
            parts = Parts(part, part, part, list(range(settings.n_classes)), MULTICLASS, y)
            job = Job("generated", data_set, 0, parts, Path(), verbose=0)
            network = job.network(OURS, pretrained=False)
            _epoch(network, part, job.options(OURS))  # the first is slower
            for n_workers in WORKERS:
                seconds = _epoch(network, part, replace(job.options(OURS), num_workers=n_workers))
                records.append({"images": kind, "number": n_images, "workers": n_workers} | seconds)
    return records


def _epoch(
    network: DiffMICNetwork, part: LabelledImages, options: TrainingOptions
) -> dict[str, Any]:
    """Seconds of an epoch, and of those the ones in which the network waits for images."""
    to_device(network, options.device)
    precision = training_precision(options.precision, options.device, network.prior)
    watched = {"starting": (DataLoader, "__iter__"), "waiting": (_BaseDataLoaderIter, "__next__")}
    rng = LocalRNG(options.seed)
    with stopwatch(watched) as seconds:
        started = time.perf_counter()
        train_prior(network, part, options, precision=precision, rng=rng, evaluate=None, history=[])
        whole = time.perf_counter() - started
    waited = seconds["starting"] + seconds["waiting"]
    found = {"whole": whole, "waiting": waited, "share": waited / whole}
    return found | {"threads": torch.get_num_threads()}
