"""Complete fit: both stages, then the calibration of each."""

import traceback
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from ..data import LabelledImages
from ..inference import STAGES, Alone, Calibration, Stage
from ..model import DiffMICNetwork
from ..random import LocalRNG, derived_seed
from .cache import drawing_ratio
from .diffusion_stage import cached_batch_size, cached_steps, n_cached_views, train_denoiser
from .evaluation import Evaluation, Verdict
from .joint_stage import train_jointly
from .options import TrainingOptions
from .precision import MixedPrecision, round_to_half, to_device, training_precision
from .prior_stage import train_prior
from .progress import Phase
from .state import History

# Phases that have not been measured yet are compared by this, in passes of an image through the
# encoders. docs/speed.md: on a CPU 6 for an image in stage one, 0.02 for a cached image in stage
# two, and 0.5 for sampling 8 draws in 10 steps. GPUs learn in about 3.
LEARNING = 4.0
CACHED = 0.02
DENOISING = 0.006  # one step of one draw


@dataclass
class FitResult:
    """Result of a fit in addition to the trained network.

    Attributes
    ----------
    verdict : Verdict
        Calibrations, thresholds and metrics of the trained stages. Without a validation part, the
        calibrations are the identity and there are no metrics.
    drawing_ratio : ndarray of shape (C,) or None
        As in :class:`~diffmic.inference.FittedModel`.
    history : list of dict
        One row per epoch of each stage.
    stopped : BaseException or None
        Exception that ended the fit early; the network is in its last good state.
    late : str
        What a time limit ended early, as a sentence; empty: nothing.
    """

    verdict: Verdict = field(default_factory=Verdict)
    drawing_ratio: NDArray[np.float64] | None = None
    history: History = field(default_factory=list)
    stopped: BaseException | None = None
    late: str = ""


@dataclass(frozen=True)
class Learnt:
    """A denoiser that was trained in an earlier fit, with that fit's ``drawing_ratio``."""

    drawing_ratio: NDArray[np.float64] | None = None


def fit_network(
    network: DiffMICNetwork,
    training: LabelledImages,
    validation: LabelledImages | None,
    options: TrainingOptions,
    *,
    learnt: Learnt | None = None,
) -> FitResult:
    """Train both stages of a network and calibrate each.

    An exception that ends training early (an error, an interruption, lack of memory) is stored in
    the result; the caller raises it after storing the trained model.

    Parameters
    ----------
    network : DiffMICNetwork
        Network to train, in place.
    training, validation : LabelledImages
        Parts of the data; without a validation part, nothing is calibrated.
    options : TrainingOptions
    learnt : Learnt or None
        State of the denoiser if it was trained in an earlier fit.
    """
    result = FitResult()
    try:
        _fit(network, training, validation, options, learnt, result)
    finally:
        if options.checkpoints is not None:
            options.checkpoints.end()
    result.late = options.watch.clock.told
    result.stopped = options.watch.fit_ends(result.verdict.scores, result.stopped)
    return result


def _fit(
    network: DiffMICNetwork,
    training: LabelledImages,
    validation: LabelledImages | None,
    options: TrainingOptions,
    learnt: Learnt | None,
    result: FitResult,
) -> None:
    """Train and calibrate; the result is changed step by step, so that nothing is lost."""
    processes = options.processes
    ratio = drawing_ratio(training.targets, options.recipe.balance, network.task)
    n_validation = 0 if validation is None else len(validation)
    try:
        if options.checkpoints is not None:
            options.checkpoints.begin(network, result.history)
        processes.each(
            lambda: _start(options, result.history, phases(options, len(training), n_validation))
        )
        to_device(network, options.device)
        if processes.count > 1:
            network.load_state_dict(processes.alike(network.state_dict()))
        evaluation = None if validation is None else Evaluation(validation, options, ratio)
        rng = LocalRNG(derived_seed(options.seed, 1))
        _train(network, training, options, evaluation, result.history, rng)
    except BaseException as reason:
        result.stopped = reason
        processes.ended_by(reason)
        if isinstance(reason, (MemoryError, torch.OutOfMemoryError)):
            traceback.clear_frames(reason.__traceback__)  # they hold what there was no room for
    network.eval()
    if result.stopped is not None and not result.history:
        return
    stages: tuple[Stage, ...] = STAGES
    if not _has_diffusion(result.history):
        stages = STAGES if learnt is not None else ("prior",)
        known = learnt.drawing_ratio if learnt is not None else None
        ratio = None if known is None else torch.from_numpy(known)
    result.drawing_ratio = None if ratio is None else ratio.numpy()
    result.verdict.calibrations = {stage: Calibration() for stage in stages}
    if network.task.has_thresholds:
        usual = network.task.usual_thresholds(network.num_classes)
        result.verdict.thresholds = {stage: usual.copy() for stage in stages}
    if "diffusion" in stages:
        result.verdict.alone = Alone(Calibration(), result.verdict.thresholds.get("diffusion"))
    if result.stopped is not None and processes.count > 1:
        return  # the others may not be there any more
    if validation is not None and len(validation) > 1:  # one image calibrates nothing
        try:
            options.watch.phase_starts("calibration")
            result.verdict = Evaluation(validation, options, ratio).verdict(network, stages)
        except BaseException as reason:
            result.stopped = result.stopped or reason
            processes.ended_by(reason)


def _has_diffusion(history: History) -> bool:
    return any(row["stage"] == "diffusion" for row in history)


def _start(options: TrainingOptions, history: History, plan: list[Phase]) -> None:
    options.watch.fit_starts(history, plan)
    if options.watch.ended and not history:
        raise options.watch.ended


def _train(
    network: DiffMICNetwork,
    training: LabelledImages,
    options: TrainingOptions,
    evaluation: Evaluation | None,
    history: History,
    rng: LocalRNG,
) -> None:
    """Both stages, one after the other; without those that a checkpoint has complete."""
    checkpoints, processes = options.checkpoints, options.processes
    precision = training_precision(options.precision, options.device, network.prior)
    precision = replace(precision, name=processes.from_main(lambda: precision.name))

    def has_ended() -> bool:
        return processes.from_main(lambda: options.watch.ended is not None)

    if has_ended():  # before it went on: what the checkpoint has ends as the stages do
        if options.recipe.half_weights:
            round_to_half(network if _has_diffusion(history) else network.prior)
        return
    done: tuple[str, ...] = () if checkpoints is None else checkpoints.done
    if "prior" not in done:
        train_prior(
            network,
            training,
            options,
            precision=precision,
            rng=rng,
            evaluate=None if evaluation is None else lambda: evaluation.prior(network),
            history=history,
        )
    if has_ended():
        return
    if "diffusion" not in done:
        train_diffusion = train_jointly if options.recipe.joint else train_denoiser
        train_diffusion(
            network,
            training,
            options,
            # With cached conditions this stage is too cheap to gain from mixed precision.
            precision=MixedPrecision(options.device) if options.recipe.cached else precision,
            rng=rng,
            evaluate=None if evaluation is None else evaluation.diffusion,
            history=history,
        )
        ended = options.watch.ended or "diffusion" in options.watch.clock.cut
        if checkpoints is not None and not ended:
            checkpoints.write_trained()


def phases(options: TrainingOptions, n_training: int, n_validation: int) -> list[Phase]:
    """Phases of a fit on so many images in which no stage stops early."""
    recipe, sampling = options.recipe, options.sampling
    epochs = recipe.denoiser_epochs or options.max_epochs
    sampled = n_validation * (DENOISING * sampling.num_steps * sampling.n_draws)
    found = [Phase("prior", options.max_epochs, LEARNING * n_training, n_validation)]
    if recipe.cached:
        n_views = n_cached_views(options)
        found.append(Phase("encoding", n_views, n_training))
        n_steps = cached_steps(n_training, n_training * n_views, recipe)
        n_rows = n_steps * cached_batch_size(n_training, recipe)
        found.append(Phase("diffusion", epochs, CACHED * n_rows, sampled))
    else:
        found.append(Phase("diffusion", epochs, LEARNING * n_training, n_validation + sampled))
    if n_validation > 1:
        found.append(Phase("calibration", 1, sampling.n_views * n_validation + sampled))
    return found
