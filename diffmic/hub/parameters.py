"""Constructor parameters and settings as JSON holds them, and back."""

import re
from dataclasses import asdict, fields, is_dataclass
from numbers import Integral
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch import nn

from ..errors import InputError, ModelFileError
from ..inference import Calibration
from ..model import DiffusionSettings
from ..training import Recipe
from .card import ModelCard
from .configuration import check_keys

Settings = TypeVar("Settings", Calibration, DiffusionSettings, ModelCard, Recipe)

# For training, and views, alone: saved where JSON can hold the value, else left at the default.
TRAINING_PARAMETERS = {"augment": "auto", "random_state": None, "class_weight": None}
# What older files do not tell, and did.
ADDED_LATER = {"n_views": 1}
BACKBONES = ("backbone", "prior_backbone", "region_backbone")


def read_parameters(
    saved: dict[str, Any], names: set[str], backbone: nn.Module | None
) -> dict[str, Any]:
    """Constructor parameters from those that :func:`plain_parameters` made."""
    saved = ADDED_LATER | saved
    check_keys(saved, names, where="parameters")
    for name in BACKBONES:
        if isinstance(saved[name], str) and not re.fullmatch(r"[\w.-]+", saved[name]):
            raise InputError(f"{name} is {saved[name]!r}, which is no name of a timm model")
    if not isinstance(saved["pretrained"], bool):
        raise InputError(f"pretrained is {saved['pretrained']!r}, not true or false")
    parameters = dict(saved)
    if isinstance(saved["recipe"], dict):
        settings = instance(DiffusionSettings, saved["recipe"].get("diffusion", {}))
        parameters["recipe"] = instance(Recipe, saved["recipe"] | {"diffusion": settings})
    if isinstance(saved["backbone"], dict):
        if backbone is None:
            raise ModelFileError(
                "The model was fitted with a module of your own as its backbone, "
                f"{saved['backbone']['module']}; code is not saved. Pass a module of that kind as "
                "backbone=... ."
            )
        parameters["backbone"] = backbone
    elif backbone is not None:
        raise ModelFileError(
            f"The backbone of the model is {saved['backbone']!r}, which has a name: leave out "
            "backbone=... ."
        )
    return parameters


def instance(kind: type[Settings], values: dict[str, Any]) -> Settings:
    """A dataclass from all of its values, and no others."""
    check_keys(values, {field.name for field in fields(kind)}, where=kind.__name__)
    return kind(**values)


def plain_parameters(parameters: dict[str, Any]) -> dict[str, Any]:
    """Constructor parameters as JSON can hold them."""
    plain = {name: value for name, value in parameters.items() if name != "device"}
    for name, value in plain.items():
        if name in TRAINING_PARAMETERS and not isinstance(value, (str, Integral, type(None))):
            plain[name] = TRAINING_PARAMETERS[name]
        elif isinstance(value, nn.Module):
            if name != "backbone":
                raise InputError(
                    f"{name} is a module of your own. Code is not saved, and only backbone can be "
                    "given again when loading: use a timm name here to save the model."
                )
            kind = type(value)
            plain[name] = {"module": f"{kind.__module__}.{kind.__qualname__}"}
        elif is_dataclass(value) and not isinstance(value, type):
            plain[name] = asdict(value)
        elif isinstance(value, (np.ndarray, np.generic)):
            plain[name] = value.tolist()
    if plain["class_names"] is not None:
        plain["class_names"] = [str(label) for label in plain["class_names"]]
    if isinstance(plain["pretrained"], (str, Path)):
        plain["pretrained"] = False  # the path of a file is no part of the model
    return plain
