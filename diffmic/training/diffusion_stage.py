"""Stage two: training of the denoiser on conditions of the frozen prior, usually cached."""

import math
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import RandomSampler, Sampler, WeightedRandomSampler

from ..data import LabelledImages
from ..inference import Engine, encode_images
from ..model import Conditions, DiffMICNetwork
from ..random import LocalRNG
from ..rows import Rows
from .batches import Batch, ImageBatches
from .cache import ConditionCache, drawing_chances, room_for
from .loop import train
from .objectives import denoiser_objective
from .options import TrainingOptions, learning_rate_schedule, originals, pixels
from .precision import MixedPrecision, round_to_half
from .recipe import Recipe
from .state import History, LoopState

# With few images, more passes per epoch over the cached views do not help: docs/accuracy.md.
MOST_PASSES = 4
FEWEST_STEPS = 20  # per epoch, unless the recipe has fewer

Batches = Callable[[int], Iterable[Batch]]


def train_denoiser(
    network: DiffMICNetwork,
    training: LabelledImages,
    options: TrainingOptions,
    *,
    precision: MixedPrecision,
    rng: LocalRNG,
    evaluate: Callable[[DiffMICNetwork], dict[str, float]] | None,
    history: History,
    cache: ConditionCache | None = None,
) -> None:
    """Train context and denoiser, and encoders that are not shared with the prior.

    Parameters
    ----------
    precision : MixedPrecision
        Precision of the encoders that are trained; context and denoiser are trained in float32.
    rng : LocalRNG
        Source of randomness.
    evaluate : callable or None
        Function from a network to its validation metrics.
    history : list of dict
        Gets one row per epoch.
    cache : ConditionCache or None
        Cached conditions of the training images, if available; None: they are encoded here.

    Raises
    ------
    TrainingDivergedError
        The loss is not finite; the network holds the last good state.
    """
    recipe = options.recipe
    own_encoders = [m for m in (network.image_encoder, network.region_encoder) if m is not None]
    objective = denoiser_objective(network, recipe)
    batches: Batches | ImageBatches
    if recipe.cached:
        cache = cache or build_cache(network, training, options)
        objective.feature_scales = cache.feature_scales()
        n_batches = cached_steps(len(cache.targets), cache.n_rows, recipe)
        # From targets on the CPU, since not every device supports float64.
        chances = drawing_chances(training.targets, recipe.balance, network.task)
        batches = _cached_batches(cache, chances, recipe, n_batches, rng)
    else:
        batches = _encoded_batches(network, training, options, precision, rng)
        n_batches = len(batches)
    max_epochs = recipe.denoiser_epochs or options.max_epochs
    total_steps = max_epochs * n_batches
    learner = nn.ModuleList([network.context, network.denoiser, *own_encoders])
    optimizer = AdamW(
        learner.parameters(),
        lr=recipe.denoiser_learning_rate,
        weight_decay=recipe.denoiser_weight_decay,
        fused=True,  # many small tensors
    )
    state = LoopState(
        "diffusion",
        learner,
        optimizer,
        learning_rate_schedule(optimizer, recipe, total_steps),
        rng,
        precision.scaler(),
        moving_average(learner, recipe.ema, total_steps, decay=recipe.ema_decay),
        history=history,
        processes=options.processes,
    )
    learnt = [weight for weight in network.prior.parameters() if weight.requires_grad]
    network.prior.requires_grad_(False)
    try:
        with precision.loop():
            train(
                state,
                objective,
                batches,
                evaluate=None
                if evaluate is None
                else lambda: evaluate(_with_parts(network, state.kept)),
                precision=MixedPrecision(options.device),
                max_epochs=max_epochs,
                # The last moving average is used: choosing an epoch by the likelihood of a few
                # held-out images would favour early epochs, at the expense of rare classes.
                patience=recipe.patience if state.average is None else None,
                n_steps=n_batches,
                watch=options.watch,
                checkpoints=options.checkpoints,
            )
    finally:
        for weight in learnt:  # those of a frozen encoder stay frozen
            weight.requires_grad_(True)
        if recipe.half_weights and state.epoch:
            round_to_half(learner)


def build_cache(
    network: DiffMICNetwork, training: LabelledImages, options: TrainingOptions
) -> ConditionCache:
    """Encode each training image once: the original and its augmented cached views.

    Each of several processes encodes its share of the images.
    """
    return options.processes.each(lambda: _built_cache(network, training, options))


def _built_cache(
    network: DiffMICNetwork, training: LabelledImages, options: TrainingOptions
) -> ConditionCache:
    share = options.processes.share(len(training))
    n_views = n_cached_views(options)
    kept: Conditions | None = None
    row = 0
    network.eval()
    watch = options.watch
    watch.phase_starts("encoding", n_views)
    for view in range(n_views):
        if view and not watch.clock.leaves_another(watch.progress, view, n_views):
            break
        images = options.prepared(training, augmented=view > 0)
        images.epoch = options.max_epochs + view  # augmentations differ from those of stage one
        encoded = encode_images(
            Engine(network),
            images,
            batch_size=options.own_batch_size,
            num_workers=options.num_workers,
            seed=options.seed,
            only=share,
        )
        for conditions, _ in encoded:
            conditions = conditions.without_pictures()
            kept = kept or room_for(n_views * len(share), like=conditions)
            rows = kept[slice(row, row + len(conditions))]
            for name, tensor in vars(conditions).items():
                getattr(rows, name).copy_(tensor)
            row += len(conditions)
            watch.progress.within(0, row / len(share))
    assert kept is not None  # there are training images
    return ConditionCache(
        kept[slice(row)],
        training.targets.to(options.device),
        training.weights.to(options.device),
        options.processes,
    )


def n_cached_views(options: TrainingOptions) -> int:
    """Number of views of each image in the cache."""
    return 1 if options.augment is None else 1 + options.recipe.n_cached_views


def moving_average(
    learner: nn.Module,
    horizon: float | None,
    total_steps: int,
    *,
    decay: float | None = None,
    kind: type[AveragedModel] = AveragedModel,
) -> AveragedModel | None:
    """Exponential moving average of weights and buffers; None: there is none.

    It has a ``horizon``, a fraction of all steps, or else a ``decay``, if one of them is given.
    """
    if horizon is not None:
        decay = 1 - 1 / max(1.0, horizon * total_steps)
    if decay is None:
        return None
    average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return kind(learner, multi_avg_fn=average, use_buffers=True)


def cached_steps(n_images: int, n_rows: int, recipe: Recipe) -> int:
    """Steps per epoch: those of the recipe, limited to :data:`MOST_PASSES` over the cache.

    The limit is at least :data:`FEWEST_STEPS`. Rows are the cached views of all images.
    """
    passes = math.ceil(MOST_PASSES * n_rows / cached_batch_size(n_images, recipe))
    return min(recipe.steps_per_epoch, max(FEWEST_STEPS, passes))


def cached_batch_size(n_images: int, recipe: Recipe) -> int:
    """Mini-batch size: that of the recipe, or the number of images if smaller; at least 2."""
    return max(2, min(recipe.batch_size, n_images))


def _cached_batches(
    cache: ConditionCache, chances: Tensor, recipe: Recipe, n_batches: int, rng: LocalRNG
) -> Batches:
    batch_size = cached_batch_size(len(cache.targets), recipe)
    return lambda epoch: cache.batches(n_batches, batch_size, chances, rng)


def _encoded_batches(
    network: DiffMICNetwork,
    training: LabelledImages,
    options: TrainingOptions,
    precision: MixedPrecision,
    rng: LocalRNG,
) -> ImageBatches:
    """Batches encoded in each epoch, so that encoders not shared with the prior are trained."""
    images = options.prepared(training, augmented=True)
    chances = drawing_chances(training.targets, options.recipe.balance, network.task)
    sampler: Sampler[int]
    if options.recipe.balance:
        sampler = WeightedRandomSampler(chances.tolist(), len(images), generator=rng.generator())
    else:  # each image once in an epoch, as in the paper
        sampler = RandomSampler(images, generator=rng.generator())

    def encoded(batch: dict[str, Any], rows: Rows | None) -> Batch:
        with options.processes.forward(rows, rng), precision.autocast():
            conditions = network.encode(
                pixels(batch["image"], options.device), *originals(batch, options)
            )
        return conditions.map(Tensor.float), *training.labels(batch["index"], options.device)

    return ImageBatches(
        images,
        sampler,
        encoded,
        options,
        rng,
        batch_size=min(options.batch_size, options.recipe.batch_size, len(images)),
        drop_last=True,
        first=options.max_epochs,
    )


def _with_parts(network: DiffMICNetwork, parts: nn.Module) -> DiffMICNetwork:
    """Network with its context, denoiser and own encoders replaced by ``parts``."""
    context, denoiser, *encoders = parts.children()
    return type(network)(
        network.prior,
        encoders.pop(0) if network.image_encoder is not None else None,  # type: ignore[arg-type]
        encoders.pop(0) if network.region_encoder is not None else None,  # type: ignore[arg-type]
        context,
        denoiser,  # type: ignore[arg-type]
        network.process,
        settings=network.settings,
        task=network.task,
    )
