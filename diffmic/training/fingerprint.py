"""What a fit depends on, in plain words and checksums: data, parameters, network."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..data import LabelledImages
from ..data.sources import is_of_a_dataset
from ..errors import CheckpointError
from ..model import NetworkPlan
from ..tasks import Task
from .options import TrainingOptions

_SAMPLE = 4  # images of each part whose pixels are compared
# They change how a fit is run, not what comes out; device and seed stand for themselves.
_NOT_COMPARED = ("num_workers", "watch", "checkpoints", "processes")


def fingerprint(
    training: LabelledImages,
    validation: LabelledImages | None,
    options: TrainingOptions,
    plan: NetworkPlan,
    **others: Any,
) -> dict[str, Any]:
    """Description of a fit, as JSON values; fits with the same description learn the same.

    Of the images, their number, targets, soft labels and weights count, and the pixels of a few;
    ``others`` are other values that matter.
    """
    own = {f.name: getattr(options, f.name) for f in fields(options)}
    own["device"] = torch.device(options.device.type)  # each of several processes has its own GPU
    told = {
        "parameters": {name: own[name] for name in own if name not in _NOT_COMPARED},
        "network": plan,
        "data": {
            "training": data_told(training, options),
            "validation": None if validation is None else data_told(validation, options),
        },
        **others,
    }
    found: dict[str, Any] = json.loads(json.dumps(described(told)))
    return found


def check_same(saved: Mapping[str, Any], now: Mapping[str, Any], file: str) -> None:
    """Check that a checkpoint is of the fit that is to go on; else a CheckpointError."""
    before, after = dict(_flat(saved)), dict(_flat(now))
    differ = [
        f"{name} was {_short(before, name)} and is {_short(after, name)}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name, "missing") != after.get(name, "missing")
    ]
    if differ:
        more = f"; and {len(differ) - 5} more" if len(differ) > 5 else ""
        raise CheckpointError(
            f"The checkpoint {file!r} is of another fit: {'; '.join(differ[:5])}{more}. Pass the "
            "data and parameters with which that fit began, or resume=False, which starts from the "
            "beginning, or another checkpoint_dir."
        )


def described(value: Any) -> Any:
    """A value as JSON; code by its name, objects by what they print."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return [described(each) for each in value.tolist()]
    if isinstance(value, Task):
        return value.name
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: described(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): described(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [described(each) for each in value]
    if hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    printed = re.sub(r"0x[0-9a-fA-F]+", "", repr(value))
    if isinstance(value, nn.Module):  # which may print hundreds of lines
        kind = type(value)
        return f"{kind.__module__}.{kind.__qualname__} {_checksum(printed.encode())}"
    return printed


def data_told(part: LabelledImages, options: TrainingOptions) -> dict[str, Any]:
    """What is told of the images of one part of the data: number, labels, a few pixels."""
    weights = [part.weights, part.weights if part.loss_weights is None else part.loss_weights]
    soft = {} if part.soft is None else {"soft labels": _checksum(_bytes(part.soft))}
    return soft | {
        "number of images": len(part),
        "targets": _checksum(_bytes(part.targets)),
        "weights": _checksum(b"".join(map(_bytes, weights))),
        "value range": None if part.value_range is None else described(part.value_range),
        "pixels": _pixels(part, options),
    }


def _pixels(part: LabelledImages, options: TrainingOptions) -> str | None:
    """Checksum of a few images; None: a Dataset gives others each time."""
    few = np.unique(np.linspace(0, len(part) - 1, _SAMPLE).round().astype(int)).tolist()
    times = 2 if is_of_a_dataset(part.images) else 1
    images = options.prepared(part.subset(few * times))
    batches = images.batches(len(few) * times, num_workers=options.num_workers)
    read = torch.cat([batch["image"] for batch in batches]).chunk(times)
    return _checksum(_bytes(read[0])) if all(torch.equal(read[0], r) for r in read) else None


def _bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().numpy().tobytes()


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Values of nested dicts by names with dots."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _flat(each, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def _short(values: Mapping[str, Any], name: str) -> str:
    return repr(values[name])[:80] if name in values else "missing"
