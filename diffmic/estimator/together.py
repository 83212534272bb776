"""Preparation of a fit by several processes, which end in the same plan or in the same error."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..random import draw_seed
from ..training.distributed import Processes, joined
from ..training.fingerprint import data_told

if TYPE_CHECKING:
    from .preparation import FitPlan


def prepared_together(
    parameters: Mapping[str, Any], prepare: Callable[[dict[str, Any], Processes], "FitPlan"]
) -> "FitPlan":
    """Plan of a fit, which several processes make alike if ``distributed`` is set.

    ``prepare`` makes it from the constructor parameters for this process, and the processes.
    """
    p = dict(parameters)
    processes = joined(p["distributed"], p["device"])
    if processes.count == 1:
        return prepare(p, processes)
    drawn = processes.each(lambda: draw_seed(parameters["random_state"]))  # moves a RandomState
    p["random_state"] = processes.from_main(lambda: drawn)
    p["device"] = str(processes.device)
    if not processes.is_main:
        p["verbose"], p["callbacks"] = 0, None
    with processes.quiet():
        plan = processes.each(lambda: _checked(prepare(p, processes), processes))
    goes_on = plan.options.checkpoints
    found = processes.together(lambda: goes_on and goes_on.saved and goes_on.saved.file.name)
    if len(set(found)) > 1:
        raise InputError(
            f"The processes found different checkpoints to go on from: {found}. checkpoint_dir "
            "must be a folder that all of them see."
        )
    told = processes.together(lambda: _data_of(plan))
    names = sorted({name for one in told for name in one})
    values = {name: [one.get(name) for one in told] for name in names}
    if differ := {name: v for name, v in values.items() if v.count(v[0]) < len(told)}:
        raise InputError(
            "The processes of this fit were given different data; numbers and checksums are "
            f"{differ}. Give each the whole data in the same order (files of a folder, as listed, "
            "may need sorting), not a share of it: fit shares each batch out."
        )
    return plan


def _checked(plan: "FitPlan", processes: Processes) -> "FitPlan":
    """A plan, after a check that several processes can follow it."""
    recipe, n_images = plan.options.recipe, len(plan.data.training)
    if recipe.diffusion.process == "drift":
        raise InputError(
            "distributed=True does not work with DiffMIC (v1), whose process is 'drift': its loss "
            "compares all images of a batch with one another. Fit it in one process, or use "
            "another recipe."
        )
    if n_images < processes.count:
        raise InputError(
            f"There are {n_images} training images for {processes.count} processes; each needs at "
            "least one. Start fewer processes."
        )
    return plan


def _data_of(plan: "FitPlan") -> dict[str, Any]:
    """Classes, and what is told of the images of both parts: numbers, labels, a few pixels."""
    data = plan.data
    parts = {"training": data.training, "validation": data.validation}
    found: dict[str, Any] = {"classes": data.encoding.classes.tolist()}
    for part, images in parts.items():
        told = {"number of images": 0} if images is None else data_told(images, plan.options)
        found |= {f"{part}: {name}": value for name, value in told.items()}
    return found
