"""Saving and loading: ``config.json`` and ``model.safetensors`` in a folder."""

import json
import os
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ..errors import ModelFileError

FORMAT_VERSION = 1
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


def save_files(folder: Path, config: Mapping[str, Any], network: nn.Module) -> None:
    """Write configuration and weights; both are complete before either takes its name."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in network.state_dict().items()}
    text = json.dumps(
        {"format_version": FORMAT_VERSION, **config}, indent=2, ensure_ascii=False, allow_nan=False
    )
    contents = {
        WEIGHTS_FILE: safetensors.torch.save(tensors, metadata={"format": "pt"}),
        CONFIG_FILE: text.encode() + b"\n",
    }
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as staging:
        for name, content in contents.items():
            (Path(staging) / name).write_bytes(content)
        for name in contents:
            os.replace(Path(staging) / name, folder / name)


def read_config(folder: Path, known: set[str]) -> dict[str, Any]:
    """The configuration of a saved model, whose keys must be just the known ones.

    Raises
    ------
    ModelFileError
        No such folder, no configuration in it, or not one of ours.
    """
    file = folder / CONFIG_FILE
    if not file.is_file():
        raise ModelFileError(
            f"{str(folder)!r} is not a saved model: it has no {CONFIG_FILE}. Give the folder that "
            "save_pretrained wrote."
        )
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as reason:
        raise ModelFileError(
            f"{str(file)!r} is damaged: {reason}. Save the model again."
        ) from reason
    version = config.pop("format_version", None) if isinstance(config, dict) else None
    if version != FORMAT_VERSION:
        raise ModelFileError(
            f"{str(file)!r} has the format version {version!r}; this diffmic reads "
            f"{FORMAT_VERSION}. Update diffmic, or save the model with this version."
        )
    check_keys(config, known, where=str(file))
    return dict(config)


def check_keys(values: Mapping[str, Any], known: Collection[str], *, where: str) -> None:
    """Make sure that the keys are just the known ones.

    Raises
    ------
    ModelFileError
        Naming those that are too many or too few.
    """
    surplus, missing = sorted(set(values) - set(known)), sorted(set(known) - set(values))
    if surplus or missing:
        raise ModelFileError(
            f"{where} is not as expected: unknown keys {surplus}, missing keys {missing}. It may "
            "have been saved by another version of diffmic, or been changed by hand."
        )


def load_weights(folder: Path, network: nn.Module) -> None:
    """Fill a network with the saved tensors: all of them, and no others.

    Raises
    ------
    ModelFileError
        No weights, a damaged file, or tensors that do not fit.
    """
    file = folder / WEIGHTS_FILE
    if not file.is_file():
        raise ModelFileError(f"{str(folder)!r} has no {WEIGHTS_FILE}. Save the model again.")
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load_file(file)
    except (safetensors.SafetensorError, OSError) as reason:
        raise ModelFileError(
            f"{str(file)!r} is damaged: {reason}. Save the model again."
        ) from reason
    own = network.state_dict()
    missing, surplus = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    unfit = [name for name in own.keys() & tensors.keys() if own[name].shape != tensors[name].shape]
    if missing or surplus or unfit:
        raise ModelFileError(
            f"The tensors of {str(file)!r} do not fit the model that its {CONFIG_FILE} describes: "
            f"missing {missing[:5]}, surplus {surplus[:5]}, of another shape {sorted(unfit)[:5]}."
        )
    with torch.no_grad():
        network.load_state_dict(tensors, strict=True)
