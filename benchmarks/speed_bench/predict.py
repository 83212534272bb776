"""What a prediction costs: against the floors, stage by stage, and one factor at a time.

Each function gives records: what was measured, on how many images, and the seconds of each
candidate in each round. Ratios are made from these by the report.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from diffmic import DiffMICClassifier
from diffmic.data import PreparedImages, read_inputs
from diffmic.inference import sample_scores
from diffmic.inference.faster import for_encoding, for_sampling
from diffmic.training.options import pixels as ready

from .models import (
    DEVICE,
    Settings,
    float_batch,
    floors,
    onnx_pass,
    pictures,
    plain_pass,
    prediction,
)
from .timing import Run, race

Record = dict[str, Any]


def predictions(settings: Settings, rounds: int) -> list[Record]:
    """Both arrangements at several batch sizes, beside their floors."""
    records = []
    clf = settings.estimator("default")

    def turns(batch: int) -> int:
        return rounds if batch <= settings.batch else min(rounds, settings.few_rounds)

    for batch in settings.batches:
        ours = {"fp32": prediction(clf, pictures(batch, settings.image_size))}
        records.append(_record("default", batch, settings, turns(batch), ours))
    both = {p: settings.estimator("paper-v2", precision=p) for p in ("fp32", "bf16")}
    for batch in settings.paper_batches:
        images = pictures(batch, settings.image_size)
        ours = {precision: prediction(clf, images) for precision, clf in both.items()}
        records.append(_record("paper-v2", batch, settings, turns(batch), ours))
    return records


def stages(settings: Settings, rounds: int) -> list[Record]:
    """The parts of a prediction, each alone, and the whole."""
    sizes = {"default": settings.batch, "paper-v2": max(settings.paper_batches[:-1])}
    return [_stages(model, batch, settings, rounds) for model, batch in sizes.items()]


def _stages(model: str, batch: int, settings: Settings, rounds: int) -> Record:
    clf = settings.estimator(model)
    images = pictures(batch, settings.image_size)
    whole = prediction(clf, images)
    network = for_encoding(clf.network_)
    pixels = float_batch(images)

    def read() -> object:
        prepared = PreparedImages(read_inputs(images, known_channels=3).images, clf.image_size_)
        return [ready(part["image"], DEVICE) for part in prepared.loader(batch)]

    def calibrate() -> object:
        return clf.calibrations_["diffusion"](draws.mean(dim=1), prior).numpy()

    with torch.inference_mode():
        conditions = network.encode(pixels)
        draws = _sampled(clf, conditions)()
    prior = conditions.fused_logits
    return {
        "model": model,
        "images": batch,
        "seconds": race(
            {
                "whole": whole,
                "reading": read,
                "backbone": _inference(lambda: network.prior.backbone(pixels)),
                "encode": _inference(lambda: network.encode(pixels)),
                "sampling": _sampled(clf, conditions),
                "calibration": calibrate,
            },
            rounds,
            at_least=settings.seconds,
        ),
    }


def factors(settings: Settings, rounds: int) -> dict[str, list[Record]]:
    """One factor at a time of the default model; all others as usual."""
    batch, clf = settings.batch, settings.estimator("default")
    images, floor = pictures(batch, settings.image_size), floors("default", batch, settings)

    def record(ours: dict[str, Run], beside: dict[str, Run] | None = None) -> Record:
        return _record("default", batch, settings, rounds, ours, floor | (beside or {}))

    found = _varied("default", clf, settings, rounds)
    found["precision"] = [
        record(
            {
                precision: prediction(settings.estimator("default", precision=precision), images)
                for precision in ("fp32", "bf16")
            },
            {
                "encoder in bf16": plain_pass(
                    settings.encoder("default"), batch, settings, torch.bfloat16
                )
            },
        )
    ]
    with image_files(settings) as files:
        sizes = settings.image_size, settings.large_size
        kinds = {
            f"array of {sizes[0]} px": images,
            f"array of {sizes[1]} px": pictures(batch, sizes[1]),
            f"JPEG of {sizes[1]} px": files,
        }
        found["images"] = [record({kind: prediction(clf, X) for kind, X in kinds.items()})]
    if (onnx := onnx_pass(settings.encoder("default"), batch, settings)) is not None:
        found["ONNX Runtime"] = [record({"encoder alone, by ONNX Runtime": onnx})]
    return found


def on_device(settings: Settings, rounds: int) -> dict[str, list[Record]]:
    """Steps and draws of the default model, on whatever device the settings name."""
    few = replace(settings, classes=(), threads=())
    return _varied("default", settings.estimator("default"), few, rounds)


def paper_factors(settings: Settings, rounds: int) -> dict[str, list[Record]]:
    """The same for the paper's arrangement, with few values and few rounds: it takes long."""
    few = replace(
        settings,
        batch=settings.paper_batch,
        steps=settings.paper_steps,
        draws=settings.paper_draws,
        classes=settings.paper_classes,
    )
    clf = settings.estimator("paper-v2")
    return _varied("paper-v2", clf, few, min(rounds, settings.few_rounds))


def _varied(
    model: str, clf: DiffMICClassifier, settings: Settings, rounds: int
) -> dict[str, list[Record]]:
    """Steps, draws, classes and threads."""
    images = pictures(settings.batch, settings.image_size)
    floor = floors(model, settings.batch, settings)

    def record(ours: dict[str, Run]) -> Record:
        return _record(model, settings.batch, settings, rounds, ours, floor)

    def of_classes(n: int) -> DiffMICClassifier:
        return clf if n == settings.n_classes else settings.estimator(model, n_classes=n)

    found = {
        "steps": [record({str(n): prediction(clf, images, num_steps=n) for n in settings.steps})],
        "draws": [record({str(n): prediction(clf, images, n_samples=n) for n in settings.draws})],
        "classes": [],
        "threads": [],
    }
    if settings.classes:
        of = {str(n): prediction(of_classes(n), images) for n in settings.classes}
        found["classes"].append(record(of))
    usual = torch.get_num_threads()
    for n_threads in (n for n in settings.threads if n <= (os.cpu_count() or 1)):
        torch.set_num_threads(n_threads)
        found["threads"].append(record({str(n_threads): prediction(clf, images)}))
    torch.set_num_threads(usual)
    return found


def paper(settings: Settings, rounds: int) -> dict[str, Any]:
    """The paper's arrangement: equal scores, and one image's sampling against memory bandwidth."""
    clf = settings.estimator("paper-v2")
    half = settings.estimator("paper-v2", precision="bf16")
    images = pictures(2, settings.image_size)
    wide = sum(layer.linear.weight.numel() for layer in clf.network_.denoiser.layers[1:])
    with torch.inference_mode():
        one = for_encoding(clf.network_).encode(float_batch(images[:1]))
        one_in_half = for_encoding(half.network_, torch.bfloat16).encode(float_batch(images[:1]))
    seconds = race(
        {
            "fp32": _sampled(clf, one),
            "bf16": _sampled(half, one_in_half, torch.bfloat16),
            "reading in fp32": _reading(4 * wide, clf.num_steps),
            "reading in bf16": _reading(2 * wide, clf.num_steps),
        },
        rounds,
        at_least=settings.seconds,
    )
    return {
        "sampling": {"model": "paper-v2", "images": 1, "wide_bytes": 4 * wide, "seconds": seconds},
        **_difference_to_plain_form(clf, images),
        "probabilities_differ": _largest_difference(clf, half, images),
    }


def _difference_to_plain_form(clf: DiffMICClassifier, images: Any) -> dict[str, Any]:
    """Scores of the network as trained, K × K positions and all, against those of predictions."""
    network, pixels = clf.network_, float_batch(images)
    start = network.start(clf.n_samples, torch.Generator().manual_seed(clf.seed_))
    with torch.inference_mode():
        conditions = for_encoding(network).encode(pixels)
        ours = for_sampling(network).sample(conditions, start, num_steps=clf.num_steps)
        network.training = True  # of this module alone: its parts stay in evaluation mode
        plain_conditions = network.encode(pixels)
        plain = network.sample(plain_conditions, start, num_steps=clf.num_steps, dense=True)
        network.training = False
    return {
        "scores_differ": float((ours - plain).abs().max()),
        "largest_score": float(plain.abs().max()),
        "same_regions": torch.equal(conditions.boxes, plain_conditions.boxes),
    }


def _largest_difference(one: DiffMICClassifier, other: DiffMICClassifier, images: Any) -> float:
    return float(abs(one.predict_proba(images) - other.predict_proba(images)).max())


def _record(
    model: str,
    batch: int,
    settings: Settings,
    rounds: int,
    ours: dict[str, Run],
    beside: dict[str, Run] | None = None,
) -> Record:
    """A race of some ways to predict and the floors."""
    beside = floors(model, batch, settings) if beside is None else beside
    return {
        "model": model,
        "images": batch,
        "threads": torch.get_num_threads(),
        "seconds": race(beside | ours, rounds, at_least=settings.seconds),
    }


def _sampled(clf: DiffMICClassifier, conditions: Any, dtype: torch.dtype = torch.float32) -> Any:
    """Sampling alone, as a prediction does it."""
    return lambda: sample_scores(
        clf.network_,
        conditions,
        num_steps=clf.num_steps,
        n_samples=clf.n_samples,
        seed=clf.seed_,
        dtype=dtype,
    )


def _reading(n_bytes: int, times: int) -> Run:
    """Read so many bytes from memory, so many times: two tensors, as there are wide layers."""
    tensors = [torch.ones(n_bytes // 8) for _ in range(2)]
    return lambda: [tensor.sum() for _ in range(times) for tensor in tensors]


def _inference(run: Run) -> Run:
    decorated: Run = torch.inference_mode()(run)
    return decorated


@contextmanager
def image_files(settings: Settings) -> Iterator[list[Path]]:
    """Paths of a batch of JPEG files."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.jpg" for number in range(settings.batch)]
        for path, image in zip(paths, pictures(settings.batch, settings.large_size), strict=True):
            Image.fromarray(image).save(path, quality=90)
        yield paths
