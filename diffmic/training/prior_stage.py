"""Stage one: training of the prior on augmented images."""

from collections.abc import Callable

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.utils.data import RandomSampler

from ..data import LabelledImages
from ..model import DiffMICNetwork
from ..random import LocalRNG
from .batches import ImageBatches, learnt_from
from .loop import train
from .objectives import PriorObjective
from .options import TrainingOptions, learning_rate_schedule
from .precision import MixedPrecision, round_to_half
from .state import History, LoopState


def train_prior(
    network: DiffMICNetwork,
    training: LabelledImages,
    options: TrainingOptions,
    *,
    precision: MixedPrecision,
    rng: LocalRNG,
    evaluate: Callable[[], dict[str, float]] | None,
    history: History,
) -> None:
    """Train the prior of a network, if it has anything to learn; it ends in its best state.

    Errors are those of :func:`~.loop.train`.
    """
    if not any(parameter.requires_grad for parameter in network.prior.parameters()):
        return
    try:
        train_on_images(
            PriorObjective(network, options.recipe),
            network.prior,
            training.softened(),
            options,
            precision=precision,
            rng=rng,
            evaluate=evaluate,
            stage="prior",
            history=history,
        )
    finally:
        if options.recipe.half_weights:
            round_to_half(network.prior)


def train_on_images(
    objective: nn.Module,
    learner: nn.Module,
    training: LabelledImages,
    options: TrainingOptions,
    *,
    precision: MixedPrecision,
    rng: LocalRNG,
    evaluate: Callable[[], dict[str, float]] | None,
    stage: str,
    history: History,
    optimizer: Optimizer | None = None,
) -> None:
    """Train a classifier with a backbone on images; it ends in its best state.

    Parameters
    ----------
    objective : nn.Module
        Training objective: ``objective(images, targets, weights)`` is the loss; for a zoom, it is
        given the original images, too.
    learner : nn.Module
        Module to train; the parameters of its backbones have ``backbone.`` in their names.
    optimizer : Optimizer or None
        Optimizer of the learner; None: AdamW with the rates of the options.

    Raises
    ------
    TrainingDivergedError
        The loss is not finite; the learner is in its last good state.
    """
    images = options.prepared(training, augmented=True)

    batches = ImageBatches(
        images,
        RandomSampler(images, generator=rng.generator()),
        learnt_from(training, options),
        options,
        rng,
        batch_size=options.batch_size,
        # Batch norm cannot compute a variance from a last batch of one image.
        drop_last=len(images) > 1 and len(images) % options.batch_size == 1,
    )
    if optimizer is None:
        groups = parameter_groups(learner, options)
        optimizer = AdamW(groups, weight_decay=options.recipe.weight_decay)
    total_steps = options.max_epochs * len(batches)
    state = LoopState(
        stage,
        learner,
        optimizer,
        learning_rate_schedule(optimizer, options.recipe, total_steps),
        rng,
        precision.scaler(),
        history=history,
        processes=options.processes,
    )

    with precision.loop():
        train(
            state,
            objective,
            batches,
            evaluate=evaluate,
            precision=precision,
            max_epochs=options.max_epochs,
            patience=options.recipe.patience,
            n_steps=len(batches),
            watch=options.watch,
            checkpoints=options.checkpoints,
        )


def parameter_groups(
    learner: nn.Module, options: TrainingOptions
) -> list[dict[str, list[nn.Parameter] | float]]:
    """Parameter groups of backbones and of heads, with their learning rates."""
    recipe, rate = options.recipe, options.learning_rate
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in learner.named_parameters():
        if parameter.requires_grad:
            groups["backbone." in name].append(parameter)
    factor = recipe.pretrained_factor if options.pretrained else 1.0
    return [
        {"params": groups[True], "lr": rate * factor},
        {"params": groups[False], "lr": rate * recipe.head_factor},
    ]
