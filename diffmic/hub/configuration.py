"""``config.json``: read, and known to be sound before anything is built from it."""

import json
import math
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from ..errors import ModelFileError
from ..inference import STAGES

FORMAT_VERSION = 1
CONFIG_FILE = "config.json"
LARGEST_CONFIG = 2**25  # bytes: a history of 100,000 epochs
LARGEST_IMAGE = 4096  # pixels: nobody's images, once resized, are larger


def read_config(folder: Path, known: set[str]) -> dict[str, Any]:
    """The configuration of a saved model, whose keys must be just the known ones.

    Raises
    ------
    ModelFileError
        No such folder, no configuration in it, or not one of ours.
    """
    config = read_json(folder)
    check_keys(config, known | {"weights_sha256"}, where=str(folder / CONFIG_FILE))
    return config


def read_json(folder: Path) -> dict[str, Any]:
    """The configuration without its format version, which is known to be ours.

    Raises
    ------
    ModelFileError
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
        config = json.loads(
            file.read_text(encoding="utf-8"),
            parse_constant=_refuse_constant,
            object_pairs_hook=_without_repetition,
        )
    except (ValueError, RecursionError) as reason:
        raise ModelFileError(
            f"{str(file)!r} is damaged: {reason}. Save the model again."
        ) from reason
    if not isinstance(config, dict) or "format_version" not in config:
        raise ModelFileError(
            f"{str(file)!r} is not a model of diffmic: it tells no format version. Give a folder "
            "that save_pretrained wrote."
        )
    version = config.pop("format_version")
    if type(version) is not int or version != FORMAT_VERSION:
        raise ModelFileError(
            f"{str(file)!r} has the format version {version!r}; this diffmic reads "
            f"{FORMAT_VERSION}. Update diffmic, or save the model with this version."
        )
    return config


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"a key stands twice among {[name for name, _ in pairs][:20]}")
    return found


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


def check_contents(config: Mapping[str, Any], *, where: str) -> None:
    """Make sure that values are of their kinds and agree with each other.

    Parameters and settings are checked by those who take them.

    Raises
    ------
    ModelFileError
        Naming what is wrong.
    """
    wrong = []
    try:
        for what, holds in _conditions(config):
            if not holds:
                wrong.append(what)
    except (AttributeError, KeyError, TypeError) as reason:  # what comes next could not be read
        wrong.append(f"{type(reason).__name__}: {reason}")
    if wrong:
        raise ModelFileError(
            f"{where} is not as expected: {'; '.join(wrong)}. It may have been changed by hand; "
            "save the model again."
        )


def _conditions(config: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    tables = ("parameters", "preprocessing", "calibrations", "thresholds", "card", "versions")
    for name in (*tables, "diffusion", "validation_scores"):
        yield f"{name} is {str(config[name])[:80]}", isinstance(config[name], dict)
    classes, multilabel = config["classes"], config["multilabel"]
    names = config["parameters"]["class_names"]
    kinds = {type(label) for label in classes}
    yield (
        f"classes is {str(classes)[:80]}, not a list of two or more different numbers or words",
        isinstance(classes, list)
        and len(classes) >= 2
        and len(kinds) == 1
        and kinds <= {bool, int, float, str}
        and len(set(classes)) == len(classes),
    )
    yield (
        f"class_names is {str(names)[:80]}, not a name for each of {len(classes)} classes",
        names is None
        or (_all_are(names, str) and isinstance(names, list) and len(names) == len(classes)),
    )
    for flag in ("multilabel", "diffusion_trained"):
        yield f"{flag} is {config[flag]!r}, not true or false", isinstance(config[flag], bool)
    seed = config["seed"]
    yield f"seed is {seed!r}, not a whole number", type(seed) is int and 0 <= seed < 2**64

    preprocessing = config["preprocessing"]
    check_keys(preprocessing, ("image_size", "channels", "mean", "std"), where="preprocessing")
    size, channels = preprocessing["image_size"], preprocessing["channels"]
    yield (
        f"image_size is {size!r}, not 1 to {LARGEST_IMAGE}",
        type(size) is int and 1 <= size <= LARGEST_IMAGE,
    )
    yield f"channels is {channels!r}, not 1 or 3", type(channels) is int and channels in (1, 3)

    check_keys(config["calibrations"], STAGES, where="calibrations")
    for stage, calibration in config["calibrations"].items():
        numbers = [calibration[name] for name in ("temperature", "shift", "prior_weight")]
        yield (
            f"the calibration of {stage} is {calibration}",
            calibration["stage"] == stage
            and calibration["multilabel"] is multilabel
            and all(map(_is_number, numbers))
            and numbers[0] > 0,
        )
    thresholds = config["thresholds"]
    yield (
        f"thresholds are of {sorted(thresholds)}",
        set(thresholds) == (set(STAGES) if multilabel else set()),
    )
    for stage, values in thresholds.items():
        yield (
            f"thresholds of {stage} are {str(values)[:80]}, not one for each label",
            len(values) == len(classes) and all(_is_number(x) and 0 <= x <= 1 for x in values),
        )
    history = config["history"]
    yield f"history is {str(history)[:80]}", isinstance(history, list) and _all_are(history, dict)
    yield "versions are no words", _all_are(config["versions"].values(), str)
    for name, scores in (
        ("validation_scores", config["validation_scores"]),
        ("test_scores", config["card"]["test_scores"]),
    ):
        measures = [value for stage in scores.values() for value in stage.values()]
        yield (
            f"{name} is {str(scores)[:80]}",
            set(scores) in (set(), set(STAGES))
            and all(value is None or _is_number(value) for value in measures),
        )


def _all_are(values: Collection[Any], kind: type) -> bool:
    return all(isinstance(value, kind) for value in values)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
