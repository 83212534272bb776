"""Saving and loading: ``config.json``, ``model.safetensors`` and ``README.md`` in a folder."""

import hashlib
import json
import os
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ..errors import InputError, ModelFileError
from .card import is_generated

FORMAT_VERSION = 1
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "README.md"
LARGEST_CONFIG = 2**25  # bytes: a history of 100,000 epochs

DType = Literal["float32", "float16"]


def save_files(
    folder: Path,
    config: Mapping[str, Any],
    network: nn.Module,
    *,
    card: str | None = None,
    dtype: DType = "float32",
) -> None:
    """Write configuration, weights and card; an interrupted save leaves the old files whole.

    Parameters
    ----------
    card : str or None
        Text of the model card; one that a person wrote stays as it is.

    Raises
    ------
    InputError
        Another ``dtype``, or weights too large for half precision.
    """
    weights = safetensors.torch.save(stored_tensors(network, dtype), metadata={"format": "pt"})
    told = {"format_version": FORMAT_VERSION, **config, "weights_sha256": digest(weights)}
    text = json.dumps(told, indent=2, ensure_ascii=False, allow_nan=False)
    contents = {WEIGHTS_FILE: weights, CONFIG_FILE: text.encode() + b"\n"}
    if card is not None and not written_by_a_person(folder / CARD_FILE):
        contents[CARD_FILE] = card.encode()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as name:
        new, old = Path(name) / "new", Path(name) / "old"
        new.mkdir()
        old.mkdir()
        for file, content in contents.items():
            (new / file).write_bytes(content)
        _exchange(folder, list(contents), new, old)


def _exchange(folder: Path, names: list[str], new: Path, old: Path) -> None:
    """Put the new files in the place of the old ones, or leave all as it was."""
    try:
        for name in names:
            if (folder / name).exists():
                os.link(folder / name, old / name)
            os.replace(new / name, folder / name)
    except BaseException:
        for name in names:
            if (old / name).exists():
                os.replace(old / name, folder / name)
            elif not (new / name).exists():
                (folder / name).unlink(missing_ok=True)
        raise


def written_by_a_person(file: Path) -> bool:
    """Whether a card was written, or changed, by hand."""
    return file.is_file() and not is_generated(file.read_text(encoding="utf-8", errors="replace"))


def stored_tensors(network: nn.Module, dtype: DType) -> dict[str, Tensor]:
    """The tensors of a network as they are stored.

    Raises
    ------
    InputError
    """
    if dtype not in ("float32", "float16"):
        raise InputError(f"dtype is {dtype!r}; give 'float32' or 'float16'.")
    tensors = {name: t.detach().cpu().contiguous() for name, t in network.state_dict().items()}
    if dtype == "float32":
        return tensors
    halves = {n: t.half() if t.is_floating_point() else t for n, t in tensors.items()}
    too_large = [n for n, t in halves.items() if not t.isfinite().equal(tensors[n].isfinite())]
    if too_large:
        raise InputError(
            f"{too_large[:3]} hold numbers above 65504, the largest of half precision. Save with "
            "dtype='float32'."
        )
    return halves


def digest(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


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
    if file.stat().st_size > LARGEST_CONFIG:
        raise ModelFileError(f"{str(file)!r} has {file.stat().st_size} bytes: it is none of ours.")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as reason:
        raise ModelFileError(
            f"{str(file)!r} is damaged: {reason}. Save the model again."
        ) from reason
    version = config.pop("format_version", None) if isinstance(config, dict) else None
    if version != FORMAT_VERSION:
        raise ModelFileError(
            f"{str(file)!r} has the format version {version!r}; this diffmic reads "
            f"{FORMAT_VERSION}. Update diffmic, or save the model with this version."
        )
    check_keys(config, known | {"weights_sha256"}, where=str(file))
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


def check_weights(folder: Path, checksum: str) -> dict[str, list[int]]:
    """Shapes of the saved tensors, once the file is known to be whole and the right one.

    Parameters
    ----------
    checksum : str
        The SHA-256 that the file must have.

    Raises
    ------
    ModelFileError
        No weights, a damaged file, or another one.
    """
    file = folder / WEIGHTS_FILE
    if not file.is_file():
        raise ModelFileError(f"{str(folder)!r} has no {WEIGHTS_FILE}. Save the model again.")
    try:
        # The header is checked against the length of the file before anything is allocated.
        with safetensors.safe_open(file, framework="pt") as tensors:
            shapes = {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as reason:
        raise ModelFileError(
            f"{str(file)!r} is damaged: {reason}. Save the model, or download it, again."
        ) from reason
    with file.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if found != checksum:
        raise ModelFileError(
            f"The checksum of {str(file)!r} is {found}, and should be {checksum}: it was changed, "
            "or belongs to another save. Save the model, or download it, again."
        )
    return shapes


def check_shapes(found: Mapping[str, list[int]], network: nn.Module, *, where: str) -> None:
    """Make sure that the saved tensors are those of the network: all of them, and no others.

    Raises
    ------
    ModelFileError
    """
    own = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    missing, surplus = sorted(own.keys() - found.keys()), sorted(found.keys() - own.keys())
    unfit = sorted(name for name in own.keys() & found.keys() if own[name] != found[name])
    if missing or surplus or unfit:
        raise ModelFileError(
            f"The tensors of {where} do not fit the model that its {CONFIG_FILE} describes: "
            f"missing {missing[:5]}, surplus {surplus[:5]}, of another shape {unfit[:5]}."
        )


def load_weights(folder: Path, network: nn.Module) -> None:
    """Fill a network with the saved tensors, which are known to fit; halves become floats."""
    with torch.no_grad():
        network.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS_FILE), strict=True)
