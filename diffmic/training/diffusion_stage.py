"""Stage two: the denoiser learns, on conditions cached from the frozen prior."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import WeightedRandomSampler

from ..inference.predict import encode_images
from ..model import Conditions, DiffMICNetwork
from .cache import ConditionCache, drawing_chances, room_for
from .loop import History, train
from .objectives import DenoiserObjective
from .options import Part, TrainingOptions, learning_rate_schedule, pixels
from .precision import round_to_half
from .recipe import Recipe

if TYPE_CHECKING:
    from accelerate import Accelerator

# Of few images more passes over their cached views an epoch teach nothing new: docs/accuracy.md.
MOST_PASSES = 4
FEWEST_STEPS = 20  # an epoch, where the recipe has as many

Batches = Callable[[int], Iterable[tuple[Any, ...]]]


def train_denoiser(
    network: DiffMICNetwork,
    training: Part,
    options: TrainingOptions,
    *,
    accelerator: "Accelerator",
    evaluate: Callable[[DiffMICNetwork], dict[str, float]] | None,
    history: History,
    cache: ConditionCache | None = None,
) -> None:
    """Train context and denoiser, and encoders that the prior does not share.

    Parameters
    ----------
    cache : ConditionCache or None
        Conditions of the training images, where they are at hand; None: they are encoded here.

    Raises
    ------
    TrainingDivergedError
        The loss is not finite; the network holds the last good state.
    """
    recipe = options.recipe
    own_encoders = [m for m in (network.image_encoder, network.region_encoder) if m is not None]
    objective = DenoiserObjective(network, recipe)
    if recipe.cached and not own_encoders:
        cache = cache or build_cache(network, training, options)
        objective.feature_scales = cache.feature_scales()
        n_batches = cached_steps(len(cache.targets), len(cache.conditions), recipe)
        batches = _cached_batches(cache, network, recipe, n_batches)
    else:
        batches, n_batches = _encoded_batches(network, training, options)
    total_steps = options.max_epochs * n_batches
    learner = nn.ModuleList([network.context, network.denoiser, *own_encoders])
    optimizer = accelerator.prepare(
        AdamW(
            learner.parameters(),
            lr=recipe.denoiser_learning_rate,
            weight_decay=recipe.denoiser_weight_decay,
            fused=True,  # many small tensors
        )
    )
    averaged = moving_average(learner, recipe.ema, total_steps)
    kept = learner if averaged is None else cast(nn.ModuleList, averaged.module)
    network.prior.requires_grad_(False)
    try:
        train(
            objective,
            batches,
            learner=kept,
            evaluate=None if evaluate is None else lambda: evaluate(_with_parts(network, kept)),
            accelerator=accelerator,
            optimizer=optimizer,
            scheduler=learning_rate_schedule(optimizer.optimizer, recipe, total_steps),
            max_epochs=options.max_epochs,
            # An average over epochs is its own best state: a choice among them by the likelihood
            # of few held-out images takes an early one, and rare classes pay for it.
            patience=options.patience if averaged is None else None,
            stage="diffusion",
            history=history,
            verbose=options.verbose,
            after_step=None if averaged is None else lambda: averaged.update_parameters(learner),
        )
    finally:
        network.prior.requires_grad_(True)
        learner.load_state_dict(kept.state_dict())
    if recipe.half_weights:
        round_to_half(learner)


def build_cache(
    network: DiffMICNetwork, training: Part, options: TrainingOptions
) -> ConditionCache:
    """Encode each training image as it is and in augmented views, once."""
    n_views = 1 if options.augment is None else 1 + options.recipe.n_views
    kept: Conditions | None = None
    row = 0
    for view in range(n_views):
        images = training.prepared(options, augmented=view > 0)
        images.epoch = options.max_epochs + view  # other draws than those of stage one
        encoded = encode_images(
            network,
            images,
            batch_size=options.batch_size,
            num_workers=options.num_workers,
            device=options.device,
            progress=f"encoding view {view + 1} of {n_views}" if options.verbose else None,
        )
        for conditions, _ in encoded:
            conditions = conditions.without_pictures()
            kept = kept or room_for(n_views * len(training), like=conditions)
            rows = kept[slice(row, row + len(conditions))]
            for name, tensor in vars(conditions).items():
                getattr(rows, name).copy_(tensor)
            row += len(conditions)
    assert kept is not None  # there are training images
    return ConditionCache(
        kept, training.targets.to(options.device), training.weights.to(options.device)
    )


def moving_average(
    learner: nn.Module, horizon: float | None, total_steps: int
) -> AveragedModel | None:
    """Exponential moving average of weights and buffers over a share of all steps."""
    if horizon is None:
        return None
    decay = 1 - 1 / max(1.0, horizon * total_steps)
    average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(learner, multi_avg_fn=average, use_buffers=True)


def cached_steps(n_images: int, n_rows: int, recipe: Recipe) -> int:
    """Steps an epoch: the recipe's, but no more than :data:`MOST_PASSES` over the cache take.

    Parameters
    ----------
    n_images, n_rows : int
        In the cache: images, and views of them.
    recipe : Recipe
    """
    passes = math.ceil(MOST_PASSES * n_rows / cached_batch_size(n_images, recipe))
    return min(recipe.steps_per_epoch, max(FEWEST_STEPS, passes))


def cached_batch_size(n_images: int, recipe: Recipe) -> int:
    """Images a step: the recipe's, as far as there are as many."""
    return max(2, min(recipe.batch_size, n_images))


def _cached_batches(
    cache: ConditionCache, network: DiffMICNetwork, recipe: Recipe, n_batches: int
) -> Batches:
    chances = drawing_chances(cache.targets, recipe.balance, multilabel=network.multilabel)
    batch_size = cached_batch_size(len(cache.targets), recipe)
    return lambda epoch: cache.batches(n_batches, batch_size, chances)


def _encoded_batches(
    network: DiffMICNetwork, training: Part, options: TrainingOptions
) -> tuple[Batches, int]:
    """Batches that are encoded anew, so that encoders other than the prior's learn, too."""
    images = training.prepared(options, augmented=True)
    chances = drawing_chances(
        training.targets, options.recipe.balance, multilabel=network.multilabel
    )
    loader = images.loader(
        min(options.batch_size, options.recipe.batch_size, len(images)),
        sampler=WeightedRandomSampler(
            chances.tolist(), len(images), generator=torch.Generator().manual_seed(options.seed)
        ),
        drop_last=True,
        num_workers=options.num_workers,
        pin_memory=options.device.type == "cuda",
    )

    def batches(epoch: int) -> Iterator[tuple[Conditions, Tensor, Tensor]]:
        images.epoch = options.max_epochs + epoch
        for batch in loader:
            conditions = network.encode(pixels(batch["image"], options.device))
            yield conditions, *training.labels(batch["index"], options.device)

    return batches, len(loader)


def _with_parts(network: DiffMICNetwork, parts: nn.ModuleList) -> DiffMICNetwork:
    """The same network with another context, denoiser and encoders."""
    context, denoiser, *encoders = parts
    encoders = list(encoders)
    return DiffMICNetwork(
        network.prior,
        encoders.pop(0) if network.image_encoder is not None else None,  # type: ignore[arg-type]
        encoders.pop(0) if network.region_encoder is not None else None,  # type: ignore[arg-type]
        context,  # type: ignore[arg-type]
        denoiser,  # type: ignore[arg-type]
        network.schedule,
        settings=network.settings,
        multilabel=network.multilabel,
    )
