"""What a prediction costs: against the floors, stage by stage, and one factor at a time.

Each function gives records: what was measured, on how many images, and the seconds of each
candidate in each round. Ratios are made from these by the report.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image

from diffmic import DiffMICClassifier
from diffmic.data import PreparedImages, read_inputs
from diffmic.engine import prediction_engine
from diffmic.inference import evidence_of
from diffmic.runtime import OnnxClassifier
from diffmic.training.options import pixels as ready

from .models import (
    DEVICE,
    Settings,
    float_batch,
    floors,
    has_onnxruntime,
    onnx_pass,
    pictures,
    plain_pass,
    prediction,
)
from .timing import Run, race

Record = dict[str, Any]
EXPORTED, ONNX_ENCODER = "exported file", "encoder by ONNX Runtime"


def predictions(settings: Settings, rounds: int) -> list[Record]:
    """The default model by each engine, at several batch sizes, beside its floors."""
    every = {engine: settings.estimator("default", engine=engine) for engine in engines(settings)}
    return _by_batch("default", settings.batches, every, settings, rounds)


def paper_predictions(settings: Settings, rounds: int) -> list[Record]:
    """The paper's arrangement in two precisions, at several batch sizes, beside its floors."""
    both = {p: settings.estimator("paper-v2", precision=p) for p in ("fp32", "bf16")}
    return _by_batch("paper-v2", settings.paper_batches, both, settings, rounds)


def _by_batch(
    model: str,
    batches: Sequence[int],
    ways: dict[str, DiffMICClassifier],
    settings: Settings,
    rounds: int,
) -> list[Record]:
    records = []
    for batch in batches:
        images = pictures(batch, settings.image_size)
        ours = {name: prediction(clf, images) for name, clf in ways.items()}
        turns = rounds if batch <= settings.batch else min(rounds, settings.few_rounds)
        records.append(_record(model, batch, settings, turns, ours))
    return records


def engines(settings: Settings) -> list[str]:
    """Kinds of engines that can be made here."""
    return ["auto", "plain"]


def making_engines(settings: Settings, rounds: int) -> list[Record]:
    """How long it takes to make each engine from a trained network."""
    records = []
    for model in ("default", "paper-v2"):
        network = settings.estimator(model, engine="plain").network_
        runs: dict[str, Run] = {
            kind: partial(prediction_engine, network, kind) for kind in engines(settings)
        }
        turns = min(rounds, settings.few_rounds)
        seconds = race(runs, turns, at_least=0)
        records.append({"model": model, "threads": torch.get_num_threads(), "seconds": seconds})
    return records


def stages(settings: Settings, rounds: int) -> list[Record]:
    """The parts of a prediction, each alone, and the whole."""
    sizes = {"default": settings.batch, "paper-v2": max(settings.paper_batches[:-1])}
    return [_stages(model, batch, settings, rounds) for model, batch in sizes.items()]


def _stages(model: str, batch: int, settings: Settings, rounds: int) -> Record:
    clf = settings.estimator(model)
    images = pictures(batch, settings.image_size)
    whole, engine = prediction(clf, images), clf.model_.engine
    pixels = float_batch(images)

    def read() -> object:
        prepared = PreparedImages(read_inputs(images, known_channels=3).images, clf.image_size_)
        return [ready(part["image"], DEVICE) for part in prepared.loader(batch)]

    def calibrate() -> object:
        return clf.model_.probabilities(evidence, "diffusion")

    conditions = engine.encode(pixels)
    evidence = _sampled(clf, conditions)()
    return {
        "model": model,
        "images": batch,
        "seconds": race(
            {
                "whole": whole,
                "reading": read,
                "backbone": _inference(lambda: engine.network.prior.backbone(pixels)),
                "encode": lambda: engine.encode(pixels),
                "sampling": _sampled(clf, conditions),
                "calibration": calibrate,
            },
            rounds,
            at_least=settings.seconds,
        ),
    }


class Factor:
    """One factor of a prediction at a time, in batches; all others as usual.

    Each method gives records of a race of its values and the floors.

    Parameters
    ----------
    model : {"default", "paper-v2", "diffmic-v1"}
    settings : Settings
    rounds : int
    """

    def __init__(self, model: str, settings: Settings, rounds: int) -> None:
        self.model, self.settings, self.rounds = model, settings, rounds

    @classmethod
    def of_paper(cls, settings: Settings, rounds: int) -> Self:
        """Of the paper's arrangement, with few values and few rounds: it takes long."""
        few = replace(
            settings,
            batch=settings.paper_batch,
            steps=settings.paper_steps,
            draws=settings.paper_draws,
            classes=settings.paper_classes,
        )
        return cls("paper-v2", few, min(rounds, settings.few_rounds))

    @classmethod
    def of_v1(cls, settings: Settings, rounds: int) -> Self:
        """Of DiffMIC (v1), by its own numbers of steps."""
        return cls("diffmic-v1", replace(settings, steps=settings.v1_steps), rounds)

    def steps(self) -> list[Record]:
        """Steps of the sampler."""
        clf = self._estimator()
        return self._record({str(n): self._run(clf, num_steps=n) for n in self.settings.steps})

    def draws(self) -> list[Record]:
        """Draws for an image."""
        clf = self._estimator()
        return self._record({str(n): self._run(clf, n_draws=n) for n in self.settings.draws})

    def classes(self) -> list[Record]:
        """Number of classes."""
        of = {n: self._estimator(n_classes=n) for n in self.settings.classes}
        return self._record({str(n): self._run(clf) for n, clf in of.items()})

    def threads(self) -> list[Record]:
        """Threads of torch, of which the floors have as many."""
        run, usual, found = self._run(self._estimator()), torch.get_num_threads(), []
        for n_threads in (n for n in self.settings.threads if n <= (os.cpu_count() or 1)):
            torch.set_num_threads(n_threads)
            found += self._record({str(n_threads): run})
        torch.set_num_threads(usual)
        return found

    def precision(self) -> list[Record]:
        """Half precision, beside a floor in it."""
        ours = {p: self._run(self._estimator(precision=p)) for p in ("fp32", "bf16")}
        encoder, batch = self.settings.encoder(self.model), self.settings.batch
        floor = plain_pass(encoder, batch, self.settings, torch.bfloat16)
        return self._record(ours, {"encoder in bf16": floor})

    def images(self) -> list[Record]:
        """What is passed as X."""
        clf, batch = self._estimator(), self.settings.batch
        sizes = self.settings.image_size, self.settings.large_size
        with image_files(self.settings) as files:
            kinds = {
                f"array of {sizes[0]} px": pictures(batch, sizes[0]),
                f"array of {sizes[1]} px": pictures(batch, sizes[1]),
                f"JPEG of {sizes[1]} px": files,
            }
            return self._record({kind: prediction(clf, X) for kind, X in kinds.items()})

    def onnxruntime(self) -> list[Record]:
        """The bare encoder by ONNX Runtime; nothing where that is not installed."""
        encoder, batch = self.settings.encoder(self.model), self.settings.batch
        onnx = onnx_pass(encoder, batch, self.settings)
        return [] if onnx is None else self._record({"encoder alone, by ONNX Runtime": onnx})

    def exported(self) -> list[Record]:
        """The model in one ONNX file, and the engine of ONNX Runtime, against its pass alone.

        At several batch sizes; nothing where ONNX Runtime is not installed.
        """
        if not has_onnxruntime():
            return []
        clf = self._estimator()
        with tempfile.TemporaryDirectory() as folder:
            content = clf.export_onnx(Path(folder) / "model.onnx").read_bytes()
        runtime = OnnxClassifier(content, num_threads=torch.get_num_threads())
        engine = self._estimator(engine="onnxruntime")
        records = []
        for batch in self.settings.batches:
            images = pictures(batch, self.settings.image_size)
            onnx = onnx_pass(self.settings.encoder(self.model), batch, self.settings)
            assert onnx is not None
            ours: dict[str, Run] = {
                EXPORTED: partial(runtime.predict_proba, images, batch_size=batch),
                "engine onnxruntime": prediction(engine, images),
                "auto": prediction(clf, images),
            }
            floor = floors(self.model, batch, self.settings) | {ONNX_ENCODER: onnx}
            records.append(_record(self.model, batch, self.settings, self.rounds, ours, floor))
        return records

    def _estimator(self, **changes: Any) -> DiffMICClassifier:
        return self.settings.estimator(self.model, **changes)

    def _run(self, clf: DiffMICClassifier, **options: int) -> Run:
        return prediction(clf, pictures(self.settings.batch, self.settings.image_size), **options)

    def _record(self, ours: dict[str, Run], beside: dict[str, Run] | None = None) -> list[Record]:
        batch = self.settings.batch
        floor = floors(self.model, batch, self.settings) | (beside or {})
        return [_record(self.model, batch, self.settings, self.rounds, ours, floor)]


def paper(settings: Settings, rounds: int) -> dict[str, Any]:
    """The paper's arrangement: equal scores, and one image's sampling against memory bandwidth."""
    clf = settings.estimator("paper-v2")
    half = settings.estimator("paper-v2", precision="bf16")
    images = pictures(2, settings.image_size)
    wide = sum(layer.linear.weight.numel() for layer in clf.network_.denoiser.layers[1:])
    one, one_in_half = (c.model_.engine.encode(float_batch(images[:1])) for c in (clf, half))
    seconds = race(
        {
            "fp32": _sampled(clf, one),
            "bf16": _sampled(half, one_in_half),
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
    network, engine, pixels = clf.network_, clf.model_.engine, float_batch(images)
    noise = network.noise(clf.n_draws, torch.Generator().manual_seed(clf.seed_))
    conditions = engine.encode(pixels)
    ours = engine.sample(conditions, noise, num_steps=clf.num_steps)
    with torch.inference_mode():
        network.training = True  # of this module alone: its parts stay in evaluation mode
        plain_conditions = network.encode(pixels)
        plain = network.sample(plain_conditions, noise, num_steps=clf.num_steps, dense=True)
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


def _sampled(clf: DiffMICClassifier, conditions: Any) -> Any:
    """Sampling alone, as a prediction does it."""
    model = clf.model_
    return lambda: evidence_of(
        model.engine, [conditions], "diffusion", model.sampling, seed=model.seed
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
