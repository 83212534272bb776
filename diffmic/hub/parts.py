"""Parts of one's own in saved models: their names are in the file, the parts are passed again."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, replace
from typing import Any

from ..errors import InputError, ModelFileError
from ..inference import OwnCalibration
from ..inference.fitted import FittedModel
from ..model import Architecture, DiffusionSettings
from ..model.part_checks import part_name
from ..training import Recipe

OF_ARCHITECTURE = ("prior", "region_finder", "denoiser")
OF_DIFFUSION = ("process", "sampler")
OF_RECIPE = ("prior_loss", "denoiser_loss", "calibration")
PARTS = (*OF_ARCHITECTURE, *OF_DIFFUSION, *OF_RECIPE)


def own_fields(settings: Any) -> dict[str, Any]:
    """Fields of settings that hold a part of one's own."""
    found = {name: getattr(settings, name, None) for name in PARTS}
    return {name: part for name, part in found.items() if not isinstance(part, str | None)}


def own_parts(model: FittedModel, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """All parts of one's own in a model and in the parameters of its estimator, by name."""
    recipe = parameters["recipe"]
    settings = [parameters["architecture"], recipe, getattr(recipe, "diffusion", None)]
    found: dict[str, Any] = {}
    for each in (*settings, model.plan.architecture, model.plan.diffusion):
        found |= own_fields(each)
    for calibration in model.calibrations.values():
        if isinstance(calibration, OwnCalibration):
            found["calibration"] = calibration.part
    return found


def plain_settings(settings: Architecture | DiffusionSettings | Recipe) -> dict[str, Any]:
    """Fields of settings as JSON values, with the names of parts of one's own.

    Fields that a subclass adds are left out.
    """
    kind: type = next(
        k for k in (Architecture, DiffusionSettings, Recipe) if isinstance(settings, k)
    )
    own = own_fields(settings)
    defaults: dict[str, Any] = {
        field.name: field.default for field in fields(kind) if field.name in own
    }
    inner = settings.diffusion if isinstance(settings, Recipe) else None
    if inner is not None:
        defaults["diffusion"] = DiffusionSettings()
    plain = asdict(replace(settings, **defaults))  # which would copy parts, and they may be large
    plain = {field.name: plain[field.name] for field in fields(kind)}
    if inner is not None:
        plain["diffusion"] = plain_settings(inner)
    none = {name for name in PARTS if name in plain and plain[name] is None}
    plain = {name: value for name, value in plain.items() if name not in none}
    return plain | {name: {"own": part_name(part)} for name, part in own.items()}


def with_parts(saved: Mapping[str, Any], parts: Mapping[str, Any]) -> dict[str, Any]:
    """Saved settings with the parts that the user passes; without those that are not passed."""
    values = dict(saved)
    for name in PARTS:
        if _own(values.get(name)) is not None:
            del values[name]
            if name in parts:
                values[name] = parts[name]
        elif name in values and not isinstance(values[name], str):
            raise InputError(f"{name} is {str(values[name])[:80]}, not the name of a part")
    return values


def check_parts(config: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
    """Check that the parts that are passed are those that a saved model needs."""
    if not isinstance(parts, Mapping) or set(parts) - set(PARTS):
        raise InputError(f"parts is {parts!r}; give a dict with keys among {list(PARTS)}.")
    needed = dict(_in_network(config))
    trained = dict(_in_parameters(config))
    if missing := {name: each for name, each in needed.items() if parts.get(name) is None}:
        told = ", ".join(f"{name} (it was {each})" for name, each in missing.items())
        example = ", ".join(f"{name!r}: ..." for name in missing)
        raise ModelFileError(
            f"The model has parts of its user's own, and code is not saved. Pass these again: "
            f"{told}, as parts={{{example}}}."
        )
    if surplus := sorted(set(parts) - set(needed) - set(trained)):
        raise ModelFileError(
            f"The model has no {' and no '.join(surplus)} of its user's own: leave it out of parts."
        )


def _own(value: Any) -> str | None:
    """Name of a part of one's own in a file; None if the value is none."""
    own = isinstance(value, dict) and value.keys() == {"own"} and isinstance(value["own"], str)
    return value["own"] if own else None


def _in_network(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    network = config["network"]
    for settings in (network.get("architecture"), network.get("diffusion")):
        yield from _named(settings)
    for calibration in config["calibrations"].values():
        if isinstance(calibration, dict) and "own" in calibration:
            yield "calibration", str(calibration["own"])


def _in_parameters(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    parameters = config["parameters"]
    recipe = parameters.get("recipe")
    yield from _named(parameters.get("architecture"))
    yield from _named(recipe)
    yield from _named(recipe.get("diffusion") if isinstance(recipe, dict) else None)


def _named(settings: Any) -> Iterator[tuple[str, str]]:
    for name in PARTS if isinstance(settings, dict) else ():
        if (own := _own(settings.get(name))) is not None:
            yield name, own
