"""Checkpoints of a fit: from which one it goes on, and whether that is one of this fit."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any

from ..data import TrainingData
from ..errors import CheckpointError, InputError, warn_user
from ..model import NetworkPlan
from ..training import TrainingOptions
from ..training.checkpoint import Checkpoints, newest, prepare_folder, where
from ..training.checkpoint_file import Saved
from ..training.fingerprint import check_same, fingerprint


def found_checkpoint(
    parameters: Mapping[str, Any], resume: Any, *, writes: bool = True
) -> Saved | None:
    """Checkpoint from which a fit goes on; None: it starts from the beginning.

    ``writes``: whether this process writes others; of several, one does.
    """
    folder = parameters["checkpoint_dir"]
    if not isinstance(resume, bool):
        raise InputError(f"resume is {resume!r}; give True or False.")
    if folder is None:
        if resume:
            raise InputError(
                "resume is True, but there is no checkpoint to go on from: the estimator has no "
                "checkpoint_dir. Pass DiffMICClassifier(checkpoint_dir=...) before the first fit."
            )
        return None
    folder = Path(folder).expanduser()
    if writes:
        prepare_folder(folder)
    if resume:
        saved = newest(folder)
        if saved is None:
            warn_user(
                f"There is no checkpoint in {str(folder)!r}: the fit starts from the beginning."
            )
        return saved
    with suppress(CheckpointError):
        earlier = newest(folder)
        if earlier is not None and earlier.loop is not None:
            warn_user(
                f"{str(folder)!r} holds a checkpoint of a fit that did not end, "
                f"{where(earlier)}. This fit starts from the beginning and replaces it; to go on "
                "from it, stop now and fit with resume=True."
            )
    return None


def with_checkpoints(
    options: TrainingOptions,
    parameters: Mapping[str, Any],
    saved: Saved | None,
    data: TrainingData,
    plan: NetworkPlan,
    *,
    goes_on: bool,
) -> TrainingOptions:
    """Options of a fit with its checkpoints, if it has any.

    ``saved`` is the one from which the fit goes on, after a check that it is of the same data and
    parameters; ``goes_on`` is whether the fit starts from an earlier model (warm start).
    """
    folder = parameters["checkpoint_dir"]
    if folder is None:
        return options
    told = fingerprint(
        data.training,
        data.validation,
        options,
        plan,
        classes=data.encoding.classes,
        augment=parameters["augment"],
        warm_start=goes_on,
    )
    if saved is not None:
        check_same(saved.told, told, str(saved.file))
    path, is_main = Path(folder).expanduser(), options.processes.is_main
    return replace(options, checkpoints=Checkpoints(path, told, options.seed, saved, is_main))


def seed_of(parameters: Mapping[str, Any], drawn: int, saved: Saved | None) -> int:
    """Seed of a fit: that of the checkpoint if ``random_state`` gives another each time."""
    if saved is None or isinstance(parameters["random_state"], Integral):
        return drawn
    return saved.seed
