"""Stage one: the prior learns on augmented images."""

from collections.abc import Callable, Iterator

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import AdamW

from ..model import DiffMICNetwork
from .loop import History, train
from .objectives import PriorObjective
from .options import Part, TrainingOptions, learning_rate_schedule, pixels


def train_prior(
    network: DiffMICNetwork,
    training: Part,
    options: TrainingOptions,
    *,
    accelerator: Accelerator,
    evaluate: Callable[[], dict[str, float]] | None,
    history: History,
) -> None:
    """Train ``network.prior``; it ends in its best state.

    Raises
    ------
    TrainingDivergedError
        The loss is not finite; the prior holds the last good state.
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
    optimizer = AdamW(parameter_groups(network, options), weight_decay=options.recipe.weight_decay)
    scheduler = learning_rate_schedule(optimizer, options.recipe, options.max_epochs * len(loader))
    objective = PriorObjective(network, options.recipe)
    prepared, optimizer, loader = accelerator.prepare(objective, optimizer, loader)

    def batches(epoch: int) -> Iterator[tuple[Tensor, ...]]:
        images.epoch = epoch
        for batch in loader:
            labels = training.labels(batch["index"], options.device)
            yield pixels(batch["image"], options.device), *labels

    train(
        prepared,
        batches,
        learner=network.prior,
        evaluate=evaluate,
        accelerator=accelerator,
        optimizer=optimizer,
        scheduler=scheduler,
        max_epochs=options.max_epochs,
        patience=options.patience,
        stage="prior",
        history=history,
        verbose=options.verbose,
    )


def parameter_groups(
    network: DiffMICNetwork, options: TrainingOptions
) -> list[dict[str, list[nn.Parameter] | float]]:
    """Backbones and heads, each with its own learning rate."""
    recipe, rate = options.recipe, options.learning_rate
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in network.prior.named_parameters():
        groups["backbone." in name].append(parameter)
    factor = recipe.pretrained_factor if options.pretrained else 1.0
    return [
        {"params": groups[True], "lr": rate * factor},
        {"params": groups[False], "lr": rate * recipe.head_factor},
    ]
