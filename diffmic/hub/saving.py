"""Saving a fitted model as a folder of files."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from ..inference import FittedModel
from .card import card_text
from .configuration import nan_as_none
from .doubt import doubt_tensors, plain_alone, plain_doubt
from .files import save_files
from .parameters import (
    custom_augment,
    plain_architecture,
    plain_backbone,
    plain_classes,
    plain_parameters,
)
from .parts import own_parts, plain_settings
from .saved_model import SavedModel, encoder_of, load_model, preprocessing_of
from .stored import DType
from .target import save_target


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
    del parameters["backbone"]  # it is the network's
    config: dict[str, Any] = {
        "task": model.task.name,
        "classes": plain_classes(model.classes),
        "network": {
            "backbone": names.pop("backbone", plain_backbone(model.plan.backbone)),
            "architecture": plain_architecture(model.plan.architecture) | names,
            "diffusion": plain_settings(model.plan.diffusion),
        },
        "preprocessing": preprocessing_of(model),
        "calibrations": {stage: c.to_dict() for stage, c in model.calibrations.items()},
        "thresholds": {stage: t.tolist() for stage, t in model.thresholds.items()},
        "diffusion_alone": plain_alone(model),
        "doubt": plain_doubt(model.doubt),
        "sampling": asdict(model.sampling),
        "seed": model.seed,
        "drawing_ratio": None if model.drawing_ratio is None else model.drawing_ratio.tolist(),
        "parameters": parameters,
        "validation_scores": nan_as_none(dict(model.record.validation_scores)),
        "history": nan_as_none(model.record.history),
        "versions": dict(model.record.versions),
        "label_counts": dict(model.record.label_counts),
        "data_names": None if model.data_names is None else list(model.data_names),
        "card": nan_as_none(asdict(card)),
        "shares": None if model.shares is None else model.shares.tolist(),
        "aim": model.aim.to_dict(),
        "recalibration": None if model.recalibration is None else asdict(model.recalibration),
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


def _base_model(saved: SavedModel) -> str:
    """Repository on the Hub of the weights from which training started; empty if there is none."""
    if saved.parameters["pretrained"] is not True:
        return ""
    encoder = encoder_of(saved.model.network)
    cfg = getattr(getattr(encoder.net, "model", None), "pretrained_cfg", {})
    return str(cfg.get("hf_hub_id") or "")


def _local_names(model: FittedModel) -> dict[str, str]:
    """timm names for backbones given by ``source:name``, so that loading needs no network."""
    network, architecture = model.network, model.plan.architecture
    if architecture.prior is not None:
        return {}  # of one's own, without named backbones
    backbones: dict[str, tuple[Any, Any]] = {
        "backbone": (model.plan.backbone, encoder_of(network)),
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
