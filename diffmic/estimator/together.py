"""Preparation of a fit by several processes, which end in the same plan or in the same error."""

import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..data import TrainingData
from ..errors import InputError
from ..random import draw_seed
from ..training.distributed import Processes, joined

if TYPE_CHECKING:
    from .preparation import FitPlan


def prepared_together(
    parameters: Mapping[str, Any], prepare: Callable[[dict[str, Any], Processes], "FitPlan"]
) -> "FitPlan":
    """Plan of a fit, which several processes make alike if ``distributed`` is set.

    Parameters
    ----------
    parameters : mapping
        Constructor parameters of the estimator.
    prepare : callable
        Function from those for this process, and the processes of the fit, to the plan.

    Raises
    ------
    InputError
        As ``prepare``, in this process or in another; or the processes have different data.
    """
    p = dict(parameters)
    processes = joined(p["distributed"], p["device"])
    if processes.count == 1:
        return prepare(p, processes)
    p["random_state"] = processes.from_main(lambda: draw_seed(parameters["random_state"]))
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
    digests = processes.together(lambda: _digest(plan.data))
    if len(set(digests)) > 1:
        raise InputError(
            "The processes of this fit were given different data: numbers of images (training, "
            f"validation) and digests of labels and weights are {digests}. Give each the whole "
            "data in the same order, not a share of it: fit shares each batch out."
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


def _digest(data: TrainingData) -> tuple[int, int, str]:
    """Numbers of images of both parts, and a digest of their labels and weights."""
    parts = [part for part in (data.training, data.validation) if part is not None]
    found = hashlib.sha256(repr(data.encoding.classes.tolist()).encode())
    for part in parts:
        for tensor in (part.targets, part.weights):
            found.update(tensor.contiguous().numpy().tobytes())
    sizes = [len(part) for part in parts] + [0]
    return sizes[0], sizes[1], found.hexdigest()[:8]
