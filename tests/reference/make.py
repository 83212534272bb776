"""Write the stored predictions anew: `PYTHONPATH=tests python tests/reference/make.py [NAME ...]`.

To be run deliberately, when a change is meant to move probabilities, and never to make a test pass.
Each model has a file of its own, which says for some images what ``predict_proba`` gives.
"""

import json
import platform
import sys
import warnings
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import skimage
from tiny import RECIPE, small, stripes

from diffmic import DiffMICClassifier, DiffMICWarning
from diffmic.datasets import make_lesions

HERE = Path(__file__).parent
ZOO = HERE.parents[1] / "zoo" / "models"  # in the repository, not in the sdist
RETINA = Path(skimage.__file__).parent / "data" / "retina.jpg"  # scikit-image ships it
CASES: list[dict[str, Any]] = [
    {"stage": "prior"},
    {"stage": "diffusion"},
    {"stage": "diffusion", "num_steps": 1},
]
# What each model is asked about, with the side of its images. The zoo's models never saw the like:
# what matters is that the probabilities stay the same, not what they say.
MODELS: dict[str, tuple[int, tuple[str, ...]]] = {
    "diffmic-v2-aptos": (224, ("lesions", "retina", "retina.jpg")),
    "diffmic-v2-busi": (160, ("lesions",)),
    "diffmic-v2-chestxray14": (64, ("lesions",)),
    "diffmic-v2-ham10000": (128, ("lesions",)),
    "diffmic-v2-pneumonia": (128, ("lesions",)),
    "diffmic-v2-pneumoniamnist": (64, ("lesions",)),
    "small-trained": (32, ("lesions",)),
}


def is_there(name: str) -> bool:
    """Whether the model can be loaded: the zoo's weights are not in every copy of the tests."""
    return name in ("diffmic-v2-aptos", "small-trained") or (ZOO / name).is_dir()


def load(name: str) -> DiffMICClassifier:
    """The model of that name, on the CPU."""
    if name == "small-trained":
        return trained()
    source = name if name == "diffmic-v2-aptos" else ZOO / name
    return DiffMICClassifier.from_pretrained(source, device="cpu")


def trained() -> DiffMICClassifier:
    """A small model, trained here from a fixed seed; a fifth of its labels are wrong."""
    X, y = stripes(60)
    wrong = np.random.RandomState(0).rand(60) < 0.2
    recipe = replace(
        RECIPE, stacked=False, denoiser_learning_rate=3e-3, half_weights=False
    )  # so that stages and steps differ
    clf = DiffMICClassifier(
        **small(recipe=recipe, precision="fp32", max_epochs=2, learning_rate=2e-3)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DiffMICWarning)
        return clf.fit(X, np.where(wrong, (y + 1) % 3, y))


def images(name: str, size: int) -> Any:
    """What ``predict_proba`` is given: generated images, a photograph, or the file of it.

    The generated ones have the size that the model takes. They are noisy, and how torch rounds
    enlarged images of bytes depends on the processor: that moves probabilities by up to 0.1.
    """
    if name == "lesions":  # gray, as images in colour, which every model takes
        gray, _ = make_lesions(4, image_size=size, random_state=0)
        return np.stack([gray] * 3, axis=-1)
    return skimage.data.retina()[None] if name == "retina" else [RETINA]


def stored(name: str) -> list[dict[str, Any]]:
    """The stored predictions: images, the call's arguments and the probabilities (n, C)."""
    return json.loads((HERE / f"{name}.json").read_text())["predictions"]


def make(name: str) -> dict[str, Any]:
    """The model's predictions, as they are stored."""
    clf, (size, kinds) = load(name), MODELS[name]
    predictions = [
        {
            "images": kind,
            "arguments": arguments,
            "proba": clf.predict_proba(images(kind, size), **arguments).round(7).tolist(),
        }
        for kind in kinds
        for arguments in CASES
    ]
    versions = {package: version(package) for package in ("diffmic", "torch", "timm", "pillow")}
    return {
        "made_with": {**versions, "processor": platform.machine()},
        "predictions": predictions,
    }


if __name__ == "__main__":
    for name in sys.argv[1:] or MODELS:
        (HERE / f"{name}.json").write_text(json.dumps(make(name), indent=1) + "\n")
