"""Saving and loading of ``config.json``, ``model.safetensors`` and ``README.md`` in a folder."""

import errno
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ..errors import InputError, ModelFileError
from ..training.checkpoint_file import write_synced
from .card import is_generated
from .configuration import CONFIG_FILE, FORMAT_VERSION
from .stored import DType, stored_names, stored_tensors

WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "README.md"
_FILES = (WEIGHTS_FILE, CONFIG_FILE, CARD_FILE)
# Subfolder in which complete files lie until they are moved to their final places.
_COMPLETE = ".saved"


def save_files(
    folder: Path,
    config: Mapping[str, Any],
    network: nn.Module,
    *,
    card: str | None = None,
    dtype: DType = "float32",
    check: Callable[[Path], object] = lambda folder: None,
    extra: Mapping[str, Tensor] | None = None,
) -> None:
    """Write configuration, weights and card; an interruption leaves either the old or new files.

    Parameters
    ----------
    folder : Path
        Target folder, which is created if needed.
    config : mapping
        Configuration, with values that JSON can represent.
    network : nn.Module
        Network whose weights are saved.
    card : str or None
        Text of the model card; an existing card written by hand is kept.
    dtype : {"float32", "float16"}
        Data type of the stored weights.
    check : callable
        Called with the folder of the complete new files before they replace others; it raises a
        :class:`ModelFileError` if they cannot be loaded.
    extra : mapping of str to Tensor, or None
        Tensors that are stored beside the weights, as they are.

    Raises
    ------
    InputError
        Unknown ``dtype``, weights too large for half precision, values that JSON cannot represent,
        a file in place of the folder, or a model that could not be loaded again.
    """
    tensors = stored_tensors(network, dtype) | dict(extra or {})
    weights = safetensors.torch.save(tensors, metadata={"format": "pt"})
    told = {"format_version": FORMAT_VERSION, **config, "weights_sha256": digest(weights)}
    contents = {WEIGHTS_FILE: weights, CONFIG_FILE: _as_json(told)}
    if card is not None:
        contents[CARD_FILE] = card.encode()
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError, ValueError) as reason:
        raise InputError(
            f"No folder can be made at {str(folder)!r}: this path, or the path of one of its "
            f"parent folders, is a file ({reason}). Give another path."
        ) from reason
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as name:
            new = Path(name) / "new"
            new.mkdir()
            for file, content in contents.items():
                write_synced(new / file, content)
            _check(check, new, folder)
            _complete(new, folder)
        finish_save(folder)
    finally:
        if made:
            with suppress(OSError):  # it is only empty if nothing was saved
                folder.rmdir()


def _check(check: Callable[[Path], object], new: Path, folder: Path) -> None:
    """Try to load a complete save before it replaces what is in the folder."""
    try:
        check(new)
    except ModelFileError as reason:
        said = str(reason).replace(str(new), str(folder))
        raise InputError(
            f"The model is not saved, because it could not be loaded again. {said} (What was "
            f"in {str(folder)!r} before is unchanged.)"
        ) from reason


def _as_json(values: Mapping[str, Any]) -> bytes:
    """Values as readable JSON; names that are not UTF-8, as of some files, are escaped."""
    options: dict[str, Any] = {"indent": 2, "allow_nan": False, "default": _plain}
    try:
        text = json.dumps(values, ensure_ascii=False, **options)
        try:
            return text.encode() + b"\n"
        except UnicodeEncodeError:
            return json.dumps(values, ensure_ascii=True, **options).encode() + b"\n"
    except (TypeError, ValueError) as reason:
        raise InputError(
            f"The model cannot be written as JSON: {reason}. Fit with labels that are integers or "
            "strings, and pass metrics that are numbers."
        ) from reason


def _plain(value: Any) -> Any:
    """A number or array of numpy as JSON knows it."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(f"{value!r} is a {type(value).__name__}")


def _complete(new: Path, folder: Path) -> None:
    """Commit a save: move the folder of new files to its fixed name, then into place."""
    while True:
        finish_save(folder)
        try:
            new.rename(folder / _COMPLETE)
        except OSError as reason:
            if reason.errno not in (errno.EEXIST, errno.ENOTEMPTY):  # another process is saving
                raise
        else:
            return


def finish_save(folder: Path) -> None:
    """Finish a save that was killed after its files were complete, by moving them into place.

    After this function the files of a folder always come from a single save. A card written by hand
    is kept. If the subfolder holds something else, nothing is moved: a ModelFileError.
    """
    complete = folder / _COMPLETE
    try:
        if strange := _what_no_save_leaves(complete):
            raise ModelFileError(
                f"{str(complete)!r} was not left by an interrupted save: {strange}. Nothing was "
                "moved; inspect it, and delete it."
            )
    except (FileNotFoundError, NotADirectoryError):  # nothing to do, or done by another process
        return
    if written_by_a_person(folder / CARD_FILE):
        (complete / CARD_FILE).unlink(missing_ok=True)
    for name in _FILES:
        with suppress(FileNotFoundError):  # another process does the same
            (complete / name).replace(folder / name)
    with suppress(OSError):  # the other process removed it, or put its own files there
        complete.rmdir()


def _what_no_save_leaves(complete: Path) -> str:
    """Unexpected contents, above all links, through which files of other folders could be moved."""
    if not stat.S_ISDIR(complete.lstat().st_mode):
        return "it is a link or a file"
    with os.scandir(complete) as entries:
        found = {e.name: e.is_file(follow_symlinks=False) for e in entries}
    strange = sorted(name for name, is_file in found.items() if name not in _FILES or not is_file)
    return f"it holds {strange[:5]}" if strange else ""


def written_by_a_person(file: Path) -> bool:
    """Whether a card was written or edited by hand."""
    return file.is_file() and not is_generated(file.read_text(encoding="utf-8", errors="replace"))


def digest(content: bytes) -> str:
    """SHA-256 checksum in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


class Stored(NamedTuple):
    """Shape and data type of a stored tensor."""

    shape: list[int]
    dtype: str


def check_weights(folder: Path, checksum: str) -> dict[str, Stored]:
    """Shapes and types of the saved tensors, after checks of the file and its SHA-256 checksum.

    A ModelFileError says if the weights are missing, damaged, or have another checksum.
    """
    file = folder / WEIGHTS_FILE
    if not file.is_file():
        raise ModelFileError(f"{str(folder)!r} has no {WEIGHTS_FILE}. Save the model again.")
    try:
        # The header is checked against the length of the file before anything is allocated.
        with safetensors.safe_open(file, framework="pt") as tensors:
            slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118
            stored = {n: Stored(each.get_shape(), each.get_dtype()) for n, each in slices.items()}
    except (safetensors.SafetensorError, OSError) as reason:
        raise ModelFileError(f"{str(file)!r} is damaged: {reason}. {_again(file)}") from reason
    with file.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if found != checksum:
        raise ModelFileError(
            f"The checksum of {str(file)!r} is {found}, and should be {checksum}: it was changed, "
            f"or belongs to another save. {_again(file)}"
        )
    return stored


def _again(file: Path) -> str:
    """Advice on a file that cannot be used."""
    if file.is_symlink():  # in the cache of huggingface_hub, which does not replace files
        return f"Delete {str(file.resolve())!r} and load, so that it is downloaded again."
    return "Save the model, or download it, again."


def check_tensors(
    found: Mapping[str, Stored],
    network: nn.Module,
    *,
    where: str,
    extra: Mapping[str, Stored] | None = None,
) -> None:
    """Check that the saved tensors are exactly those of the network, and the extra ones."""
    extra, found = extra or {}, dict(found)
    beside = {name: found.pop(name, None) for name in extra}
    own = network.state_dict()
    missing = sorted(stored_names(network) - found.keys())
    surplus = sorted(found.keys() - own.keys())
    common = sorted(own.keys() & found.keys())
    unfit = [name for name in common if list(own[name].shape) != found[name].shape]
    foreign = [name for name in common if found[name].dtype not in _types(own[name])]
    unfit += [name for name in extra if beside[name] != extra[name]]
    if missing or surplus or unfit or foreign:
        raise ModelFileError(
            f"The tensors of {where} do not fit the model that its {CONFIG_FILE} describes: "
            f"missing {missing[:5]}, surplus {surplus[:5]}, of another shape {unfit[:5]}, of "
            f"another type {foreign[:5]}."
        )


# Names of data types in safetensors, for tensors of backbones given as modules.
_NAMES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
_NAMES |= {torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8"}
_NAMES |= {torch.uint8: "U8", torch.bool: "BOOL"}


def _types(tensor: Tensor) -> tuple[str, ...]:
    """Data types, in safetensors' names, in which a tensor may be stored."""
    own = _NAMES.get(tensor.dtype, "none")
    return (own, "F32", "F16") if tensor.is_floating_point() else (own,)


def load_weights(folder: Path, network: nn.Module) -> dict[str, Tensor]:
    """Load saved tensors, which have been checked, into a network; float16 becomes float32.

    Tensors that are not of the network are returned. A ModelFileError names those that contain NaN
    or infinity.
    """
    tensors = safetensors.torch.load_file(folder / WEIGHTS_FILE)
    own = network.state_dict()
    extra = {name: tensors.pop(name) for name in list(tensors) if name not in own}
    finite = {name: own.isfinite().cpu() for name, own in network.state_dict().items()}
    # A mask may be infinite, but then it is so before anything is loaded, too.
    if bad := sorted(n for n, tensor in tensors.items() if (tensor.isfinite() < finite[n]).any()):
        raise ModelFileError(
            f"{bad[:5]} of {str(folder / WEIGHTS_FILE)!r} hold NaN or infinity, so the model "
            "cannot predict. Train again, and save the model."
        )
    with torch.no_grad():
        network.load_state_dict(tensors, strict=False)  # their names have been checked
    return extra
