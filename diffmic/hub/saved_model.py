"""A saved model: what its folder holds, and how it is loaded; saving.py writes it."""

import copy
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..data import ValueRange
from ..errors import ModelFileError, PartError
from ..inference import (
    AnyCalibration,
    Calibration,
    Engine,
    FitHistory,
    FitRecord,
    FittedModel,
    OwnCalibration,
    Recalibration,
    SamplingOptions,
    ThresholdAim,
)
from ..model import DiffMICNetwork, NetworkPlan, build_network, resolve_architecture, resolved
from ..random import LocalRNG
from ..tasks import task_named
from ..training import resolve_recipe
from ..training.precision import to_device
from .card import ModelCard, checked_card
from .configuration import CONFIG_FILE, check_contents, check_keys, none_as_nan, read_config
from .doubt import announced, read_alone, read_doubt, stored_doubt
from .files import check_tensors, check_weights, finish_save, load_weights
from .parameters import (
    NO_PARTS,
    OLDEST_ARCHITECTURE,
    chosen_backbone,
    instance,
    read_architecture,
    read_classes,
    read_diffusion,
    read_parameters,
)
from .parts import check_parts

_UNBUILT = ArithmeticError, LookupError, AttributeError, TypeError, RuntimeError, ValueError
NETWORK_KEYS = ("backbone", "architecture", "diffusion")
CONFIG_KEYS = {
    *("task", "classes", "network", "preprocessing", "calibrations", "thresholds", "sampling"),
    *("seed", "drawing_ratio", "parameters", "validation_scores", "history", "versions", "card"),
}
# Which earlier versions did not write.
OPTIONAL_KEYS = {
    *("label_counts", "data_names", "diffusion_alone", "doubt"),
    *("shares", "aim", "recalibration"),
}


@dataclass(frozen=True)
class SavedModel:
    """Contents of the folder of a saved model.

    Attributes
    ----------
    model : FittedModel
        Network, calibration and everything else that predictions need.
    parameters : dict
        Constructor parameters of the estimator.
    card : ModelCard
        Contents of the model card.
    """

    model: FittedModel
    parameters: Mapping[str, Any]
    card: ModelCard


def encoder_of(network: DiffMICNetwork) -> Any:
    """Backbone of the network that the estimator's ``backbone`` describes."""
    return network.image_encoder or network.prior.backbone


def preprocessing_of(model: FittedModel) -> dict[str, Any]:
    """Preprocessing: images are cropped, resized to a square, scaled to 0–1 and normalised."""
    encoder, value_range = encoder_of(model.network), model.value_range
    return {
        "image_size": model.image_size,
        "channels": model.channels,
        "mean": [round(x, 6) for x in encoder.mean.flatten().tolist()],
        "std": [round(x, 6) for x in encoder.std.flatten().tolist()],
        **({} if model.crop == "none" else {"crop": model.crop}),
        **({} if value_range is None else {"value_range": asdict(value_range)}),
    }


def load_model(
    folder: Path,
    *,
    defaults: Mapping[str, Any],
    backbone: nn.Module | None,
    device: torch.device,
    augment: Any = None,
    parts: Mapping[str, Any] = NO_PARTS,
    checksum: str | None = None,
) -> SavedModel:
    """Load what :func:`~diffmic.hub.save_model` wrote; see ``DiffMICClassifier.from_pretrained``.

    Parameters
    ----------
    folder : Path
        Folder of a saved model.
    defaults : mapping
        Default constructor parameters, for those that are not saved.
    backbone : nn.Module or None
        Module to use as the backbone if the model was fitted with a custom one.
    device : torch.device
        Device of the loaded network.
    augment : callable or None
        Transform to use if the model was fitted with a custom one; None: ``"auto"``.
    parts : mapping
        Parts of the user's own, by name.
    checksum : str or None
        Expected SHA-256 of the weights, from a source other than the folder; None: that of the
        folder's configuration.

    Raises
    ------
    ModelFileError
        A file is missing, damaged or inconsistent, or needs a module or a transform.
    """
    finish_save(folder)
    config = read_config(folder, CONFIG_KEYS, optional=OPTIONAL_KEYS)
    own_checksum = config.pop("weights_sha256")
    stored = announced(check_weights(folder, checksum or own_checksum), config.get("doubt"))
    where = str(folder / CONFIG_FILE)
    check_contents(config, where=where)
    check_parts(config, parts)
    try:
        saved, plan = _read(config, defaults, backbone, augment, parts)
        beside = stored_doubt(config.get("doubt"), plan.task.exclusive, plan.num_classes)
        # First without allocation: sizes in a configuration may not match its weights.
        with suppress(PartError), torch.device("meta"):  # which a user's code may not know
            check_tensors(stored, build_network(_without_memory(plan)), where=where, extra=beside)
        with LocalRNG(0):
            network = build_network(plan).eval()
        check_tensors(stored, network, where=where, extra=beside)
    except ModelFileError:
        raise
    except _UNBUILT as reason:
        raise ModelFileError(
            f"No model can be built from the {CONFIG_FILE} of {str(folder)!r}: "
            f"{type(reason).__name__}: {reason}"
        ) from reason
    extra = load_weights(folder, network)
    to_device(network, device)
    plan = resolved(plan, network)  # files of format version 1 keep "auto"
    doubt = read_doubt(config.get("doubt"), extra, encoder_of(network).channels, where=where)
    own: dict[str, Any] = {"network": network, "plan": plan, "engine": Engine(network)}
    model = FittedModel(**own, doubt=doubt, **saved.pop("model"))
    if (found := preprocessing_of(model)) != config["preprocessing"]:
        raise ModelFileError(
            f"preprocessing in {where!r} is {config['preprocessing']}, but the weights "
            f"were learnt with {found}. Save the model again."
        )
    return SavedModel(model, **saved)


def _read(
    config: dict[str, Any],
    defaults: Mapping[str, Any],
    backbone: nn.Module | None,
    augment: Any,
    parts: Mapping[str, Any],
) -> tuple[dict[str, Any], NetworkPlan]:
    """Fields of a :class:`SavedModel` except the network, and the plan of the network."""
    network = config["network"]
    check_keys(network, NETWORK_KEYS, where="network")
    chosen = chosen_backbone(network["backbone"], backbone)
    parameters = read_parameters(config["parameters"], defaults, chosen, augment, parts)
    architecture = read_architecture(network["architecture"], parts)
    if isinstance(name := parameters["architecture"], str):
        # The named architectures have changed since; a fit that goes on needs the model's own.
        named = resolve_architecture(name)
        then = replace(named, **{n: getattr(architecture, n) for n in OLDEST_ARCHITECTURE})
        sizes = {n: getattr(architecture, n) for n in ("n_regions", "region_size", "zoom_size")}
        if then != named and replace(then, **sizes) == architecture:
            parameters["architecture"] = then

    def calibration(values: dict[str, Any]) -> AnyCalibration:
        if "own" in values:
            return OwnCalibration.read(values, parts["calibration"], plan.task)
        return instance(Calibration, values)

    preprocessing, drawing_ratio = config["preprocessing"], config["drawing_ratio"]
    shares, record = config.get("shares"), config.get("recalibration")
    plan = NetworkPlan(
        backbone=chosen,
        architecture=architecture,
        image_size=preprocessing["image_size"],
        num_classes=len(config["classes"]),
        task=task_named(config["task"]),
        diffusion=read_diffusion(network["diffusion"], parts),
        context_dropout=resolve_recipe(parameters["recipe"]).context_dropout,
    )
    model = {
        "classes": read_classes(config["classes"]),
        "channels": preprocessing["channels"],
        "value_range": (
            ValueRange(**preprocessing["value_range"]) if "value_range" in preprocessing else None
        ),
        "calibrations": {s: calibration(v) for s, v in config["calibrations"].items()},
        "thresholds": {s: np.asarray(v) for s, v in config["thresholds"].items()},
        "alone": read_alone(config.get("diffusion_alone"), calibration),
        "sampling": instance(SamplingOptions, config["sampling"]),
        "seed": config["seed"],
        "drawing_ratio": None if drawing_ratio is None else np.asarray(drawing_ratio, float),
        "record": FitRecord(
            none_as_nan(config["validation_scores"]),
            FitHistory(none_as_nan(config["history"])),
            config["versions"],
            config.get("label_counts") or {},
        ),
        "class_names": _tuple(parameters["class_names"]),
        "data_names": _tuple(config.get("data_names")),
        "shares": None if shares is None else np.asarray(shares, float),
        "aim": instance(ThresholdAim, config.get("aim") or {}),
        "recalibration": None if record is None else Recalibration(**record),
    }
    return {"model": model, "parameters": parameters, "card": _card(config["card"])}, plan


def _tuple(names: list[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(names)


def _without_memory(plan: NetworkPlan) -> NetworkPlan:
    """The plan with a copy of a custom backbone on the meta device, without memory."""
    if isinstance(plan.backbone, str):
        return plan
    return replace(plan, backbone=copy.deepcopy(plan.backbone).to("meta"))


def _card(saved: dict[str, Any]) -> ModelCard:
    card = instance(ModelCard, saved)
    return checked_card(replace(card, test_scores=none_as_nan(card.test_scores)))
