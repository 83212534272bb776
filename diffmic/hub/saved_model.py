"""A fitted model as a folder of files, and back."""

import copy
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..errors import InputError, ModelFileError
from ..inference import Calibration, Stage
from ..model import (
    Architecture,
    DiffMICNetwork,
    DiffusionSettings,
    architecture_from,
    build_network,
)
from ..parameters import check_parameters
from ..random import seeded_rng
from ..training import resolve_device, resolve_recipe
from ..training.precision import to_device
from .card import ModelCard, card_text, checked_card
from .configuration import CONFIG_FILE, check_contents, read_config
from .files import (
    WEIGHTS_FILE,
    DType,
    check_tensors,
    check_weights,
    finish_save,
    load_weights,
    save_files,
)
from .parameters import instance, plain_parameters, read_parameters


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
    versions: dict[str, str]
    card: ModelCard


FITTED = tuple(field.name for field in fields(SavedModel) if field.name != "parameters")
CONFIG_KEYS = {"parameters", "diffusion", "preprocessing", *FITTED} - {
    "network",
    "image_size",
    "channels",
}


def save_model(
    folder: str | Path, model: SavedModel, *, dtype: DType = "float32", name: str | None = None
) -> None:
    """Write ``config.json``, ``model.safetensors`` and ``README.md``.

    Parameters
    ----------
    dtype : {"float32", "float16"}
        Of the weights.
    name : str or None
        What the card says to load; None: the name of the folder.

    Raises
    ------
    InputError
        No path, or a file; what the files cannot hold.
    """
    if not isinstance(folder, (str, os.PathLike)) or folder == "":
        raise InputError(f"path is {folder!r}; give the folder in which to save the model.")
    folder = Path(folder)
    card = replace(model.card, base_model=model.card.base_model or _base_model(model))
    config = {key: getattr(model, key) for key in FITTED if key in CONFIG_KEYS} | {
        "parameters": plain_parameters(model.parameters) | _architectures(model),
        # Spelt out: what a recipe's name stands for may change, what was learnt may not.
        "diffusion": asdict(model.network.settings),
        "preprocessing": _preprocessing(model),
        "classes": model.classes.tolist(),
        "calibrations": {stage: c.to_dict() for stage, c in model.calibrations.items()},
        "thresholds": {stage: t.tolist() for stage, t in model.thresholds.items()},
        "validation_scores": _nan_as_none(model.validation_scores),
        "history": _nan_as_none(model.history),
        "card": _nan_as_none(asdict(card)),
    }
    text = card_text(
        card,
        name=name or folder.resolve().name,
        config=config,
        n_regions=model.network.n_regions,
        validation_scores=model.validation_scores,
    )
    save_files(folder, config, model.network, card=text, dtype=dtype)


def _base_model(model: SavedModel) -> str:
    """The repository of the weights on which the training began, where they came from the Hub."""
    if model.parameters["pretrained"] is not True:
        return ""
    encoder = model.network.image_encoder or model.network.prior.backbone
    cfg = getattr(getattr(encoder.net, "model", None), "pretrained_cfg", {})
    return str(cfg.get("hf_hub_id") or "")


def _architectures(model: SavedModel) -> dict[str, str]:
    """timm's own names for backbones that came from elsewhere: loading asks no network for them."""
    network = model.network
    backbones: dict[str, Any] = {
        "backbone": network.image_encoder or network.prior.backbone,
        "prior_backbone": network.prior.backbone,
        "region_backbone": getattr(network.prior.regions, "backbone", None),
    }
    return {
        name: backbone.net.model.pretrained_cfg["architecture"]
        for name, backbone in backbones.items()
        if isinstance(value := model.parameters[name], str) and ":" in value
    }


def _preprocessing(model: SavedModel) -> dict[str, Any]:
    """How images become the network's input: resized to a square, scaled to 0–1, normalised."""
    encoder = model.network.image_encoder or model.network.prior.backbone
    return {
        "image_size": model.image_size,
        "channels": model.channels,
        "mean": [round(x, 6) for x in encoder.mean.flatten().tolist()],
        "std": [round(x, 6) for x in encoder.std.flatten().tolist()],
    }


def load_model(
    folder: Path,
    *,
    defaults: dict[str, Any],
    backbone: nn.Module | None,
    device: str,
    checksum: str | None = None,
) -> SavedModel:
    """Read what :func:`save_model` wrote; see ``DiffMICClassifier.from_pretrained``.

    Parameters
    ----------
    defaults : dict
        The estimator's parameters, for those that are not saved.
    checksum : str or None
        The SHA-256 that the weights must have, from elsewhere than the folder.

    Raises
    ------
    ModelFileError
        A missing, damaged or unfitting file.
    """
    target = resolve_device(device)
    finish_save(folder)
    config = read_config(folder, CONFIG_KEYS)
    own_checksum = config.pop("weights_sha256")
    stored = check_weights(folder, checksum or own_checksum)
    check_contents(config, where=str(folder / CONFIG_FILE))
    plain_settings, preprocessing = config.pop("diffusion"), config.pop("preprocessing")
    where = str(folder / WEIGHTS_FILE)
    image_size = preprocessing["image_size"]
    try:
        saved = read_parameters(config["parameters"], set(defaults) - {"device"}, backbone)
        parameters = defaults | saved | {"device": device}
        check_parameters(parameters)
        architecture = architecture_from(
            parameters,
            pretrained=False,
            image_size=image_size,
            context_dropout=resolve_recipe(parameters["recipe"]).context_dropout,
        )
        settings = instance(DiffusionSettings, plain_settings)

        def build(architecture: Architecture) -> DiffMICNetwork:
            with seeded_rng(0):  # the global random state stays as it is
                return build_network(
                    architecture,
                    len(config["classes"]),
                    multilabel=config["multilabel"],
                    settings=settings,
                )

        # First without memory: a configuration may claim sizes that its weights do not have.
        with torch.device("meta"):
            check_tensors(stored, build(_without_memory(architecture)), where=where)
        network = build(architecture)
        model = SavedModel(
            **config
            | {
                "parameters": parameters,
                "network": network.eval(),
                "image_size": image_size,
                "channels": preprocessing["channels"],
                "classes": np.asarray(config["classes"]),
                "calibrations": {
                    s: instance(Calibration, v) for s, v in config["calibrations"].items()
                },
                "thresholds": {s: np.asarray(v) for s, v in config["thresholds"].items()},
                "validation_scores": _none_as_nan(config["validation_scores"]),
                "history": _none_as_nan(config["history"]),
                "card": _card(config["card"]),
            }
        )
    except ModelFileError:
        raise
    except (
        ArithmeticError,
        LookupError,
        AttributeError,
        TypeError,
        RuntimeError,
        ValueError,
    ) as reason:
        raise ModelFileError(
            f"No model can be built from the {CONFIG_FILE} of {str(folder)!r}: "
            f"{type(reason).__name__}: {reason}"
        ) from reason
    load_weights(folder, network)
    if (found := _preprocessing(model)) != preprocessing:
        raise ModelFileError(
            f"preprocessing in {str(folder / CONFIG_FILE)!r} is {preprocessing}, and the weights "
            f"were learnt with {found}. Save the model again."
        )
    to_device(network, target)
    return model


def _without_memory(architecture: Architecture) -> Architecture:
    """The same, where the user's own module is a copy without memory."""
    module = architecture.backbone
    if isinstance(module, str):
        return architecture
    return replace(architecture, backbone=copy.deepcopy(module).to("meta"))


def _card(saved: dict[str, Any]) -> ModelCard:
    card = instance(ModelCard, saved)
    return checked_card(replace(card, test_scores=_none_as_nan(card.test_scores)))


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
