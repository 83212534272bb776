"""Conversion of constructor parameters and settings to JSON values, and back."""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from numbers import Integral
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ..errors import InputError, ModelFileError
from ..inference import Calibration, SamplingOptions, ThresholdAim
from ..model import Architecture, DiffusionSettings
from ..model.part_checks import part_name
from ..training import Recipe
from .card import ModelCard
from .configuration import check_keys
from .parts import plain_settings, with_parts

Settings = TypeVar(
    "Settings",
    Architecture,
    Calibration,
    DiffusionSettings,
    ModelCard,
    Recipe,
    SamplingOptions,
    ThresholdAim,
)

# Only for training; values that JSON cannot represent are saved as None, the default.
TRAINING_PARAMETERS = ("random_state", "class_weight")
NOT_SAVED = frozenset(  # of a machine, or of one fit
    {"device", "callbacks", "checkpoint_dir", "distributed", "time_limit"}
)

NO_PARTS: Mapping[str, Any] = {}

# Values of fields of an Architecture that files without them were made with.
OLDEST_ARCHITECTURE: dict[str, Any] = {"region_importance": "paper", "region_map": "coarse"}


def read_parameters(
    saved: Mapping[str, Any],
    defaults: Mapping[str, Any],
    backbone: str | nn.Module,
    augment: Any = None,
    parts: Mapping[str, Any] = NO_PARTS,
) -> dict[str, Any]:
    """Constructor parameters from the values that :func:`plain_parameters` made.

    Parameters missing in the file get their defaults, since the file may predate them. Unknown ones
    are a ModelFileError, invalid values an InputError.
    """
    surplus = sorted(set(saved) - (set(defaults) - NOT_SAVED))
    if surplus:
        raise ModelFileError(
            f"The file has the parameters {surplus}, which this version of diffmic does not know. "
            "It may have been saved by a newer one: update diffmic."
        )
    parameters = {**defaults, **saved, "backbone": backbone}
    parameters["augment"] = _chosen_augment(parameters, augment)
    if not isinstance(parameters["pretrained"], bool):
        raise InputError(f"pretrained is {parameters['pretrained']!r}, not true or false")
    if isinstance(parameters.get("value_range"), list):
        parameters["value_range"] = tuple(parameters["value_range"])
    if isinstance(parameters["architecture"], dict):
        parameters["architecture"] = read_architecture(parameters["architecture"], parts)
    if isinstance(parameters["recipe"], dict):
        recipe = with_parts(parameters["recipe"], parts)
        settings = read_diffusion(recipe.get("diffusion", {}), parts)
        parameters["recipe"] = instance(Recipe, recipe | {"diffusion": settings})
    return parameters


def read_diffusion(saved: Mapping[str, Any], parts: Mapping[str, Any]) -> DiffusionSettings:
    """Settings of the diffusion from saved values, with parts that are passed again."""
    return instance(DiffusionSettings, with_parts(saved, parts))


def read_architecture(
    saved: Mapping[str, Any], parts: Mapping[str, Any] = NO_PARTS
) -> Architecture:
    """Architecture from saved values; its networks must be named timm models."""
    for name in ("prior_backbone", "region_backbone"):
        if saved.get(name) is not None:
            check_name(name, saved[name])
    return instance(Architecture, OLDEST_ARCHITECTURE | with_parts(saved, parts))


def check_name(parameter: str, name: Any) -> None:
    """Check that a name in a file is that of a timm model, not of a repository or path."""
    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+", name):
        raise InputError(f"{parameter} is {name!r}, which is not the name of a timm model")


def chosen_backbone(saved: Any, given: nn.Module | None) -> str | nn.Module:
    """Backbone of a saved model: its name, or the module that the user passes for it."""
    if isinstance(saved, dict):
        if given is None:
            raise ModelFileError(
                "The model was fitted with a custom module as its backbone, "
                f"{saved['module']}; code is not saved. Pass a module of that class as "
                "backbone=... ."
            )
        return given
    if given is not None:
        raise ModelFileError(
            f"The backbone of the model is the named {saved!r}: leave out backbone=... ."
        )
    check_name("backbone", saved)
    return str(saved)


def custom_augment(augment: Any) -> Any:
    """The augmentation if it is code of the user, which is not saved; else None."""
    return None if isinstance(augment, (str, type(None))) else augment


def _chosen_augment(parameters: Mapping[str, Any], given: Any) -> Any:
    """Augmentation of a saved model: its name, or the transform that the user passes for it."""
    saved = parameters["augment"]
    if not isinstance(saved, dict):
        if given is not None:
            raise ModelFileError(
                f"The model has augment={saved!r}: leave out augment=... , and use set_params to "
                "change it for further fits."
            )
        return saved
    if given is None and parameters["n_views"] > 1:
        raise ModelFileError(
            f"The model predicts with {parameters['n_views']} views of each image, made by a "
            f"transform of your own, {saved['transform']}; code is not saved. Pass that transform "
            "as augment=... ."
        )
    return "auto" if given is None else given


def plain_classes(classes: NDArray[Any]) -> list[Any]:
    """Class labels as JSON values; an InputError if they would not come back as they are."""
    plain = classes.tolist()
    with suppress(AttributeError, TypeError, ValueError):
        held = json.loads(json.dumps(plain, allow_nan=False, default=lambda label: label.item()))
        kinds = {type(label) for label in held}
        one_kind = len(kinds) == 1 and kinds <= {bool, int, float, str}
        # Times of numpy may become integers, which are not what they were.
        if one_kind and classes.dtype.kind in "biufUO" and read_classes(held).tolist() == plain:
            return list(held)
    names = sorted({type(label).__name__ for label in classes})
    raise InputError(
        f"The classes {[*classes][:5]} are of the type {' and '.join(names)}, which the file of a "
        "saved model cannot hold. Give labels that are all integers or all strings, for example "
        "[str(label) for label in y]."
    )


def read_classes(classes: list[Any]) -> NDArray[Any]:
    """Class labels of a file as an array; integers stay integers, however large they are."""
    found = np.asarray(classes)
    if found.dtype.kind == "f" and all(type(label) is int for label in classes):
        return np.asarray(classes, np.uint64 if min(classes) >= 0 else object)
    return found


def plain_backbone(backbone: str | nn.Module) -> str | dict[str, str]:
    """Backbone as a JSON value."""
    if isinstance(backbone, str):
        return backbone
    return {"module": part_name(backbone)}


def instance(kind: type[Settings], values: dict[str, Any]) -> Settings:
    """Instance of a dataclass from saved values.

    Fields that a file does not have are at their defaults: it is older than they are.
    """
    names = {field.name for field in fields(kind)}
    check_keys(values, names, where=kind.__name__, optional=names)
    return kind(**values)


def plain_architecture(architecture: Architecture) -> dict[str, Any]:
    """Architecture as JSON values; an InputError if it has a custom module."""
    for name in ("prior_backbone", "region_backbone"):
        if isinstance(getattr(architecture, name), nn.Module):
            raise InputError(
                f"{name} is a module of your own. Code is not saved, and only backbone can be "
                "passed again when loading. To save the model, use a timm name here."
            )
    return plain_settings(architecture)


def plain_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Constructor parameters as JSON values."""
    plain = {name: value for name, value in parameters.items() if name not in NOT_SAVED}
    if (transform := custom_augment(plain["augment"])) is not None:
        plain["augment"] = {"transform": part_name(transform)}
    for name, value in plain.items():
        if name in TRAINING_PARAMETERS and not isinstance(value, (str, Integral, type(None))):
            plain[name] = None
        elif name == "backbone":
            plain[name] = plain_backbone(value)
        elif isinstance(value, Architecture):
            plain[name] = plain_architecture(value)
        elif isinstance(value, Recipe):
            plain[name] = plain_settings(value)
        elif isinstance(value, (np.ndarray, np.generic)):
            plain[name] = value.tolist()
    if plain["value_range"] is not None:
        plain["value_range"] = [float(value) for value in plain["value_range"]]
    if plain["class_names"] is not None:
        plain["class_names"] = [str(label) for label in plain["class_names"]]
    if isinstance(plain["pretrained"], (str, Path)):
        plain["pretrained"] = False  # a file path is not part of the model
    return plain
