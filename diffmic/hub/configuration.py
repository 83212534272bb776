"""Reading and validation of ``config.json``, before anything is built from it."""

import json
import math
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from ..errors import ModelFileError
from ..inference import STAGES
from ..tasks import TASKS
from .format_1 import upgraded

FORMAT_VERSION = 2
CONFIG_FILE = "config.json"
LARGEST_CONFIG = 2**25  # bytes, enough for a history of 100,000 epochs
LARGEST_IMAGE = 4096  # side of the resized images, in pixels


def read_config(folder: Path, known: set[str], *, optional: Collection[str] = ()) -> dict[str, Any]:
    """Configuration of a saved model, after a check of its keys.

    Parameters
    ----------
    folder : Path
    known : set of str
        Required keys.
    optional : collection of str
        Keys that may be missing; no others are allowed.

    Raises
    ------
    ModelFileError
        There is no such folder, or no valid diffmic configuration in it.
    """
    config = read_json(folder)
    where = str(folder / CONFIG_FILE)
    check_keys(config, known | {"weights_sha256", *optional}, where=where, optional=optional)
    return config


def read_json(folder: Path) -> dict[str, Any]:
    """Configuration upgraded to the current format, without the format version."""
    file = folder / CONFIG_FILE
    if not file.is_file():
        raise ModelFileError(
            f"{str(folder)!r} is not a saved model: it has no {CONFIG_FILE}. Give the folder that "
            "save_pretrained wrote."
        )
    if file.stat().st_size > LARGEST_CONFIG:
        raise ModelFileError(
            f"{str(file)!r} has {file.stat().st_size} bytes, which is larger "
            "than any diffmic configuration."
        )
    try:
        config = json.loads(
            file.read_text(encoding="utf-8"),
            parse_constant=_refuse_constant,
            parse_float=_finite,
            object_pairs_hook=_without_repetition,
        )
    except (ValueError, RecursionError) as reason:
        raise ModelFileError(
            f"{str(file)!r} is damaged: {reason}. Save the model again."
        ) from reason
    if not isinstance(config, dict) or "format_version" not in config:
        raise ModelFileError(
            f"{str(file)!r} is not a model of diffmic: it has no format version. Give a folder "
            "that save_pretrained wrote."
        )
    version = config.pop("format_version")
    if type(version) is not int or version not in (1, FORMAT_VERSION):
        raise ModelFileError(
            f"{str(file)!r} has the format version {version!r}; this diffmic reads "
            f"1 to {FORMAT_VERSION}. Update diffmic, or save the model with this version."
        )
    if version == FORMAT_VERSION:
        return config
    try:
        return upgraded(config)
    except (AttributeError, LookupError, TypeError, ValueError) as reason:
        raise ModelFileError(
            f"{str(file)!r} is not a valid file of format version {version}: "
            f"{type(reason).__name__}: {reason}. Save the model again."
        ) from reason


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not valid JSON")


def _finite(text: str) -> float:
    if math.isinf(number := float(text)):
        raise ValueError(f"{text[:40]} is too large")
    return number


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"duplicate key among {[name for name, _ in pairs][:20]}")
    return found


def check_keys(
    values: Mapping[str, Any], known: Collection[str], *, where: str, optional: Collection[str] = ()
) -> None:
    """Check that values have the known keys, all but optional ones; else a ModelFileError."""
    if not isinstance(values, Mapping):
        raise ModelFileError(f"{where} is {str(values)[:80]}, not values by name.")
    surplus = sorted(set(values) - set(known))
    missing = sorted(set(known) - set(values) - set(optional))
    if surplus or missing:
        raise ModelFileError(
            f"{where} is not as expected: unknown keys {surplus}, missing keys {missing}. It may "
            "have been saved by another version of diffmic, or been changed by hand."
        )


def check_contents(config: Mapping[str, Any], *, where: str) -> None:
    """Check that values have the right types and fit together; else a ModelFileError names them.

    Constructor parameters and settings are checked by the code that uses them.
    """
    wrong = []
    try:
        for what, holds in _conditions(config):
            if not holds:
                wrong.append(what)
    except (
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
    ) as reason:  # the next value could not be read
        wrong.append(f"{type(reason).__name__}: {reason}")
    if wrong:
        raise ModelFileError(
            f"{where} is not as expected: {'; '.join(wrong)}. It may have been changed by hand; "
            "save the model again."
        )


def _conditions(config: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    tables = ("parameters", "network", "preprocessing", "calibrations", "thresholds", "card")
    for name in (*tables, "sampling", "versions", "validation_scores"):
        yield f"{name} is {str(config[name])[:80]}", isinstance(config[name], dict)
    task, classes = config["task"], config["classes"]
    yield f"task is {task!r}, not one of {list(TASKS)}", task in TASKS
    names = config["parameters"].get("class_names")
    kinds = {type(label) for label in classes}
    yield (
        f"classes is {str(classes)[:80]}, not a list of two or more different numbers or strings",
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
    given = config.get("data_names")
    yield (
        f"data_names is {str(given)[:80]}, not a name for each of {len(classes)} classes",
        given is None
        or (isinstance(given, list) and _all_are(given, str) and len(given) == len(classes)),
    )
    counts = config.get("label_counts") or {}
    yield (
        f"label_counts is {str(counts)[:80]}",
        isinstance(counts, dict)
        and all(
            isinstance(part, dict)
            and all(isinstance(column, list) and _all_are(column, int) for column in part.values())
            for part in counts.values()
        ),
    )
    seed = config["seed"]
    yield f"seed is {seed!r}, not a whole number", type(seed) is int and 0 <= seed < 2**64

    preprocessing = config["preprocessing"]
    keys = ("image_size", "channels", "mean", "std", "value_range", "crop")
    check_keys(preprocessing, keys, where="preprocessing", optional=("value_range", "crop"))
    size, channels = preprocessing["image_size"], preprocessing["channels"]
    yield (
        f"image_size is {size!r}, not 1 to {LARGEST_IMAGE}",
        type(size) is int and 1 <= size <= LARGEST_IMAGE,
    )
    yield f"channels is {channels!r}, not 1 or 3", type(channels) is int and channels in (1, 3)
    values = preprocessing.get("value_range")
    yield (
        f"value_range is {str(values)[:80]}, not low, high and whether it was given",
        "value_range" not in preprocessing
        or (
            isinstance(values, dict)
            and set(values) == {"low", "high", "given"}
            and all(_is_number(values[name]) for name in ("low", "high"))
            and values["low"] < values["high"]
            and type(values["given"]) is bool
        ),
    )

    zoom = config["network"]["architecture"].get("zoom_size", "auto")
    zooms = config["network"]["architecture"].get("regions") == "zoom"
    named = "" if zooms else "'auto' or "
    yield (
        f"zoom_size is {zoom!r}, not {named}1 to {LARGEST_IMAGE}",
        (zoom == "auto" and not zooms) or (type(zoom) is int and 1 <= zoom <= LARGEST_IMAGE),
    )

    stages = set(config["calibrations"])
    yield (
        f"calibrations are of {sorted(stages)}",
        "prior" in stages and stages <= set(STAGES),
    )
    yield from _decisions(config, stages)
    ratio = config["drawing_ratio"]
    yield (
        f"drawing_ratio is {str(ratio)[:80]}, not a positive number for each class",
        ratio is None
        or (len(ratio) == len(classes) and all(_is_number(x) and x > 0 for x in ratio)),
    )
    history = config["history"]
    yield f"history is {str(history)[:80]}", isinstance(history, list) and _all_are(history, dict)
    yield "versions are not strings", _all_are(config["versions"].values(), str)
    for name, scores, known in (
        ("validation_scores", config["validation_scores"], {*STAGES, "diffusion_alone"}),
        ("test_scores", config["card"]["test_scores"], {*STAGES, "diffusion_alone"}),
    ):
        metrics = [value for stage in scores.values() for value in stage.values()]
        yield (
            f"{name} is {str(scores)[:80]}",
            (not scores or "prior" in scores)
            and set(scores) <= known
            and all(value is None or _is_number(value) for value in metrics),
        )


def _decisions(config: Mapping[str, Any], stages: set[str]) -> Iterator[tuple[str, bool]]:
    """Conditions on thresholds, class shares and the record of a later calibration."""
    task, n_classes, thresholds = (
        TASKS[config["task"]],
        len(config["classes"]),
        config["thresholds"],
    )
    # Models of grades that are older have none; two classes have one if it was chosen.
    allowed = [stages] if task.name != "ordinal" else [stages, set()]
    if not task.has_thresholds:
        allowed = [set(), stages] if n_classes == 2 else [set()]
    yield f"thresholds are of {sorted(thresholds)}", set(thresholds) in allowed
    alone = config.get("diffusion_alone")
    yield (
        f"diffusion_alone is {str(alone)[:80]}, not a calibration and thresholds",
        alone is None
        or (
            isinstance(alone, dict)
            and set(alone) == {"calibration", "thresholds"}
            and isinstance(alone["calibration"], dict)
            and (alone["thresholds"] is not None) == ("diffusion" in thresholds)
        ),
    )
    largest = n_classes - 1 if task.exclusive else 1
    every = dict(thresholds)
    if alone is not None and alone["thresholds"] is not None:
        every["diffusion_alone"] = alone["thresholds"]
    for stage, values in every.items():
        yield (
            f"thresholds of {stage} are {str(values)[:80]}, not one for each label",
            isinstance(values, list)
            and len(values) == task.n_thresholds(n_classes)
            and all(_is_number(x) and 0 <= x <= largest for x in values)
            and (not task.exclusive or values == sorted(values)),
        )
    offsets = [c.get("offsets", []) for c in config["calibrations"].values()]
    yield (
        f"offsets are {str(offsets)[:80]}, not a number for each class",
        all(
            isinstance(each, list) and len(each) in (0, n_classes) and all(map(_is_number, each))
            for each in offsets
        ),
    )
    shares = config.get("shares")
    yield (
        f"shares is {str(shares)[:80]}, not the share of each class",
        shares is None
        or (
            isinstance(shares, list)
            and len(shares) == n_classes
            and all(_is_number(x) and 0 <= x <= 1 for x in shares)
            and (not task.exclusive or abs(sum(shares) - 1) < 1e-6)
        ),
    )
    record = config.get("recalibration")
    keys = {"n_images", "n_positive", "nll_before", "nll_after"}
    yield (
        f"recalibration is {str(record)[:80]}, not a record of a calibration",
        record is None
        or (
            isinstance(record, dict)
            and set(record) == keys
            and all(type(n) is int and n >= 0 for n in (record["n_images"], *record["n_positive"]))
            and len(record["n_positive"]) == n_classes
            and all(
                stages <= set(record[name]) <= stages | {"diffusion_alone"}
                and all(map(_is_number, record[name].values()))
                for name in ("nll_before", "nll_after")
            )
        ),
    )


def _all_are(values: Collection[Any], kind: type) -> bool:
    return all(isinstance(value, kind) for value in values)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max
