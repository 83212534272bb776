"""Saving a fitted model as a folder of files, and loading it."""

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
    FitRecord,
    FittedModel,
    OwnCalibration,
    SamplingOptions,
)
from ..model import (
    DiffMICNetwork,
    NetworkPlan,
    build_network,
    resolve_architecture,
    resolved,
)
from ..random import LocalRNG
from ..tasks import task_named
from ..training import resolve_recipe
from ..training.precision import to_device
from .card import ModelCard, card_text, checked_card
from .configuration import CONFIG_FILE, check_contents, check_keys, read_config
from .doubt import (
    announced,
    doubt_tensors,
    plain_alone,
    plain_doubt,
    read_alone,
    read_doubt,
    stored_doubt,
)
from .files import (
    DType,
    check_tensors,
    check_weights,
    finish_save,
    load_weights,
    save_files,
)
from .nan import nan_as_none, none_as_nan
from .parameters import (
    NO_PARTS,
    OLDEST_ARCHITECTURE,
    chosen_backbone,
    custom_augment,
    instance,
    plain_architecture,
    plain_backbone,
    plain_classes,
    plain_parameters,
    read_architecture,
    read_classes,
    read_diffusion,
    read_parameters,
)
from .parts import check_parts, own_parts, plain_settings
from .population import POPULATION_KEYS, plain_population, read_population
from .target import save_target

NETWORK_KEYS = ("backbone", "architecture", "diffusion")
CONFIG_KEYS = {
    "task",
    "classes",
    "network",
    "preprocessing",
    "calibrations",
    "thresholds",
    "sampling",
    "seed",
    "drawing_ratio",
    "parameters",
    "validation_scores",
    "history",
    "versions",
    "card",
}
# Which earlier versions did not write.
OPTIONAL_KEYS = {"label_counts", "data_names", "diffusion_alone", "doubt", *POPULATION_KEYS}


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


def save_model(
    folder: str | Path, saved: SavedModel, *, dtype: DType = "float32", name: str | None = None
) -> None:
    """Save a model as ``config.json``, ``model.safetensors`` and ``README.md``.

    Parameters
    ----------
    folder : str or Path
        Target folder.
    saved : SavedModel
        Model to save.
    dtype : {"float32", "float16"}
        Data type of the stored weights.
    name : str or None
        Name of the model in the usage example of the card; None: that of the folder.

    Raises
    ------
    InputError
        ``folder`` is no path, is a file, or belongs to something else; the model cannot be
        represented in the files, or not be loaded from them. What was there before is unchanged.
    """
    folder = save_target(folder)
    model, names = saved.model, _local_names(saved.model)
    card = replace(saved.card, base_model=saved.card.base_model or _base_model(saved))
    parameters = plain_parameters({**saved.parameters, "class_names": model.class_names})
    config: dict[str, Any] = {
        "task": model.task.name,
        "classes": plain_classes(model.classes),
        "network": {
            "backbone": names.get("backbone", plain_backbone(model.plan.backbone)),
            "architecture": plain_architecture(model.plan.architecture)
            | _without(names, "backbone"),
            "diffusion": plain_settings(model.plan.diffusion),
        },
        "preprocessing": _preprocessing(model),
        "calibrations": {stage: c.to_dict() for stage, c in model.calibrations.items()},
        "thresholds": {stage: t.tolist() for stage, t in model.thresholds.items()},
        "diffusion_alone": plain_alone(model),
        "doubt": plain_doubt(model.doubt),
        "sampling": asdict(model.sampling),
        "seed": model.seed,
        "drawing_ratio": None if model.drawing_ratio is None else model.drawing_ratio.tolist(),
        "parameters": _without(parameters, "backbone"),
        "validation_scores": nan_as_none(dict(model.record.validation_scores)),
        "history": nan_as_none(model.record.history),
        "versions": dict(model.record.versions),
        "label_counts": dict(model.record.label_counts),
        "data_names": None if model.data_names is None else list(model.data_names),
        "card": nan_as_none(asdict(card)),
        **plain_population(model),
    }
    text = card_text(
        card,
        name=name or folder.resolve().name,
        config=config,
        validation_scores=model.record.validation_scores,
    )
    save_files(
        folder,
        config,
        model.network,
        card=text,
        dtype=dtype,
        check=lambda new: _load(new, saved),
        extra=doubt_tensors(model.doubt),
    )


def _load(folder: Path, saved: SavedModel) -> SavedModel:
    """What loading the files of a model gives, with the code that the user would pass again."""
    backbone = saved.model.plan.backbone
    return load_model(
        folder,
        defaults=saved.parameters,
        backbone=None if isinstance(backbone, str) else backbone,
        augment=custom_augment(saved.parameters["augment"]),
        parts=own_parts(saved.model, saved.parameters),
        device=torch.device("cpu"),
    )


def _without(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def _encoder(network: DiffMICNetwork) -> Any:
    """Backbone of the network that the estimator's ``backbone`` describes."""
    return network.image_encoder or network.prior.backbone


def _base_model(saved: SavedModel) -> str:
    """Repository on the Hub of the weights from which training started; empty if there is none."""
    if saved.parameters["pretrained"] is not True:
        return ""
    encoder = _encoder(saved.model.network)
    cfg = getattr(getattr(encoder.net, "model", None), "pretrained_cfg", {})
    return str(cfg.get("hf_hub_id") or "")


def _local_names(model: FittedModel) -> dict[str, str]:
    """timm names for backbones given by ``source:name``, so that loading needs no network."""
    network, architecture = model.network, model.plan.architecture
    if architecture.prior is not None:
        return {}  # of one's own, without named backbones
    backbones: dict[str, tuple[Any, Any]] = {
        "backbone": (model.plan.backbone, _encoder(network)),
        "prior_backbone": (architecture.prior_backbone, network.prior.backbone),
        "region_backbone": (
            architecture.region_backbone,
            getattr(network.prior.regions, "backbone", None),
        ),
    }
    return {
        name: backbone.net.model.pretrained_cfg["architecture"]
        for name, (chosen, backbone) in backbones.items()
        if isinstance(chosen, str) and ":" in chosen
    }


def _preprocessing(model: FittedModel) -> dict[str, Any]:
    """Preprocessing: images are cropped, resized to a square, scaled to 0–1 and normalised."""
    encoder, value_range = _encoder(model.network), model.value_range
    return {
        "image_size": model.image_size,
        "channels": model.channels,
        "mean": [round(x, 6) for x in encoder.mean.flatten().tolist()],
        "std": [round(x, 6) for x in encoder.std.flatten().tolist()],
    } | {
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
    """Load what :func:`save_model` wrote; see ``DiffMICClassifier.from_pretrained``.

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
    extra = load_weights(folder, network)
    to_device(network, device)
    plan = resolved(plan, network)  # files of format version 1 keep "auto"
    doubt = read_doubt(config.get("doubt"), extra, _encoder(network).channels, where=where)
    own: dict[str, Any] = {"network": network, "plan": plan, "engine": Engine(network)}
    model = FittedModel(**own, doubt=doubt, **saved.pop("model"))
    if (found := _preprocessing(model)) != config["preprocessing"]:
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
    named = isinstance(parameters["architecture"], str)
    if named and not network["architecture"].keys() >= OLDEST_ARCHITECTURE.keys():
        # The named architectures have changed since; a fit that goes on needs the model's own.
        own = resolve_architecture(parameters["architecture"])
        parameters["architecture"] = replace(own, **OLDEST_ARCHITECTURE)

    def calibration(values: dict[str, Any]) -> AnyCalibration:
        if "own" in values:
            return OwnCalibration.read(values, parts["calibration"], plan.task)
        return instance(Calibration, values)

    preprocessing, drawing_ratio = config["preprocessing"], config["drawing_ratio"]
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
            none_as_nan(config["history"]),
            config["versions"],
            config.get("label_counts") or {},
        ),
        "class_names": _tuple(parameters["class_names"]),
        "data_names": _tuple(config.get("data_names")),
        **read_population(config),
    }
    return {"model": model, "parameters": parameters, "card": _card(config["card"])}, plan


def _tuple(names: list[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(names)


def _without_memory(plan: NetworkPlan) -> NetworkPlan:
    """The plan with a copy of a custom backbone on the meta device, without memory."""
    module = plan.backbone
    if isinstance(module, str):
        return plan
    return replace(plan, backbone=copy.deepcopy(module).to("meta"))


def _card(saved: dict[str, Any]) -> ModelCard:
    card = instance(ModelCard, saved)
    return checked_card(replace(card, test_scores=none_as_nan(card.test_scores)))
