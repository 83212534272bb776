"""What a trained model says of images: its own, and images that do not belong."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accuracy_bench.tasks import DATA_SETS, table_of
from numpy.typing import NDArray
from PIL import Image

from diffmic import DiffMICClassifier
from diffmic.estimator.prediction import conditions_for
from diffmic.inference import Engine, Evidence, FittedModel, SamplingOptions, evidence_of
from diffmic.model import Conditions

ROOT = Path(__file__).parents[2]
MODELS = {
    name: f"diffmic-v2-{name}" if name == "aptos" else str(ROOT / f"zoo/models/diffmic-v2-{name}")
    for name in ("aptos", "busi", "ham10000", "chestxray14", "pneumonia")
} | {"medmnist": str(ROOT / "zoo/models/diffmic-v2-pneumoniamnist")}
CHILDREN = {"pneumonia", "medmnist"}  # the same X-rays, so that neither is strange to the other
N_DRAWS = 32
N_OWN, N_OTHERS, N_MADE = 400, 100, 50  # at most so many images of the own set, of others, made


@dataclass(frozen=True)
class Reading:
    """Evidence of a model for some images, and of its passes with dropout.

    Attributes
    ----------
    evidence : Evidence
        Of :data:`N_DRAWS` draws, with embeddings.
    dropped : Evidence
        Draws that have the same noise, each with another dropout of the context: Monte Carlo
        dropout (Gal and Ghahramani, 2016) with the one layer that was trained with dropout.
    """

    evidence: Evidence
    dropped: Evidence


def own_images(name: str, data: Path, gray: bool) -> tuple[list[Any], NDArray[Any]]:
    """Images of the validation part, evenly spread, and their labels."""
    part = table_of(DATA_SETS[name], data).part("val")
    step = -(-len(part) // N_OWN)
    labels: NDArray[Any] = np.asarray(part.labels)[::step]
    return [pixels(image, gray) for image in part.images[::step]], labels


def strange_images(
    name: str, data: Path, gray: bool, own: list[Any]
) -> Iterator[tuple[str, list[Any]]]:
    """Groups of images that do not belong to a data set."""
    rng, shape = np.random.RandomState(0), own[0].shape
    yield "upside down", [image[::-1].copy() for image in own]
    yield "noise", [rng.randint(0, 256, shape).astype(np.uint8) for _ in range(N_MADE)]
    shades = np.linspace(0, 255, N_MADE).astype(np.uint8)
    yield "blank", [np.full(shape, shade) for shade in shades]
    for other in MODELS:
        if other != name and not {other, name} <= CHILDREN:
            images = table_of(DATA_SETS[other], data).part("val").images
            step = -(-len(images) // N_OTHERS)
            yield other, [pixels(image, gray) for image in images[::step]]


def pixels(source: Any, gray: bool) -> NDArray[np.uint8]:
    """An image of a file or an array, as an array in as many channels as a model takes."""
    image = Image.open(source) if isinstance(source, Path) else Image.fromarray(source)
    with image:
        return np.asarray(image.convert("L" if gray else "RGB"))


def reading_of(clf: DiffMICClassifier, images: list[Any]) -> Reading:
    """Evidence of a classifier for images of any sizes."""
    model = clf.model_
    pairs = conditions_for(model, clf.get_params(deep=False), images)
    conditions = [of.without_pictures() for of, _ in pairs]
    ratio = None if model.drawing_ratio is None else torch.from_numpy(model.drawing_ratio)
    evidence = evidence_of(
        model.engine,
        conditions,
        "diffusion",
        SamplingOptions(model.sampling.num_steps, N_DRAWS),
        seed=model.seed,
        drawing_ratio=ratio,
        embeddings=True,
    )
    draws = torch.cat([_dropped(model, batch) for batch in conditions])
    return Reading(evidence, Evidence(evidence.prior_logits, draws, ratio))


def _dropped(model: FittedModel, conditions: Conditions) -> torch.Tensor:
    """Scores (n, S, C) of passes with dropout, all from the noise of a usual prediction."""
    network, options = model.network, model.sampling
    noise = network.noise(options.n_draws, torch.Generator().manual_seed(model.seed))
    engine, scores = Engine(network), []
    network.context.dropout.train()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for _ in range(N_DRAWS):
                drawn = engine.sample(conditions, noise, num_steps=options.num_steps)
                scores.append(drawn.mean(dim=1).cpu())
    finally:
        network.context.dropout.eval()
    return torch.stack(scores, dim=1)
