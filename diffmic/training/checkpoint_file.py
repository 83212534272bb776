"""Files of checkpoints: tensors, and plain values as JSON in the header; no pickle."""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ..errors import CheckpointError

FORMAT = 1
STAGES: dict[str, tuple[str, ...]] = {  # stage in progress: stages that are complete
    "prior": (),
    "diffusion": ("prior",),
    "trained": ("prior", "diffusion"),
}
UNFIT = (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class Saved:
    """Contents of a checkpoint.

    Attributes
    ----------
    file : Path
    told : dict
        Data and parameters of the fit, as :func:`~.fingerprint.fingerprint` describes them.
    seed : int
    stage : {"prior", "diffusion", "trained"}
        Stage in progress.
    seconds : float
        Duration of the fit until then.
    history : list of dict
    loop : dict or None
        ``state_dict`` of the loop without history and best state; None: both stages are complete.
    network : dict of str to Tensor
        State of the whole network, with the best state of the stage in progress.
    """

    file: Path
    told: dict[str, Any]
    seed: int
    stage: str
    seconds: float
    history: list[dict[str, Any]]
    loop: dict[str, Any] | None
    network: dict[str, Tensor]


class DamagedError(CheckpointError):
    """A checkpoint that cannot be read."""


def read(file: Path) -> Saved:
    """Read a checkpoint; a CheckpointError: it is damaged, of another version, or none."""
    try:
        # The header is checked against the length of the file before anything is allocated.
        with safetensors.safe_open(file, framework="pt") as content:
            header = content.metadata() or {}
            version = header.get("diffmic_checkpoint")
            tensors = {} if version != str(FORMAT) else {
                name: content.get_tensor(name) for name in content.keys()  # noqa: SIM118
            }  # fmt: skip
    except (safetensors.SafetensorError, OSError, *UNFIT) as reason:
        raise DamagedError(f"The checkpoint {str(file)!r} is damaged: {reason}.") from reason
    if version is None:
        raise _foreign(file)
    if version != str(FORMAT):
        raise CheckpointError(
            f"The checkpoint {str(file)!r} has the version {version[:20]!r}; this diffmic reads "
            f"version {FORMAT}. End the fit with the diffmic that began it, or fit with "
            "resume=False, which starts from the beginning."
        )
    text = header.get("values", "")
    if header.get("sha256") != _digest(text, tensors):
        raise DamagedError(
            f"The checkpoint {str(file)!r} is damaged: its checksum is not that of what it holds."
        )
    try:
        return _saved(file, _whole(json.loads(text), tensors))
    except (RecursionError, *UNFIT) as reason:
        raise DamagedError(
            f"The checkpoint {str(file)!r} is damaged: it holds other values than a checkpoint "
            f"({type(reason).__name__}: {str(reason)[:200]})."
        ) from reason


def refuse_foreign(file: Path) -> None:
    """Refuse to replace a file of another program by a checkpoint; damaged ones may be."""
    try:
        with safetensors.safe_open(file, framework="pt") as content:
            header = content.metadata() or {}
    except (safetensors.SafetensorError, OSError, *UNFIT):
        return
    if "diffmic_checkpoint" not in header:
        raise _foreign(file)


def _foreign(file: Path) -> CheckpointError:
    return CheckpointError(
        f"{str(file)!r} is none of diffmic, and would be replaced by a checkpoint. Give another "
        "checkpoint_dir, or move the file away."
    )


_KINDS: dict[str, Any] = {
    "told": dict,
    "seed": int,
    "stage": str,
    "seconds": float,
    "history": list,
    "loop": dict | None,
    "network": dict,
}
_LOOP = {"learner": dict, "optimizer": dict, "scheduler": dict, "rng": dict, "scaler": dict}
_LOOP_KINDS: dict[str, Any] = _LOOP | {
    "average": dict | None,
    "epoch": int,
    "best_score": float,
    "best_epoch": int,
    "begun": dict | None,
}
_BEGUN_KINDS: dict[str, Any] = {"rng": dict, "losses": Tensor, "seconds": float}


def _saved(file: Path, values: Any) -> Saved:
    _check(values, _KINDS)
    loop = values["loop"]
    if values["stage"] not in STAGES or (loop is None) != (values["stage"] == "trained"):
        raise ValueError(f"stage is {values['stage']!r}")
    if not all(
        isinstance(row, dict) and {"stage", "epoch"} <= set(row) for row in values["history"]
    ):
        raise ValueError("history holds something else than epochs")
    tensors = [values["network"]]
    if loop is not None:
        _check(loop, _LOOP_KINDS)
        tensors += [loop["learner"], loop["rng"], loop["average"] or {}]
        if loop["begun"] is not None:
            _check(loop["begun"], _BEGUN_KINDS)
            tensors.append(loop["begun"]["rng"])
    if not all(isinstance(tensor, Tensor) for part in tensors for tensor in part.values()):
        raise ValueError("tensors are missing")
    return Saved(file, **values)


def _check(values: Any, kinds: Mapping[str, Any]) -> None:
    if not isinstance(values, dict) or set(values) != set(kinds):
        raise ValueError(f"entries are {sorted(map(str, values))[:20]}, not {sorted(kinds)}")
    for name, kind in kinds.items():
        if not isinstance(values[name], kind) or isinstance(values[name], bool):
            raise ValueError(f"{name} is a {type(values[name]).__name__}")


def packed(values: Any) -> bytes:
    """Content of a file."""
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_apart(values, "", tensors))
    header = {
        "diffmic_checkpoint": str(FORMAT),
        "values": text,
        "sha256": _digest(text, tensors),
    }
    return safetensors.torch.save(tensors, header)


def _apart(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """A value as JSON, its tensors put aside under names that say where they were."""
    if isinstance(value, Tensor):  # a copy, since two names may share a tensor
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"tensor": name}
    if isinstance(value, Mapping):
        keys = {key: f"#{key}" if isinstance(key, int) else key for key in value}
        inside = {keys[k]: _apart(v, f"{name}/{k}", tensors) for k, v in value.items()}
        return {"items": inside}
    if isinstance(value, list | tuple):
        return [_apart(each, f"{name}/{number}", tensors) for number, each in enumerate(value)]
    return value.item() if hasattr(value, "item") else value


def _whole(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The value that :func:`_apart` took apart; tuples are lists."""
    if isinstance(value, dict):
        if "tensor" in value:
            return tensors[value["tensor"]]
        items = {k: _whole(v, tensors) for k, v in value["items"].items()}
        return {int(k[1:]) if k.startswith("#") else k: v for k, v in items.items()}
    if isinstance(value, list):
        return [_whole(each, tensors) for each in value]
    return value


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of plain values and tensors."""
    found = hashlib.sha256(text.encode("utf-8", "surrogatepass"))
    for name in sorted(tensors):
        tensor = tensors[name]
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode("utf-8", "surrogatepass"))
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def write_synced(file: Path, content: bytes) -> None:
    """Write a file, down to the disk."""
    with file.open("wb") as written:
        written.write(content)
        written.flush()
        os.fsync(written.fileno())


def write_whole(file: Path, content: bytes) -> None:
    """Write a file, which is there when it is complete and on the disk, and not before."""
    new = file.with_name(f"{file.name}.tmp")
    try:
        write_synced(new, content)
        os.replace(new, file)
    except BaseException:
        with suppress(OSError):
            new.unlink(missing_ok=True)
        raise
    with suppress(OSError):  # not every system can do that with a folder
        folder = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
