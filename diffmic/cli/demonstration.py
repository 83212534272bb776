"""``diffmic demo``."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from .messages import watched


def demo(
    folder: Annotated[Path, typer.Option(help="Folder for the model and the picture.")] = Path(
        "diffmic-demo"
    ),
    images: Annotated[int, typer.Option(min=60, help="Training images to generate.")] = 900,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of each stage.")] = 12,
    seed: Annotated[int, typer.Option(help="Seed of images and training.")] = 0,
) -> None:
    """Train on generated images and show the metrics of prior and diffusion on held-out ones.

    Needs no network and no data; about two minutes on two cores.

    **Examples**

        diffmic demo
        diffmic demo --images 300 --epochs 4 --folder tried
    """
    from ..demo import MEANINGS, PICTURE, run_demo, table

    typer.echo(
        f"{images} generated images of tissue: no lesion, a smooth one, or a spiculated one."
    )
    verbose = 1 if watched() else 2  # a bar, or lines that a file can hold
    metrics = run_demo(folder, n_images=images, max_epochs=epochs, seed=seed, verbose=verbose)
    typer.echo(f"\nOn {images // 3} held-out images, one run:\n\n{table(metrics)}\n")
    typer.echo(
        "The prior is a network that classifies the image at once; the diffusion denoises\n"
        "a map of labels, given the image and the prior. Both are calibrated.\n"
    )
    for name in metrics["diffusion"]:
        typer.echo(f"{name:<19}{MEANINGS[name]}")
    model, picture = folder / "model", folder / PICTURE
    typer.echo(f"\nsaved {model}: the model, with its card README.md")
    if picture.exists():
        typer.echo(f"saved {picture}: eight images, predictions, and regions")
    typer.echo(
        f"\nNext: diffmic info {shlex.quote(str(model))}, then images of your own, in a folder per "
        "class:\n  diffmic inspect photos/\n  diffmic train photos/ --out my-model\n"
        "  diffmic evaluate my-model other-photos/"
    )
