"""Preparation of a fit from the arguments of ``fit``, and the fitted model that results."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..data import LabelledImages, TrainingData, ValueRange, named_augment, read_training_data
from ..data.augmentation import Augment, check_augment
from ..data.labelled import Counts, counts_table, label_counts
from ..data.sources import is_of_a_dataset
from ..errors import InputError, warn_user
from ..hub.parameters import plain_classes
from ..inference import Engine, FitHistory, FitRecord, FittedModel, SamplingOptions
from ..logs import bars_shown, tell
from ..model import (
    Architecture,
    DiffMICNetwork,
    NetworkPlan,
    build_network,
    resolve_architecture,
    resolved,
    same_regions,
)
from ..random import LocalRNG, derived_seed, draw_seed
from ..tasks import Task, class_shares
from ..training import (
    FitResult,
    Learnt,
    Recipe,
    TrainingOptions,
    resolve_device,
    resolve_recipe,
)
from ..training.callbacks import checked_callbacks
from ..training.clock import Clock
from ..training.distributed import Processes
from ..training.own_loss import try_losses
from ..training.watch import Watch
from .class_names import check_names, names_of_fit, same_classes
from .parameters import check_n_views, check_parameters, keys_of
from .planning import go_on, image_size_of, longest_side_of, with_regions_of, with_zoom
from .resuming import found_checkpoint, seed_of, with_checkpoints
from .together import prepared_together

_TRIALS = 3  # readings of one item of a Dataset before a fit
PACKAGES = ("diffmic", "torch", "timm")


@dataclass(frozen=True)
class FitPlan:
    """Data, options and network of a fit, all validated.

    Attributes
    ----------
    data : TrainingData
    options : TrainingOptions
    plan : NetworkPlan
        Plan of the network, with every "auto" resolved.
    network : DiffMICNetwork
        Network to be trained.
    learnt : Learnt or None
        State of the denoiser after an earlier fit (warm start); None: it has not been trained.
    versions : dict of str to str
        Versions of the packages used.
    class_names, data_names : tuple of str or None
        As in :class:`~diffmic.inference.FittedModel`.
    """

    data: TrainingData
    options: TrainingOptions
    plan: NetworkPlan
    network: DiffMICNetwork
    learnt: Learnt | None
    versions: dict[str, str]
    class_names: tuple[str, ...] | None
    data_names: tuple[str, ...] | None


def prepare_fit(
    parameters: Mapping[str, Any],
    X: Any,
    y: Any,
    earlier: FittedModel | None,
    *,
    resume: bool = False,
    **given: Any,
) -> FitPlan:
    """Read and validate the data, and build the network.

    Parameters
    ----------
    parameters : mapping
        Constructor parameters of the estimator.
    X, y, resume, **given : as in ``DiffMICClassifier.fit``
    earlier : FittedModel or None
        Model that the estimator holds; a warm start continues from it.
    """
    return prepared_together(
        parameters,
        lambda p, processes: _prepared(
            p, X, y, earlier, processes, resume=resume, seeded=parameters, **given
        ),
    )


def _prepared(
    p: dict[str, Any],
    X: Any,
    y: Any,
    earlier: FittedModel | None,
    processes: Processes,
    *,
    resume: bool,
    seeded: Mapping[str, Any],
    **given: Any,
) -> FitPlan:
    clock = Clock(p["time_limit"])
    if clock.limit is not None and processes.count > 1:
        raise InputError("time_limit is for a fit by one process; leave it out with distributed.")
    check_parameters(p)
    if p["batch_size"] < 2 and not isinstance(X, DataLoader):  # which has a batch size of its own
        raise InputError(
            "batch_size is 1; batch norm needs at least 2 images to learn from. A fitted model "
            "predicts with any: set_params(batch_size=1)."
        )
    check_n_views(p["n_views"], p["augment"])
    recipe = _recipe(p)
    device = resolve_device(p["device"])
    saved = found_checkpoint(p, resume, writes=processes.is_main)
    # An interrupted fit leaves a model, from which it did not start.
    warm = p["warm_start"] and (saved is None or saved.told.get("warm_start") is not False)
    learnt = earlier if warm else None
    seed = seed_of(seeded, draw_seed(p["random_state"]), saved)
    data = read_training_data(
        X,
        y,
        validation_fraction=p["validation_fraction"],
        class_weight=p["class_weight"],
        task=p["task"],
        uncertain=p["uncertain"],
        class_names=p["class_names"],
        inherited=learnt is not None and learnt.task.name == p["task"],
        rng=np.random.RandomState(seed),
        keys=keys_of(p),
        num_workers=p["num_workers"],
        verbose=bars_shown(p["verbose"]),
        value_range=ValueRange.of(p["value_range"]),
        on_error=p["on_error"],
        **given,
    )
    if earlier is not None and not isinstance(p["class_names"], Mapping):
        check_names(data, earlier)
    _show_unknown(data, shown=bool(p["verbose"]))
    plain_classes(data.encoding.classes)  # labels that cannot be saved are refused before the work
    _warn_of_modules(resolve_architecture(p["architecture"]))
    plan = NetworkPlan(
        backbone=p["backbone"],
        architecture=resolve_architecture(p["architecture"]),
        image_size=image_size_of(p, data, learnt),
        num_classes=len(data.encoding.classes),
        task=data.encoding.task,
        diffusion=recipe.diffusion,
        context_dropout=recipe.context_dropout,
    )
    plan = with_zoom(plan, longest_side_of(p, data), learnt)
    same, known = learnt is not None and same_classes(learnt, data), None
    if learnt is not None and same:
        plan = with_regions_of(plan, learnt)
    try_losses(recipe, plan.num_classes)
    named = isinstance(p["backbone"], str) and bool(p["pretrained"])
    options = TrainingOptions(
        recipe=recipe,
        image_size=plan.image_size,
        zoom_size=plan.zoom_size,
        max_epochs=p["max_epochs"],
        batch_size=data.batch_size or p["batch_size"],
        learning_rate=p["learning_rate"],
        pretrained=learnt is not None or named,
        augment=augmentation(p["augment"]),
        num_workers=p["num_workers"],
        sampling=SamplingOptions(p["num_steps"], p["n_draws"], p["n_views"]),
        precision=p["precision"],
        device=device,
        seed=seed,
        watch=Watch(checked_callbacks(p["callbacks"]), p["verbose"], clock),
        crop=plan.architecture.crop,
        processes=processes,
    )
    # One image, read where all are read, checks the output of augment.
    trials = _TRIALS if is_of_a_dataset(data.training.images) else 1
    one = options.prepared(data.training.subset([0] * trials))
    batch = next(one.batches(trials, num_workers=options.num_workers))
    _warn_of_items(batch["image"])
    check_augment(options.augment, one.to_augment(batch)[0], seed)
    options = with_checkpoints(options, p, saved, data, plan, goes_on=learnt is not None)
    with LocalRNG(derived_seed(seed, 0)):
        network = build_network(plan, pretrained=p["pretrained"] if learnt is None else False)
    if learnt is not None:
        heads = same and same_regions(learnt.network, network)
        go_on(learnt, network, data, same=same, heads=heads)
        known = learnt if heads and "diffusion" in learnt.calibrations else None
    return FitPlan(
        data,
        options,
        resolved(plan, network),
        network,
        None if known is None else Learnt(known.drawing_ratio),
        {package: version(package) for package in PACKAGES},
        *names_of_fit(data, learnt if same else None),
    )


def fitted_model(plan: FitPlan, result: FitResult) -> FittedModel:
    """The fitted model that results from a fit, run by the network as it is."""
    options, verdict = plan.options, result.verdict
    return FittedModel(
        network=plan.network,
        plan=plan.plan,
        classes=plan.data.encoding.classes,
        channels=plan.data.image_shape[0],
        calibrations=verdict.calibrations,
        thresholds=verdict.thresholds,
        alone=verdict.alone,
        doubt=verdict.doubt,
        sampling=options.sampling,
        seed=options.seed,
        engine=Engine(plan.network),
        drawing_ratio=result.drawing_ratio,
        record=FitRecord(
            verdict.scores, FitHistory(result.history), plan.versions, _counts(plan.data)
        ),
        class_names=plan.class_names,
        data_names=plan.data_names,
        value_range=plan.data.training.value_range,
        shares=_shares(plan.data.training, plan.plan.task),
    )


def augmentation(augment: Any) -> Augment | None:
    """The augmentation function for the estimator's ``augment``; None: no augmentation."""
    return named_augment(augment) if isinstance(augment, str) else augment


def _recipe(p: Mapping[str, Any]) -> Recipe:
    """The recipe of this fit, after a check that it can train the architecture."""
    recipe = resolve_recipe(p["recipe"])
    architecture = resolve_architecture(p["architecture"])
    names = ("prior_backbone", "region_backbone")[: 1 + recipe.diffusion.context_of_regions]
    own = [name for name in names if getattr(architecture, name) is not None]
    if own and recipe.cached:
        raise InputError(
            f"The architecture has a {own[0]}, so the context has encoders that it does not share "
            "with the prior; the recipe trains on cached features of the prior and would leave "
            "them untrained. Use recipe='paper-v2', or a Recipe with cached=False, "
            "feature_noise=0.0 and n_cached_views=0."
        )
    # Class weights in the loss replace class-balanced sampling: both would correct twice.
    return recipe if p["class_weight"] is None else replace(recipe, balance=0.0)


def _shares(training: LabelledImages, task: Task) -> NDArray[np.float64]:
    """Class shares among the training images, by their weights; 0 where all weights are 0."""
    shares: NDArray[np.float64] = class_shares(training.targets, training.weights, task).numpy()
    return np.nan_to_num(shares)


def _counts(data: TrainingData) -> dict[str, Counts]:
    parts = {"training": data.training, "validation": data.validation}
    return {name: label_counts(part) for name, part in parts.items() if part is not None}


def _show_unknown(data: TrainingData, *, shown: bool) -> None:
    """Log what is known of each label, if some are unknown."""
    names = data.class_names or data.data_names or data.encoding.classes.tolist()
    for part, counts in _counts(data).items():
        if any(counts["unknown"]):
            table = counts_table(counts, list(map(str, names)))
            tell("diffmic.data", f"Labels of the {part} part:\n{table}", shown=shown)


def _warn_of_items(images: Tensor) -> None:
    """Warn if an item of a Dataset, which was read several times, is another each time."""
    if not all(torch.equal(image, images[0]) for image in images):
        warn_user(
            "The Dataset does not repeat: with all random generators that it was seen to use in "
            "the same state, it gave one item in two ways. So random_state does not give the same "
            "model again. Let it draw from torch, numpy's or Python's random functions, or from a "
            "generator that it holds as an attribute."
        )


def _warn_of_modules(architecture: Architecture) -> None:
    """Warn of code that cannot be passed again when a saved model is loaded."""
    for name in ("prior_backbone", "region_backbone"):
        if isinstance(getattr(architecture, name), nn.Module):
            warn_user(
                f"The architecture's {name} is a module: save_pretrained will refuse the fitted "
                "model, because only backbone can be passed again when loading. To save it, use a "
                "timm name there, or pickle the estimator."
            )
