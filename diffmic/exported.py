"""What an exported model says of itself, and what its graph gives, both checked; without torch."""

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ModelFileError

FORMAT = 1  # of the metadata
KEY = "diffmic"
LARGEST_IMAGE = 4096  # side in pixels
_TASKS = ("multiclass", "multilabel", "ordinal")
_STAGES = {"diffusion", "prior"}

Floats = NDArray[np.float64]


def session_options(num_threads: int = 0) -> Any:
    """Options of a session of ONNX Runtime; 0 threads: as many as it finds cores."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    # Threads that spin while they wait take the cores from whatever else runs beside them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


def read_metadata(session: Any, shown: str) -> dict[str, Any]:
    """Metadata of the file of a session of ONNX Runtime.

    Raises
    ------
    ModelFileError
        The file was not written by ``export_onnx``, or its metadata are damaged.
    """
    try:
        told = session.get_modelmeta().custom_metadata_map.get(KEY)
        found = json.loads(told or "null")
    except (ValueError, RecursionError) as reason:
        raise ModelFileError(f"The metadata of {shown} are damaged: {reason}.") from reason
    if not isinstance(found, dict) or "format" not in found:
        raise ModelFileError(
            f"{shown} was not written by DiffMICClassifier.export_onnx: it has no metadata of it."
        )
    if found["format"] != FORMAT or isinstance(found["format"], bool):
        raise ModelFileError(
            f"{shown} has metadata of format {str(found['format'])[:40]}; this diffmic reads "
            f"{FORMAT}. Update diffmic, or export the model with this version."
        )
    try:
        wrong = [what for what, holds in _conditions(found) if not holds]
    except (AttributeError, LookupError, TypeError) as reason:  # of the next value
        wrong = [f"{type(reason).__name__}: {reason}"]
    if wrong:
        raise ModelFileError(
            f"The metadata of {shown} are not as expected: {'; '.join(wrong)[:400]}. Export the "
            "model again."
        )
    return found


def _conditions(told: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    def says(name: str) -> str:
        return f"{name} is {str(told.get(name))[:60]}"

    task, classes = told["task"], told["classes"]
    yield says("task"), task in _TASKS
    kinds = {type(label) for label in classes}
    yield (
        says("classes"),
        isinstance(classes, list)
        and len(kinds) == 1
        and kinds <= {bool, int, float, str}
        and len(set(classes)) == len(classes) >= 2,
    )
    names = told["class_names"]
    yield (
        says("class_names"),
        isinstance(names, list)
        and len(names) == len(classes)
        and all(isinstance(name, str) for name in names),
    )
    yield says("image_size"), _is_side(told["image_size"])
    yield says("zoom_size"), told.get("zoom_size") is None or _is_side(told["zoom_size"])
    yield says("crop"), told["crop"] in ("none", "square")
    values = told["value_range"]
    yield (
        says("value_range"),
        values is None
        or (
            isinstance(values, list)
            and len(values) == 2
            and all(map(_is_number, values))
            and values[0] < values[1]
        ),
    )
    given = told["value_range_given"]
    yield says("value_range_given"), type(given) is bool and (values is not None or not given)
    stages = told["stages"]
    yield (
        says("stages"),
        isinstance(stages, list) and "prior" in stages and set(stages) <= _STAGES,
    )
    thresholds, n_classes = told["thresholds"], len(classes)
    n_wanted = {"multilabel": n_classes, "ordinal": n_classes - 1}.get(task, 1)
    yield (
        says("thresholds"),
        isinstance(thresholds, dict)
        and set(thresholds) <= _STAGES
        and (task in ("multilabel", "ordinal") or n_classes == 2 or not thresholds)
        and all(
            isinstance(each, list) and len(each) == n_wanted and all(map(_is_number, each))
            for each in thresholds.values()
        ),
    )


def _is_side(value: Any) -> bool:
    return type(value) is int and 1 <= value <= LARGEST_IMAGE


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def probabilities_of(
    session: Any, output: str, inputs: Mapping[str, NDArray[Any]], n_classes: int
) -> Floats:
    """Probabilities (n, C) that the graph gives for a batch.

    Raises
    ------
    ModelFileError
        The graph does not take the images that its metadata describe, or what it gives are no
        probabilities.
    """
    try:
        found = np.asarray(session.run([output], dict(inputs))[0])
    except Exception as reason:  # onnxruntime has an exception for each kind of damage
        raise ModelFileError(
            f"The graph of the model does not take what its metadata describe: {reason}. Export "
            "the model again."
        ) from reason
    shape = (len(next(iter(inputs.values()))), n_classes)
    if found.shape != shape or found.dtype.kind != "f" or not np.isfinite(found).all():
        raise ModelFileError(
            f"The graph of the model gives {found.dtype} of shape {found.shape}, with "
            f"{int((~np.isfinite(found)).sum()) if found.dtype.kind == 'f' else 0} values that are "
            f"no numbers, instead of probabilities of shape {shape}. Export the model again."
        )
    return found.astype(np.float64)
