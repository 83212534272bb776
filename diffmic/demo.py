"""The demo run by ``diffmic demo``: generated images, both stages, a table and a figure."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .classifier import DiffMICClassifier
from .datasets import LESION_CLASSES, make_lesions
from .inference import STAGES
from .logs import tell
from .tasks import classification_metrics

PICTURE = "predictions.png"
MEANINGS = {
    "accuracy": "Share of images whose most probable class is the true one.",
    "balanced_accuracy": "The same for each class, averaged: rare classes count alike.",
    "macro_f1": "Precision and sensitivity in one, averaged over the classes.",
    "auc": "How well the probabilities rank; 0.5 is chance, 1 is perfect.",
    "nll": "Negative log-likelihood of the true class; best if small.",
    "brier": "Squared error of the probabilities; best if small.",
    "ece": "Gap between probability and share of hits; 0 is calibrated.",
    "ece_mass": "The same in bins that hold equally many images.",
    "ece_classwise": "The same for the probabilities of each class, averaged.",
}


def run_demo(
    folder: Path, *, n_images: int = 900, max_epochs: int = 12, seed: int = 0, verbose: int = 1
) -> dict[str, dict[str, float]]:
    """Train on generated lesions, save model and figure, and return test metrics of each stage.

    Parameters
    ----------
    folder : Path
        Output folder for ``model/`` and, if matplotlib is installed, ``predictions.png``.
    n_images : int
        Number of training images; a third as many test images are generated.
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
    _draw(clf, X_test, y_test, proba, folder / PICTURE)
    return {stage: classification_metrics(y_test, proba[stage]) for stage in STAGES}


def table(metrics: Mapping[str, Mapping[str, float]]) -> str:
    """Metrics as a text table: one row per metric, one column per stage."""
    lines = [f"{'':20}{'prior':>10}{'diffusion':>12}"]
    lines += [
        f"{name:20}{metrics['prior'][name]:10.3f}{value:12.3f}"
        for name, value in metrics["diffusion"].items()
    ]
    return "\n".join(lines)


def _draw(clf: DiffMICClassifier, X: np.ndarray, y: np.ndarray, proba: dict, file: Path) -> None:  # type: ignore[type-arg]
    try:
        import matplotlib
    except ImportError:
        told = "matplotlib is not installed, so there is no picture: pip install 'diffmic[plots]'"
        tell("diffmic.demo", told, shown=True)
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
        predicted=proba["diffusion"][shown].argmax(axis=1),
        explanation=clf.explain(X[shown]),
    )
    figure.savefig(file, dpi=110)
