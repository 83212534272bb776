"""The estimator as a folder of files, and back."""

from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import nn

from ..errors import InputError, ModelFileError
from ..inference import Calibration
from ..model import Architecture, DiffusionSettings, build_network
from ..training import Recipe, resolve_device, resolve_recipe
from ..training.precision import to_device
from .files import load_weights, read_config, save_files

if TYPE_CHECKING:
    from ..classifier import DiffMICClassifier

Estimator = TypeVar("Estimator", bound="DiffMICClassifier")

CONFIG_KEYS = {
    "parameters",
    "classes",
    "multilabel",
    "channels",
    "image_size",
    "seed",
    "calibrations",
    "thresholds",
    "validation_scores",
    "history",
    "diffusion_trained",
    "versions",
}
# What only training uses and JSON cannot hold is left at its default when loading.
TRAINING_ONLY = ("augment", "random_state", "class_weight", "device")
MODULES = ("backbone", "prior_backbone", "region_backbone")


def save_estimator(estimator: "DiffMICClassifier", folder: Path) -> None:
    """Write ``config.json`` and ``model.safetensors`` of a fitted estimator."""
    from importlib.metadata import version

    config = {
        "parameters": _plain_parameters(estimator),
        "classes": estimator.classes_.tolist(),
        "multilabel": estimator.multilabel_,
        "channels": estimator.channels_,
        "image_size": estimator.image_size_,
        "seed": estimator.seed_,
        "calibrations": {stage: c.to_dict() for stage, c in estimator.calibrations_.items()},
        "thresholds": {stage: t.tolist() for stage, t in estimator.thresholds_.items()},
        "validation_scores": estimator.validation_scores_,
        "history": estimator.history_,
        "diffusion_trained": estimator.diffusion_trained_,
        "versions": {name: version(name) for name in ("diffmic", "torch", "timm")},
    }
    save_files(folder, config, estimator.network_)


def load_estimator(
    cls: type[Estimator], folder: Path, *, backbone: nn.Module | None, device: str
) -> Estimator:
    """A fitted estimator from its folder; see ``DiffMICClassifier.from_pretrained``."""
    config = read_config(folder, CONFIG_KEYS)
    parameters = config["parameters"] | {"device": device}
    if isinstance(parameters["recipe"], dict):
        settings = DiffusionSettings(**parameters["recipe"].pop("diffusion"))
        parameters["recipe"] = Recipe(diffusion=settings, **parameters["recipe"])
    for name in MODULES:
        if isinstance(parameters[name], dict):
            if backbone is None or name != "backbone":
                raise ModelFileError(
                    f"The model was fitted with a module of your own as its {name}, "
                    f"{parameters[name]['module']}; code is not saved. Pass a module of that kind "
                    "as backbone=... ."
                )
            parameters[name] = backbone
    estimator = cls(**parameters)
    recipe = resolve_recipe(estimator.recipe)
    network = build_network(
        Architecture(
            backbone=estimator.backbone,
            prior_backbone=estimator.prior_backbone,
            region_backbone=estimator.region_backbone,
            pretrained=False,
            image_size=config["image_size"],
            n_regions=estimator.n_regions,
            region_size=estimator.region_size,
            feature_dim=estimator.feature_dim,
            num_train_timesteps=estimator.num_train_timesteps,
            context_dropout=recipe.context_dropout,
        ),
        len(config["classes"]),
        multilabel=config["multilabel"],
        settings=recipe.diffusion,
    )
    load_weights(folder, network)
    to_device(network, resolve_device(device))
    estimator.network_ = network.eval()
    estimator.classes_ = np.asarray(config["classes"])
    estimator.multilabel_ = config["multilabel"]
    estimator.image_size_ = config["image_size"]
    estimator.channels_ = config["channels"]
    estimator.seed_ = config["seed"]
    estimator.calibrations_ = {
        stage: Calibration(**values) for stage, values in config["calibrations"].items()
    }
    estimator.thresholds_ = {
        stage: np.asarray(values) for stage, values in config["thresholds"].items()
    }
    estimator.validation_scores_ = config["validation_scores"]
    estimator.history_ = config["history"]
    estimator.diffusion_trained_ = config["diffusion_trained"]
    return estimator


def _plain_parameters(estimator: "DiffMICClassifier") -> dict[str, Any]:
    """Constructor parameters as JSON can hold them."""
    parameters = estimator.get_params(deep=False)
    for name in TRAINING_ONLY:
        parameters.pop(name)
    for name, value in parameters.items():
        if isinstance(value, nn.Module):
            kind = type(value)
            parameters[name] = {"module": f"{kind.__module__}.{kind.__qualname__}"}
        elif is_dataclass(value) and not isinstance(value, type):
            parameters[name] = asdict(value)
        elif isinstance(value, (np.ndarray, np.generic)):
            parameters[name] = value.tolist()
    if isinstance(parameters["pretrained"], str):
        parameters["pretrained"] = True  # the path of a file is no part of the model
    return parameters
