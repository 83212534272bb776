"""Stage one: the prior learns on augmented images."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from ..model import DiffMICNetwork
from .loop import History, train
from .objectives import PriorObjective
from .options import Part, TrainingOptions, learning_rate_schedule, pixels
from .precision import round_to_half

if TYPE_CHECKING:
    from accelerate import Accelerator


def train_prior(
    network: DiffMICNetwork,
    training: Part,
    options: TrainingOptions,
    *,
    accelerator: "Accelerator",
    evaluate: Callable[[], dict[str, float]] | None,
    history: History,
) -> None:
    """Train ``network.prior``; it ends in its best state.

    Raises
    ------
    TrainingDivergedError
        The loss is not finite; the prior holds the last good state.
    """
    train_on_images(
        PriorObjective(network, options.recipe),
        network.prior,
        training,
        options,
        accelerator=accelerator,
        evaluate=evaluate,
        stage="prior",
        history=history,
    )
    if options.recipe.half_weights:
        round_to_half(network.prior)


def train_on_images(
    objective: nn.Module,
    learner: nn.Module,
    training: Part,
    options: TrainingOptions,
    *,
    accelerator: "Accelerator",
    evaluate: Callable[[], dict[str, float]] | None,
    stage: str,
    history: History,
) -> None:
    """Train any classifier with a backbone; it ends in its best state.

    Parameters
    ----------
    objective : nn.Module
        ``objective(images, targets, weights)`` is the loss.
    learner : nn.Module
        What learns; the parameters of its backbones have ``backbone.`` in their names.

    Raises
    ------
    TrainingDivergedError
        The loss is not finite; the learner holds the last good state.
    """
    images = training.prepared(options, augmented=True)
    loader = images.loader(
        options.batch_size,
        shuffle=True,
        # A last batch of one image would leave batch norm without a variance.
        drop_last=len(images) > 1 and len(images) % options.batch_size == 1,
        num_workers=options.num_workers,
        pin_memory=options.device.type == "cuda",
        generator=torch.Generator().manual_seed(options.seed),
    )
    optimizer = AdamW(parameter_groups(learner, options), weight_decay=options.recipe.weight_decay)
    scheduler = learning_rate_schedule(optimizer, options.recipe, options.max_epochs * len(loader))
    prepared, optimizer, loader = accelerator.prepare(objective, optimizer, loader)

    def batches(epoch: int) -> Iterator[tuple[Tensor, ...]]:
        images.epoch = epoch
        for batch in loader:
            labels = training.labels(batch["index"], options.device)
            yield pixels(batch["image"], options.device), *labels

    train(
        prepared,
        batches,
        learner=learner,
        evaluate=evaluate,
        accelerator=accelerator,
        optimizer=optimizer,
        scheduler=scheduler,
        max_epochs=options.max_epochs,
        patience=options.patience,
        stage=stage,
        history=history,
        verbose=options.verbose,
    )


def parameter_groups(
    learner: nn.Module, options: TrainingOptions
) -> list[dict[str, list[nn.Parameter] | float]]:
    """Backbones and heads, each with its own learning rate."""
    recipe, rate = options.recipe, options.learning_rate
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in learner.named_parameters():
        groups["backbone." in name].append(parameter)
    factor = recipe.pretrained_factor if options.pretrained else 1.0
    return [
        {"params": groups[True], "lr": rate * factor},
        {"params": groups[False], "lr": rate * recipe.head_factor},
    ]
