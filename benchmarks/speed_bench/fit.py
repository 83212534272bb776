"""What a fit costs: plain fine-tuning of the same backbone against both stages, and its parts."""

import statistics
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from accuracy_bench import encoders
from accuracy_bench.encoders import Job
from accuracy_bench.methods import OURS
from accuracy_bench.tasks import DataSet, Parts

from diffmic import DiffMICClassifier, DiffMICWarning
from diffmic.data import LabelledImages, PreparedImages, read_inputs
from diffmic.datasets import make_lesions
from diffmic.estimator import engines
from diffmic.inference import Engine, encode_images
from diffmic.tasks import MULTICLASS
from diffmic.training import diffusion_stage, evaluation
from diffmic.training import fit as whole_fit
from diffmic.training.diffusion_stage import cached_batch_size, cached_steps

from .models import Settings

VALIDATION_FRACTION = 0.15
N_ENCODINGS = 3
LARGER = (1_000, 3_000, 10_000)  # images for which the ratio is reckoned


def fitting(settings: Settings, n_images: int, epochs: int) -> dict[str, Any]:
    """Seconds of a default fit and of plain fine-tuning, on the same images and for as long.

    Plain fine-tuning is that of the accuracy benchmark: the same loop, augmentation, optimizer
    and validation after each epoch. Half of its epochs run before ours and half after it, so that
    a machine that grows slower or faster does so for both.
    """
    X, y = make_lesions(n_images, image_size=settings.image_size, random_state=0)
    n_val = max(1, round(VALIDATION_FRACTION * n_images))
    train, val = (X[n_val:], y[n_val:]), (X[:n_val], y[:n_val])
    with patch.dict(encoders.DEFAULTS, settings.parameters("default")):
        plain = _plain(settings, train, val, epochs - epochs // 2)
        clf, ours = _ours(settings, train, val, epochs)
        if epochs > 1:
            after = _plain(settings, train, val, epochs // 2)
            plain = {name: seconds + after[name] for name, seconds in plain.items()}
    n_train, batch = len(train[0]), clf.batch_size
    n_steps = epochs * (n_train // batch + (n_train % batch > 1))
    cached_rows = epochs * _cached_steps(n_train) * cached_batch_size(n_train, OURS)
    cached = 1000 * ours["stage two"] / cached_rows
    encoded = 1000 * _encoding(clf, train[0]) / n_train
    return {
        "images": {"training": n_train, "validation": n_val},
        "epochs": epochs,
        "batch_size": batch,
        "threads": torch.get_num_threads(),
        "plain_seconds": plain,
        "plain_ms_per_step": 1000 * plain["steps"] / n_steps,
        "seconds": ours,
        "shares": {name: s / ours["whole"] for name, s in ours.items() if name != "whole"},
        "ratio_to_plain": ours["whole"] / plain["whole"],
        "ratio_reckoned_for": {
            str(n): _reckoned(ours, n / n_images, n_train) / plain["whole"] for n in LARGER
        },
        "encoding_ms_per_image": encoded,
        "stage_two_ms_per_image": cached,
        "encoding_to_stage_two": encoded / cached,
    }


def _cached_steps(n_images: int) -> int:
    """Steps of stage two an epoch."""
    return cached_steps(n_images, n_images * (1 + OURS.n_cached_views), OURS)


def _reckoned(ours: dict[str, float], times: float, n_train: int) -> float:
    """Seconds of a fit of so many times the images, over that number.

    All grows with the images, but the steps of stage two, of which there are so many at most.
    """
    steps = _cached_steps(round(times * n_train)) / _cached_steps(n_train)
    return ours["whole"] + ours["stage two"] * (steps / times - 1)


def _ours(settings: Settings, train: Any, val: Any, epochs: int) -> tuple[Any, dict[str, float]]:
    """A fitted estimator, and the seconds of the whole and of its parts."""
    clf = DiffMICClassifier(
        **settings.parameters("default"),
        image_size=settings.image_size,
        max_epochs=epochs,
        device="cpu",
        random_state=0,
        verbose=0,
    )
    watched = {
        "stage one": (whole_fit, "train_prior"),
        "validation in stage one": (evaluation.Evaluation, "prior"),
        "caching": (diffusion_stage, "build_cache"),
        "stage two": (whole_fit, "train_denoiser"),
        "validation in stage two": (evaluation.Evaluation, "diffusion"),
        "calibration": (evaluation.Evaluation, "verdict"),
        "making the engine": (engines, "prediction_engine"),
    }
    with warnings.catch_warnings(), stopwatch(watched) as seconds:
        warnings.simplefilter("ignore", DiffMICWarning)
        started = time.perf_counter()
        clf.fit(*train, validation_data=val)
        whole = time.perf_counter() - started
    # What was called inside is counted there alone.
    seconds["stage one"] -= seconds["validation in stage one"]
    seconds["stage two"] -= seconds["validation in stage two"] + seconds["caching"]
    parts = {name: seconds[name] for name in watched}
    return clf, {"whole": whole} | parts | {"rest": whole - sum(parts.values())}


def _plain(settings: Settings, train: Any, val: Any, epochs: int) -> dict[str, float]:
    """Seconds of plain fine-tuning: the whole, and its steps alone."""
    classes = np.unique(train[1]).tolist()
    held_out = part_of(*val, len(classes))
    parts = Parts(
        part_of(*train, len(classes)),
        held_out,
        held_out,
        classes,
        task=MULTICLASS,
        groups=np.arange(len(val[0])),
    )
    data_set = DataSet("generated", settings.image_size, epochs)
    watched = {"validation": (encoders, "_plain_score"), "steps": (encoders, "train_on_images")}
    with tempfile.TemporaryDirectory() as folder, stopwatch(watched) as seconds:
        started = time.perf_counter()
        encoders.trained_plain(Job("generated", data_set, 0, parts, Path(folder), verbose=0), OURS)
        whole = time.perf_counter() - started
    return {"whole": whole, "steps": seconds["steps"] - seconds["validation"]}


def part_of(X: Any, y: Any, n_classes: int) -> LabelledImages:
    """Images with their classes, as training wants them."""
    targets = torch.nn.functional.one_hot(torch.from_numpy(y), n_classes).float()
    return LabelledImages(read_inputs(X).images, targets, torch.ones(len(y)))


def _encoding(clf: DiffMICClassifier, X: Any) -> float:
    """Seconds to encode the images once, as they are, with the plain network as a fit does."""
    images = PreparedImages(read_inputs(X).images, clf.image_size_)
    seconds = []
    for _ in range(N_ENCODINGS):
        started = time.perf_counter()
        for _ in encode_images(Engine(clf.network_), images, batch_size=clf.batch_size):
            pass
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


@contextmanager
def stopwatch(watched: dict[str, tuple[Any, str]]) -> Iterator[dict[str, float]]:
    """Inside, the seconds spent in functions are added up under their names."""
    seconds: dict[str, float] = defaultdict(float)

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*args, **options)
            finally:
                seconds[name] += time.perf_counter() - started

        return call

    with ExitStack() as stack:
        for name, (owner, attribute) in watched.items():
            function = timed(name, getattr(owner, attribute))
            stack.enter_context(patch.object(owner, attribute, function))
        yield seconds
