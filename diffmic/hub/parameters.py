"""Conversion of constructor parameters and settings to JSON values, and back."""

import re
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from numbers import Integral
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch import nn

from ..errors import InputError, ModelFileError
from ..inference import Calibration, SamplingOptions
from ..model import Architecture, DiffusionSettings
from ..training import Recipe
from .card import ModelCard
from .configuration import check_keys

Settings = TypeVar(
    "Settings", Architecture, Calibration, DiffusionSettings, ModelCard, Recipe, SamplingOptions
)

# Only for training and test-time views; values that JSON cannot represent get these defaults.
TRAINING_PARAMETERS = {"augment": "auto", "random_state": None, "class_weight": None}


def read_parameters(
    saved: Mapping[str, Any], defaults: Mapping[str, Any], backbone: str | nn.Module
) -> dict[str, Any]:
    """Constructor parameters from the values that :func:`plain_parameters` made.

    Parameters missing in the file get their defaults, since the file may predate them.

    Raises
    ------
    ModelFileError
        The file has unknown parameters or settings.
    InputError
        A value is invalid.
    """
    surplus = sorted(set(saved) - (set(defaults) - {"device"}))
    if surplus:
        raise ModelFileError(
            f"The file has the parameters {surplus}, which this version of diffmic does not know. "
            "It may have been saved by a newer one: update diffmic."
        )
    parameters = {**defaults, **saved, "backbone": backbone}
    if not isinstance(parameters["pretrained"], bool):
        raise InputError(f"pretrained is {parameters['pretrained']!r}, not true or false")
    if isinstance(parameters["architecture"], dict):
        parameters["architecture"] = read_architecture(parameters["architecture"])
    if isinstance(parameters["recipe"], dict):
        recipe = dict(parameters["recipe"])
        settings = instance(DiffusionSettings, recipe.get("diffusion", {}))
        parameters["recipe"] = instance(Recipe, recipe | {"diffusion": settings})
    return parameters


def read_architecture(saved: Mapping[str, Any]) -> Architecture:
    """Architecture from saved values; its networks must be named timm models."""
    for name in ("prior_backbone", "region_backbone"):
        if saved.get(name) is not None:
            check_name(name, saved[name])
    return instance(Architecture, dict(saved))


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


def plain_backbone(backbone: str | nn.Module) -> str | dict[str, str]:
    """Backbone as a JSON value."""
    if isinstance(backbone, str):
        return backbone
    kind = type(backbone)
    return {"module": f"{kind.__module__}.{kind.__qualname__}"}


def instance(kind: type[Settings], values: dict[str, Any]) -> Settings:
    """Instance of a dataclass from saved values.

    Fields that a file does not have are at their defaults: it is older than they are.
    """
    names = {field.name for field in fields(kind)}
    check_keys(values, names, where=kind.__name__, optional=names)
    return kind(**values)


def plain_architecture(architecture: Architecture) -> dict[str, Any]:
    """Architecture as JSON values.

    Raises
    ------
    InputError
        The architecture has a custom module.
    """
    for name in ("prior_backbone", "region_backbone"):
        if isinstance(getattr(architecture, name), nn.Module):
            raise InputError(
                f"{name} is a module of your own. Code is not saved, and only backbone can be "
                "passed again when loading. To save the model, use a timm name here."
            )
    return asdict(architecture)


def plain_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Constructor parameters as JSON values."""
    plain = {name: value for name, value in parameters.items() if name != "device"}
    for name, value in plain.items():
        if name in TRAINING_PARAMETERS and not isinstance(value, (str, Integral, type(None))):
            plain[name] = TRAINING_PARAMETERS[name]
        elif name == "backbone":
            plain[name] = plain_backbone(value)
        elif isinstance(value, Architecture):
            plain[name] = plain_architecture(value)
        elif is_dataclass(value) and not isinstance(value, type):
            plain[name] = asdict(value)
        elif isinstance(value, (np.ndarray, np.generic)):
            plain[name] = value.tolist()
    if plain["class_names"] is not None:
        plain["class_names"] = [str(label) for label in plain["class_names"]]
    if isinstance(plain["pretrained"], (str, Path)):
        plain["pretrained"] = False  # a file path is not part of the model
    return plain
