"""The demonstration behind ``diffmic demo``: generated images, both stages, a table, a picture."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .classifier import DiffMICClassifier
from .datasets import LESION_CLASSES, make_lesions
from .inference import STAGES, measure


def run_demo(
    folder: Path, *, n_images: int = 900, max_epochs: int = 12, seed: int = 0, verbose: int = 1
) -> dict[str, dict[str, float]]:
    """Train on generated lesions and save model and picture; measures of each stage on test images.

    Parameters
    ----------
    folder : Path
        Gets ``model/`` and, where matplotlib is installed, ``predictions.png``.
    n_images : int
        Training images; a third as many are held out.
    max_epochs, seed, verbose : int
        As in :class:`diffmic.DiffMICClassifier`.
    """
    X, y = make_lesions(n_images, random_state=seed)
    X_test, y_test = make_lesions(n_images // 3, random_state=seed + 1)
    clf = DiffMICClassifier(
        backbone="resnet10t",
        pretrained=False,
        max_epochs=max_epochs,
        class_names=LESION_CLASSES,
        random_state=seed,
        verbose=verbose,
    )
    clf.fit(X, y)
    proba = {stage: clf.predict_proba(X_test, stage=stage) for stage in STAGES}
    clf.save_pretrained(folder / "model")
    _draw(clf, X_test, y_test, proba, folder / "predictions.png")
    return {stage: measure(y_test, proba[stage]) for stage in STAGES}


def table(measures: Mapping[str, Mapping[str, float]]) -> str:
    """Measures as text: a row each, prior and diffusion side by side."""
    lines = [f"{'':20}{'prior':>10}{'diffusion':>12}"]
    lines += [
        f"{name:20}{measures['prior'][name]:10.3f}{value:12.3f}"
        for name, value in measures["diffusion"].items()
    ]
    return "\n".join(lines)


def _draw(clf: DiffMICClassifier, X: np.ndarray, y: np.ndarray, proba: dict, file: Path) -> None:  # type: ignore[type-arg]
    try:
        import matplotlib
    except ImportError:
        print("matplotlib is not installed, so there is no picture: pip install 'diffmic[plots]'")
        return
    matplotlib.use("Agg")
    from .plots import plot_predictions

    shown = slice(0, 8)
    figure = plot_predictions(
        X[shown],
        proba["prior"][shown],
        proba["diffusion"][shown],
        LESION_CLASSES,
        truth=y[shown],
        explanation=clf.explain(X[shown]),
    )
    figure.savefig(file, dpi=110)
