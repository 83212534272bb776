"""A whole fit: both stages, then the calibration of each."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..errors import TrainingDivergedError
from ..inference.calibration import STAGES, Calibration, Stage
from ..model import DiffMICNetwork
from ..random import seeded_rng
from .diffusion_stage import train_denoiser
from .evaluation import Evaluation
from .loop import History
from .options import Part, TrainingOptions
from .precision import accelerator_for, to_device, training_precision
from .prior_stage import train_prior


@dataclass
class FitResult:
    """What a fit leaves behind, beside the trained network.

    Attributes
    ----------
    calibrations : dict
        The mapping of each stage; the identity where there was no validation part.
    thresholds : dict
        Multi-label thresholds of each stage; empty for exclusive classes.
    validation_scores : dict
        All measures of each stage on the validation part; empty where there is none.
    history : list of dict
        A row per epoch of each stage.
    stopped : TrainingDivergedError, KeyboardInterrupt or None
        Why training stopped early; the network holds the last good state.
    diffusion_trained : bool
        Whether stage two came to an epoch's end, so that its scores mean something.
    """

    calibrations: dict[Stage, Calibration]
    thresholds: dict[Stage, NDArray[np.float64]] = field(default_factory=dict)
    validation_scores: dict[Stage, dict[str, float]] = field(default_factory=dict)
    history: History = field(default_factory=list)
    stopped: TrainingDivergedError | KeyboardInterrupt | None = None
    diffusion_trained: bool = False


def fit_network(
    network: DiffMICNetwork,
    training: Part,
    validation: Part | None,
    options: TrainingOptions,
    *,
    diffusion_trained: bool = False,
) -> FitResult:
    """Train both stages of a network and calibrate each; chance comes from ``options.seed``.

    Parameters
    ----------
    diffusion_trained : bool
        Whether the network's denoiser has learnt something before.
    """
    result = FitResult({stage: Calibration(stage, network.multilabel) for stage in STAGES})
    if network.multilabel:
        result.thresholds = {stage: np.full(network.num_classes, 0.5) for stage in STAGES}
    evaluation = None if validation is None else Evaluation(validation, options)
    to_device(network, options.device)
    precision = training_precision(options.precision, options.device, network.prior)
    with seeded_rng(options.seed, options.device):
        try:
            with accelerator_for(options.device, precision) as accelerator:
                train_prior(
                    network,
                    training,
                    options,
                    accelerator=accelerator,
                    evaluate=None if evaluation is None else lambda: evaluation.prior(network),
                    history=result.history,
                )
            with accelerator_for(options.device, "no") as accelerator:
                train_denoiser(
                    network,
                    training,
                    options,
                    accelerator=accelerator,
                    evaluate=None if evaluation is None else evaluation.diffusion,
                    history=result.history,
                )
        except (TrainingDivergedError, KeyboardInterrupt) as reason:
            result.stopped = reason
        network.eval()
        result.diffusion_trained = diffusion_trained or any(
            row["stage"] == "diffusion" for row in result.history
        )
        if result.stopped is not None and not result.history:
            return result
        if evaluation is not None:
            stages: tuple[Stage, ...] = STAGES if result.diffusion_trained else ("prior",)
            for stage, verdict in evaluation.verdicts(network, stages).items():
                result.calibrations[stage] = verdict.calibration
                result.validation_scores[stage] = verdict.measures
                if verdict.thresholds is not None:
                    result.thresholds[stage] = verdict.thresholds
    return result
