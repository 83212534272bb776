"""``diffmic convert``."""

from pathlib import Path
from typing import Annotated, Any

import typer


def convert(
    checkpoints: Annotated[
        list[Path], typer.Argument(help="Checkpoint (safetensors, or torch.save), or its parts.")
    ],
    to: Annotated[
        Path, typer.Option(help="Folder of the model, or a .safetensors file for weights alone.")
    ],
    classes: Annotated[
        str | None, typer.Option(help="Labels of the classes in order, with commas between them.")
    ] = None,
    rename: Annotated[
        list[str] | None, typer.Option(help="THEIRS=OURS: beginning of a name, theirs and ours.")
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(help="Beginning of names to leave out.")
    ] = None,
    key: Annotated[str | None, typer.Option(help="Key of the tensors in the file.")] = None,
    task: Annotated[str, typer.Option(help="multiclass, multilabel or ordinal.")] = "multiclass",
    backbone: Annotated[str | None, typer.Option(help="timm name of the image encoder.")] = None,
    prior_backbone: Annotated[str, typer.Option(help="timm name of the prior.")] = "resnet18",
    region_backbone: Annotated[str, typer.Option(help="timm name for crops.")] = "resnet18",
    image_size: Annotated[int, typer.Option(help="Side of the images, in pixels.")] = 224,
    region_size: Annotated[int, typer.Option(help="Side of the crops, in pixels.")] = 32,
) -> None:
    """Convert a checkpoint with the names of the authors of DiffMIC-v2 to a model of diffmic.

    Their denoiser is known by its names; --rename says which of our names the encoders and the
    prior have. A folder needs all weights of the network, and --classes.

    **Examples**

        diffmic convert denoiser.pt --to denoiser.safetensors
        diffmic convert denoiser.pt prior.pt encoder.pt --to my-model --classes 0,1,2,3,4
    """
    from dataclasses import replace

    from ..convert import convert_checkpoint, convert_weights
    from ..errors import InputError
    from ..model import resolve_architecture

    names = [each.partition("=") for each in rename or ()]
    if wrong := ["".join(each) for each in names if not (each[0] and each[1])]:
        raise InputError(f"--rename is {wrong[0]!r}; give THEIRS=OURS.")
    how: dict[str, Any] = {
        "rename": {n[0]: n[2] for n in names},
        "ignore": ignore or (),
        "key": key,
    }
    if to.suffix == ".safetensors":
        convert_weights(checkpoints, to, **how)
    else:
        if classes is None:
            raise InputError(
                f"A folder, {str(to)!r}, needs --classes, the labels of the classes in order. "
                "For the weights alone, give --to a file that ends in .safetensors."
            )
        labels = [label.strip() for label in classes.split(",")]
        architecture = replace(
            resolve_architecture("paper-v2"),
            prior_backbone=prior_backbone,
            region_backbone=region_backbone,
            region_size=region_size,
        )
        if backbone is not None:
            how["backbone"] = backbone
        whole = all(label.lstrip("-").isdecimal() for label in labels)
        clf = convert_checkpoint(
            checkpoints,
            classes=[int(label) for label in labels] if whole else labels,
            architecture=architecture,
            image_size=image_size,
            task=task,
            **how,
        )
        clf.save_pretrained(to)
    typer.echo(f"saved {to}")
