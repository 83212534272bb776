"""``diffmic demo``."""

from pathlib import Path
from typing import Annotated

import typer


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
    from ..demo import run_demo, table

    typer.echo(
        f"{images} generated images of tissue: no lesion, a smooth one, or a spiculated one."
    )
    metrics = run_demo(folder, n_images=images, max_epochs=epochs, seed=seed)
    typer.echo(f"\nOn {images // 3} held-out images, one run:\n\n{table(metrics)}\n")
    for file in sorted(folder.iterdir()):
        typer.echo(f"saved {file}")
