"""A fitted model as a folder of files, and back."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, is_dataclass
from importlib.metadata import version
from numbers import Integral
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ..errors import InputError, ModelFileError
from ..inference import STAGES, Calibration, Stage
from ..model import DiffMICNetwork, DiffusionSettings, architecture_from, build_network
from ..parameters import check_parameters
from ..random import seeded_rng
from ..training import Recipe, resolve_device, resolve_recipe
from ..training.precision import to_device
from .files import CONFIG_FILE, check_keys, load_weights, read_config, save_files

Settings = TypeVar("Settings", Calibration, DiffusionSettings, Recipe)

# For training alone: saved where JSON can hold the value, else left at the default when loading.
TRAINING_PARAMETERS = {"augment": "auto", "random_state": None, "class_weight": None}


@dataclass(frozen=True)
class SavedModel:
    """All that a fitted estimator is made of: fields are its attributes, less the underscore.

    Attributes
    ----------
    parameters : dict
        Constructor parameters.
    """

    parameters: dict[str, Any]
    network: DiffMICNetwork
    classes: NDArray[Any]
    multilabel: bool
    channels: int
    image_size: int
    seed: int
    calibrations: dict[Stage, Calibration]
    thresholds: dict[Stage, NDArray[np.float64]]
    validation_scores: dict[Stage, dict[str, float]]
    history: list[dict[str, Any]]
    diffusion_trained: bool


FITTED = tuple(field.name for field in fields(SavedModel) if field.name != "parameters")
CONFIG_KEYS = {"parameters", "diffusion", "versions", *FITTED} - {"network"}


def save_model(folder: Path, model: SavedModel) -> None:
    """Write ``config.json`` and ``model.safetensors``."""
    config = {name: getattr(model, name) for name in FITTED if name != "network"} | {
        "parameters": _plain_parameters(model.parameters),
        # Spelt out: what a recipe's name stands for may change, what was learnt may not.
        "diffusion": asdict(model.network.settings),
        "classes": model.classes.tolist(),
        "calibrations": {stage: c.to_dict() for stage, c in model.calibrations.items()},
        "thresholds": {stage: t.tolist() for stage, t in model.thresholds.items()},
        "validation_scores": _nan_as_none(model.validation_scores),
        "history": _nan_as_none(model.history),
        "versions": {name: version(name) for name in ("diffmic", "torch", "timm")},
    }
    save_files(folder, config, model.network)


def load_model(
    folder: Path, *, defaults: dict[str, Any], backbone: nn.Module | None, device: str
) -> SavedModel:
    """Read what :func:`save_model` wrote; see ``DiffMICClassifier.from_pretrained``.

    Parameters
    ----------
    defaults : dict
        The estimator's parameters, for those that are not saved.

    Raises
    ------
    ModelFileError
        A missing, damaged or unfitting file.
    """
    target = resolve_device(device)
    config = read_config(folder, CONFIG_KEYS)
    del config["versions"]
    plain_settings = config.pop("diffusion")
    try:
        saved = _parameters(config["parameters"], set(defaults) - {"device"}, backbone)
        parameters = defaults | saved | {"device": device}
        check_parameters(parameters)
        check_keys(config["calibrations"], STAGES, where="calibrations")
        recipe = resolve_recipe(parameters["recipe"])
        architecture = architecture_from(
            parameters,
            pretrained=False,
            image_size=config["image_size"],
            context_dropout=recipe.context_dropout,
        )
        with seeded_rng(0):  # the global random state stays as it is
            network = build_network(
                architecture,
                len(config["classes"]),
                multilabel=config["multilabel"],
                settings=_instance(DiffusionSettings, plain_settings),
            )
        model = SavedModel(
            **config
            | {
                "parameters": parameters,
                "network": network.eval(),
                "classes": np.asarray(config["classes"]),
                "calibrations": {
                    s: _instance(Calibration, v) for s, v in config["calibrations"].items()
                },
                "thresholds": {s: np.asarray(v) for s, v in config["thresholds"].items()},
                "validation_scores": _none_as_nan(config["validation_scores"]),
                "history": _none_as_nan(config["history"]),
            }
        )
    except (AttributeError, KeyError, TypeError, InputError) as reason:
        raise ModelFileError(
            f"No model can be built from the {CONFIG_FILE} of {str(folder)!r}: "
            f"{type(reason).__name__}: {reason}"
        ) from reason
    load_weights(folder, network)
    to_device(network, target)
    return model


def _parameters(
    saved: dict[str, Any], names: set[str], backbone: nn.Module | None
) -> dict[str, Any]:
    """Constructor parameters from those that :func:`_plain_parameters` made."""
    check_keys(saved, names, where="parameters")
    parameters = dict(saved)
    if isinstance(saved["recipe"], dict):
        settings = _instance(DiffusionSettings, saved["recipe"].get("diffusion", {}))
        parameters["recipe"] = _instance(Recipe, saved["recipe"] | {"diffusion": settings})
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


def _instance(kind: type[Settings], values: dict[str, Any]) -> Settings:
    """A dataclass from all of its values, and no others."""
    check_keys(values, {field.name for field in fields(kind)}, where=kind.__name__)
    return kind(**values)


def _plain_parameters(parameters: dict[str, Any]) -> dict[str, Any]:
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
        plain["pretrained"] = True  # the path of a file is no part of the model
    return plain


def _nan_as_none(value: Any) -> Any:
    """JSON has no NaN, which is what a measure is for labels that a part lacks."""
    return _replaced(value, lambda leaf: isinstance(leaf, float) and math.isnan(leaf), None)


def _none_as_nan(value: Any) -> Any:
    return _replaced(value, lambda leaf: leaf is None, math.nan)


def _replaced(value: Any, wanted: Callable[[Any], bool], by: Any) -> Any:
    if isinstance(value, dict):
        return {name: _replaced(entry, wanted, by) for name, entry in value.items()}
    if isinstance(value, list):
        return [_replaced(entry, wanted, by) for entry in value]
    return by if wanted(value) else value
