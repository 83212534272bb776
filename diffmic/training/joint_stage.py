"""Stage two of DiffMIC (v1): the denoiser and the prior, trained together on images."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import RandomSampler

from ..data import LabelledImages
from ..model import DiffMICNetwork
from ..random import LocalRNG
from .batches import ImageBatches, learnt_from
from .diffusion_stage import moving_average
from .loop import train
from .objectives import PriorObjective, denoiser_objective
from .options import TrainingOptions, learning_rate_schedule
from .precision import MixedPrecision, round_to_half
from .prior_stage import parameter_groups
from .recipe import Recipe
from .state import History, LoopState


class JointObjective(nn.Module):
    """Objective of joint training: the loss of the prior and that of the denoiser.

    The prior is trained by its cross-entropy alone: the denoiser's loss sees its logits as
    constants, for otherwise the prior would learn to be a mean that makes the noise easy to predict
    rather than to classify. An image encoder that both share is trained by both.
    """

    def __init__(self, network: DiffMICNetwork, recipe: Recipe) -> None:
        super().__init__()
        self.network = network
        self.prior = PriorObjective(network, recipe)
        self.denoiser = denoiser_objective(network, recipe)

    def train(self, mode: bool = True) -> Self:
        """Set training mode, of the prior, too, unless it has nothing to learn."""
        super().train(mode)
        prior = self.network.prior
        prior.train(mode and any(weight.requires_grad for weight in prior.parameters()))
        return self

    def forward(
        self,
        images: Tensor,
        targets: Tensor,
        weights: Tensor,
        originals: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Loss of images (B, 3, H, W) in 0–1 with targets (B, C) and weights (B,)."""
        conditions = self.network.encode(images, originals)
        with torch.autocast(images.device.type, enabled=False):  # half precision is for encoders
            conditions = conditions.map(Tensor.float)
            given = replace(
                conditions,
                global_logits=conditions.global_logits.detach(),
                local_logits=conditions.local_logits.detach(),
            )
            of_prior = self.prior.loss(conditions, targets, weights)
            return of_prior + self.denoiser.loss(given, targets, weights)


class DenoiserAverage(AveragedModel):
    """Moving average of a network, whose prior is not averaged but taken as it is."""

    module: DiffMICNetwork

    def update_parameters(self, model: nn.Module) -> None:
        """Add a state of the network to the average."""
        super().update_parameters(model)
        assert isinstance(model, DiffMICNetwork)
        self.module.prior.load_state_dict(model.prior.state_dict())


def train_jointly(
    network: DiffMICNetwork,
    training: LabelledImages,
    options: TrainingOptions,
    *,
    precision: MixedPrecision,
    rng: LocalRNG,
    evaluate: Callable[[DiffMICNetwork], dict[str, float]] | None,
    history: History,
) -> None:
    """Train the whole network, whose prior has been trained before; it ends in its best state.

    Parameters and errors are those of :func:`~.diffusion_stage.train_denoiser`. Soft labels are
    learnt by both parts.
    """
    recipe, training = options.recipe, training.softened()
    images = options.prepared(training, augmented=True)
    batch_size = min(options.batch_size, recipe.batch_size)

    batches = ImageBatches(
        images,
        RandomSampler(images, generator=rng.generator()),
        learnt_from(training, options),
        options,
        rng,
        batch_size=batch_size,
        drop_last=len(images) > 1 and len(images) % batch_size == 1,  # as in stage one
        first=options.max_epochs,  # augmentations differ from those of stage one
    )
    max_epochs = recipe.denoiser_epochs or options.max_epochs
    total_steps = max_epochs * len(batches)
    optimizer = AdamW(joint_groups(network, options))
    state = LoopState(
        "diffusion",
        network,
        optimizer,
        learning_rate_schedule(optimizer, recipe, total_steps),
        rng,
        precision.scaler(),
        moving_average(
            network, recipe.ema, total_steps, decay=recipe.ema_decay, kind=DenoiserAverage
        ),
        history=history,
        processes=options.processes,
    )

    try:
        with precision.loop():
            train(
                state,
                JointObjective(network, recipe),
                batches,
                evaluate=None if evaluate is None else lambda: evaluate(_kept(state)),
                precision=precision,
                max_epochs=max_epochs,
                patience=recipe.patience,
                n_steps=len(batches),
                watch=options.watch,
                checkpoints=options.checkpoints,
            )
    finally:
        if recipe.half_weights and state.epoch:
            round_to_half(network)


def joint_groups(network: DiffMICNetwork, options: TrainingOptions) -> list[dict[str, Any]]:
    """Parameter groups: those of stage one for the prior, and the denoiser with its encoders."""
    recipe = options.recipe
    of_prior = {id(parameter) for parameter in network.prior.parameters()}
    others = {
        "params": [w for w in network.parameters() if id(w) not in of_prior and w.requires_grad],
        "lr": recipe.denoiser_learning_rate,
        "weight_decay": recipe.denoiser_weight_decay,
    }
    groups = parameter_groups(network.prior, options)
    return [*(group | {"weight_decay": recipe.weight_decay} for group in groups), others]


def _kept(state: LoopState) -> DiffMICNetwork:
    network = state.kept
    assert isinstance(network, DiffMICNetwork)
    return network
