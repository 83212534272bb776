"""Conversion of checkpoints of the authors of DiffMIC-v2 into models of this library."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch

from .classifier import DiffMICClassifier
from .errors import InputError
from .estimator.parameters import check_parameters
from .hub import ModelCard, SavedModel
from .hub.authors import (
    convert_state_dict,
    load_converted,
    merged,
    read_checkpoint,
    sizes_of,
)
from .hub.parameters import plain_classes
from .inference import STAGES, Calibration, Engine, FittedModel, SamplingOptions
from .model import NetworkPlan, build_network, resolve_architecture, resolved
from .random import LocalRNG
from .settings import undisturbed
from .tasks import task_named
from .training import resolve_recipe

__all__ = ["convert_checkpoint", "convert_state_dict", "convert_weights", "read_checkpoint"]

Files = str | Path | Sequence[str | Path]


def convert_weights(
    files: Files,
    target: str | Path,
    *,
    rename: Mapping[str, str] | None = None,
    ignore: Iterable[str] = (),
    key: str | None = None,
) -> None:
    """Convert a checkpoint to a safetensors file with the names of our network.

    Parameters
    ----------
    files : path or list of paths
        Checkpoint, or its parts.
    target : str or Path
        File to write.
    rename, ignore, key
        As in :func:`convert_checkpoint`.

    Raises
    ------
    ModelFileError, InputError
        As in :func:`convert_checkpoint`.
    """
    path = Path(target).expanduser()
    if path.is_dir():
        raise InputError(f"{str(path)!r} is a folder; give the path of a .safetensors file.")
    tensors = _converted(files, rename, ignore, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})


@undisturbed
def convert_checkpoint(
    files: Files,
    *,
    classes: Sequence[Any],
    rename: Mapping[str, str] | None = None,
    ignore: Iterable[str] = (),
    key: str | None = None,
    device: str = "cpu",
    **parameters: Any,
) -> DiffMICClassifier:
    """Fitted estimator from a checkpoint with the names of the authors of DiffMIC-v2.

    The numbers of classes, regions and timesteps and the width are read from the checkpoint;
    everything else is that of the preset ``"paper-v2"``, unless it is given. All tensors of the
    network must be there: what the checkpoint calls its encoders and its prior is said by
    ``rename``. Probabilities are not calibrated. The weights keep the licence of their authors.

    Parameters
    ----------
    files : path or list of paths
        Checkpoint of safetensors or of ``torch.save``, or several that hold parts of the network;
        see :func:`read_checkpoint`.
    classes : sequence of int or str
        Label of each class, in the order of the checkpoint.
    rename : mapping of str to str or None
        Beginnings of names in the checkpoint that are not in the table of
        :func:`convert_state_dict`, and the names of :class:`~diffmic.model.DiffMICNetwork`, such as
        ``{"trunk.": "image_encoder.net.model."}``.
    ignore : iterable of str
        Beginnings of names to leave out.
    key : str or None
        Key of the tensors in the file, if it holds several sets.
    device : str, default="cpu"
        Device of the estimator.
    **parameters
        Constructor parameters of :class:`~diffmic.DiffMICClassifier`, such as ``backbone``,
        ``architecture``, ``image_size``, ``task`` and ``class_names``.

    Returns
    -------
    DiffMICClassifier
        It predicts, and is saved by ``save_pretrained``.

    Raises
    ------
    ModelFileError
        A file cannot be read; names are unknown or missing, or tensors have other shapes, and the
        message lists them.
    InputError
        Classes or parameters cannot be used.
    """
    tensors = _converted(files, rename, ignore, key)
    sizes = sizes_of(tensors)
    labels = np.asarray(classes)
    if labels.shape != (sizes.num_classes,) or len(set(labels.tolist())) < len(labels):
        raise InputError(
            f"classes is {classes!r}; the checkpoint has {sizes.num_classes} classes: give as many "
            "different labels."
        )
    plain_classes(labels)
    clf = DiffMICClassifier.from_preset("paper-v2", **{"pretrained": False, **parameters})
    architecture = replace(
        resolve_architecture(clf.architecture),
        n_regions=sizes.n_regions,
        feature_dim=sizes.feature_dim,
        num_train_timesteps=sizes.num_train_timesteps,
    )
    clf.set_params(architecture=architecture, device=device)
    values = clf.get_params(deep=False)
    check_parameters(values)
    if values["image_size"] == "auto":
        raise InputError("image_size is 'auto'; give the side of the checkpoint's images.")
    recipe = resolve_recipe(values["recipe"])
    plan = NetworkPlan(
        backbone=values["backbone"],
        architecture=architecture,
        image_size=values["image_size"],
        num_classes=sizes.num_classes,
        task=task_named("multiclass" if values["task"] == "auto" else values["task"]),
        diffusion=recipe.diffusion,
        context_dropout=recipe.context_dropout,
    )
    with LocalRNG(0):
        network = build_network(plan).eval()
    load_converted(network, tensors)
    names = values["class_names"]
    if isinstance(names, Mapping):
        names = [names[label] for label in labels.tolist()]
    # Grades have none: the most probable one is decided, as by the authors.
    stages = () if plan.task.exclusive else STAGES
    model = FittedModel(
        network=network,
        plan=resolved(plan, network),
        classes=labels,
        channels=3,
        calibrations={stage: Calibration() for stage in STAGES},
        thresholds={stage: np.full(sizes.num_classes, 0.5) for stage in stages},
        sampling=SamplingOptions(values["num_steps"], values["n_draws"], values["n_views"]),
        seed=0,
        engine=Engine(network),
        class_names=None if names is None else tuple(map(str, names)),
    )
    card = ModelCard(
        license="other",
        license_note="The weights were converted from another project, whose licence they keep.",
    )
    return DiffMICClassifier._of(SavedModel(model, values, card), device)


def _converted(
    files: Files, rename: Mapping[str, str] | None, ignore: Iterable[str], key: str | None
) -> Any:
    paths = [files] if isinstance(files, str | Path) else list(files)
    if not paths:
        raise InputError("files is empty; give the path of a checkpoint.")
    tensors = merged(read_checkpoint(path, key=key) for path in paths)
    return convert_state_dict(tensors, rename=rename, ignore=ignore)
