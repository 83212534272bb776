"""Reading and validation of ``config.json``, before anything is built from it."""

import json
import math
import sys
from collections.abc import Callable, Collection, Mapping
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
    """Configuration of a saved model, which has the known keys, and perhaps the optional ones."""
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
    wrong = _Wrong()
    try:
        _look(config, wrong.unless)
        _look_at_decisions(config, wrong.unless)
    except (AttributeError, LookupError, TypeError, ValueError) as reason:
        wrong.append(f"{type(reason).__name__}: {reason}")  # the next value could not be read
    if wrong:
        raise ModelFileError(
            f"{where} is not as expected: {'; '.join(wrong)}. It may have been changed by hand; "
            "save the model again."
        )


class _Wrong(list[str]):
    """What is wrong, in words."""

    def unless(self, holds: bool, subject: str, found: object, expected: str = "") -> None:
        """Note what was found and what is expected, unless a condition holds."""
        if not holds:
            self.append(f"{subject} {str(found)[:80]}" + (f", not {expected}" if expected else ""))


def _look(config: Mapping[str, Any], need: Callable[..., None]) -> None:
    """Conditions on the values of a configuration, but for those of decisions."""
    tables = ("parameters", "network", "preprocessing", "calibrations", "thresholds", "card")
    for name in (*tables, "sampling", "versions", "validation_scores"):
        need(isinstance(config[name], dict), f"{name} is", config[name])
    task, classes = config["task"], config["classes"]
    need(task in TASKS, "task is", repr(task), f"one of {list(TASKS)}")
    kinds = {type(label) for label in classes}
    plain = isinstance(classes, list) and len(kinds) == 1 and kinds <= {bool, int, float, str}
    different = plain and 2 <= len(classes) == len(set(classes))
    need(different, "classes is", classes, "a list of two or more different numbers or strings")
    n = len(classes)
    given = config["parameters"].get("class_names"), config.get("data_names")
    for name, names in zip(("class_names", "data_names"), given, strict=True):
        named = names is None or _is_list(names, _is_text, n)
        need(named, f"{name} is", names, f"a name for each of {n} classes")
    counts = config.get("label_counts") or {}
    parts = counts.values() if isinstance(counts, dict) else [counts]
    columns = (part.values() if isinstance(part, dict) else [part] for part in parts)
    counted = all(_is_list(c, lambda x: isinstance(x, int)) for part in columns for c in part)
    need(counted and isinstance(counts, dict), "label_counts is", counts)
    seed = config["seed"]
    need(type(seed) is int and 0 <= seed < 2**64, "seed is", repr(seed), "a whole number")

    preprocessing = config["preprocessing"]
    keys = ("image_size", "channels", "mean", "std", "value_range", "crop")
    check_keys(preprocessing, keys, where="preprocessing", optional=("value_range", "crop"))
    size, channels = preprocessing["image_size"], preprocessing["channels"]
    need(_is_size(size), "image_size is", repr(size), f"1 to {LARGEST_IMAGE}")
    need(type(channels) is int and channels in (1, 3), "channels is", repr(channels), "1 or 3")
    values = preprocessing.get("value_range")
    ranged = "value_range" not in preprocessing or (
        isinstance(values, dict)
        and set(values) == {"low", "high", "given"}
        and all(_is_number(values[name]) for name in ("low", "high"))
        and values["low"] < values["high"]
        and type(values["given"]) is bool
    )
    need(ranged, "value_range is", values, "low, high and whether it was given")

    architecture = config["network"]["architecture"]
    zoom, zooms = architecture.get("zoom_size", "auto"), architecture.get("regions") == "zoom"
    sized = _is_size(zoom) or (zoom == "auto" and not zooms)
    auto = "" if zooms else "'auto' or "
    need(sized, "zoom_size is", repr(zoom), f"{auto}1 to {LARGEST_IMAGE}")

    ratio, history = config["drawing_ratio"], config["history"]
    drawn = ratio is None or _is_list(ratio, lambda x: _is_number(x) and x > 0, n)
    need(drawn, "drawing_ratio is", ratio, "a positive number for each class")
    need(_is_list(history, lambda row: isinstance(row, dict)), "history is", history)
    versions = config["versions"]
    need(all(map(_is_text, versions.values())), "versions are", versions, "strings")
    both = (config, "validation_scores"), (config["card"], "test_scores")
    for holder, name in both:
        scores = holder[name]
        metrics = [value for stage in scores.values() for value in stage.values()]
        staged = (not scores or "prior" in scores) and set(scores) <= {*STAGES, "diffusion_alone"}
        measured = all(value is None or _is_number(value) for value in metrics)
        need(staged and measured, f"{name} is", scores)


def _look_at_decisions(config: Mapping[str, Any], need: Callable[..., None]) -> None:
    """Conditions on calibrations, thresholds, class shares and a later calibration."""
    stages, thresholds = set(config["calibrations"]), config["thresholds"]
    need("prior" in stages and stages <= set(STAGES), "calibrations are of", sorted(stages))
    task, n = TASKS[config["task"]], len(config["classes"])
    # Models of grades that are older have none; two classes have one if it was chosen.
    allowed = [stages] if not task.ordered else [stages, set()]
    if not task.has_thresholds:
        allowed = [set(), stages] if n == 2 else [set()]
    need(set(thresholds) in allowed, "thresholds are of", sorted(thresholds))
    alone, every = config.get("diffusion_alone"), dict(thresholds)
    paired = alone is None or (
        isinstance(alone, dict)
        and set(alone) == {"calibration", "thresholds"}
        and isinstance(alone["calibration"], dict)
        and (alone["thresholds"] is not None) == ("diffusion" in thresholds)
    )
    need(paired, "diffusion_alone is", alone, "a calibration and thresholds")
    if alone is not None and alone["thresholds"] is not None:
        every["diffusion_alone"] = alone["thresholds"]
    largest = n - 1 if task.exclusive else 1
    for stage, values in every.items():
        fit = _is_list(values, lambda x: _is_number(x) and 0 <= x <= largest, task.n_thresholds(n))
        fit = fit and (not task.exclusive or values == sorted(values))
        need(fit, f"thresholds of {stage} are", values, "one for each label")
    offsets = [c.get("offsets", []) for c in config["calibrations"].values()]
    fit = all(each == [] or _is_list(each, _is_number, n) for each in offsets)
    need(fit, "offsets are", offsets, "a number for each class")
    shares = config.get("shares")
    fit = shares is None or _is_list(shares, lambda x: _is_number(x) and 0 <= x <= 1, n)
    whole = not fit or shares is None or not task.exclusive or abs(sum(shares) - 1) < 1e-6
    need(fit and whole, "shares is", shares, "the share of each class")
    record = config.get("recalibration")
    recorded = record is None or (
        isinstance(record, dict)
        and set(record) == {"n_images", "n_positive", "nll_before", "nll_after"}
        and all(type(x) is int and x >= 0 for x in (record["n_images"], *record["n_positive"]))
        and len(record["n_positive"]) == n
        and all(
            stages <= set(record[name]) <= stages | {"diffusion_alone"}
            and all(map(_is_number, record[name].values()))
            for name in ("nll_before", "nll_after")
        )
    )
    need(recorded, "recalibration is", record, "a record of a calibration")


def _is_list(values: Any, holds: Callable[[Any], bool], n: int | None = None) -> bool:
    """Whether values are a list of n (None: any number) of which each fulfils a condition."""
    return isinstance(values, list) and n in (None, len(values)) and all(map(holds, values))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _is_size(value: Any) -> bool:
    return type(value) is int and 1 <= value <= LARGEST_IMAGE


def nan_as_none(value: Any) -> Any:
    """Values with NaN as None: metrics may be NaN, which JSON cannot represent."""
    return _replaced(value, lambda leaf: isinstance(leaf, float) and math.isnan(leaf), None)


def none_as_nan(value: Any) -> Any:
    """Values with NaN for None."""
    return _replaced(value, lambda leaf: leaf is None, math.nan)


def _replaced(value: Any, wanted: Callable[[Any], bool], by: Any) -> Any:
    if isinstance(value, dict):
        return {name: _replaced(entry, wanted, by) for name, entry in value.items()}
    if isinstance(value, list):
        return [_replaced(entry, wanted, by) for entry in value]
    return by if wanted(value) else value
