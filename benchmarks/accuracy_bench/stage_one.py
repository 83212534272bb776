"""Stage one, and plain fine-tuning, with one change at a time to how they are trained.

Changes are those that are said to help on small sets of images: mixed images (Zhang et al., 2018,
mixup; Yun et al., 2019, CutMix), drawn augmentations (Mueller and Hutter, 2021, TrivialAugment;
Cubuk et al., 2020, RandAugment), rates that fall from layer to layer, logit adjustment (Menon et
al., 2021), longer training, larger images, smaller batches, and of each the moving average of its
weights.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from safetensors.torch import load_file
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import AdamW, Optimizer
from torchvision.transforms import v2

from diffmic.data import named_augment
from diffmic.data.augmentation import Named
from diffmic.inference import Evidence
from diffmic.model import Backbone
from diffmic.training import Recipe, TrainingOptions
from diffmic.training.diffusion_stage import moving_average
from diffmic.training.evaluation import Evaluation
from diffmic.training.objectives import PriorObjective
from diffmic.training.options import pixels
from diffmic.training.precision import round_to_half, to_device, training_precision
from diffmic.training.prior_stage import parameter_groups, train_on_images
from diffmic.training.state import History

from .encoders import (
    BUILDING,
    DEVICE,
    LEARNING,
    Job,
    PlainClassifier,
    PlainObjective,
    _encoded,
    _keep_history,
    _plain_score,
    _save,
    _view,
)
from .methods import OURS, EvidenceOf
from .tasks import DataSet

AVERAGED = ", averaged"  # in the names of methods: the moving average of the same run's weights
HORIZON = 0.1  # of that average, in shares of all steps, as in stage two


@dataclass(frozen=True)
class Change:
    """How a training differs from the recipe's.

    Attributes
    ----------
    augment : tuple of nn.Module
        Transforms of an image after the data set's own.
    mix : nn.Module or None
        Transform of a batch of images and targets, by which images are mixed.
    layer_decay : float or None
        Factor of the learning rate from a layer of the backbone to the one below it.
    longer, larger : float
        Factors of the number of epochs, and of the side of the images.
    batch : float
        Factor of the number of images in a batch; half of them are twice as many steps.
    adjusts : bool
        Logits are trained with the logarithms of the classes' shares added (Menon et al., 2021,
        logit adjustment), so that rare classes count as much as frequent ones in the answers;
        exclusive classes alone.
    """

    augment: tuple[nn.Module, ...] = ()
    mix: nn.Module | None = None
    layer_decay: float | None = None
    longer: float = 1
    larger: float = 1
    batch: float = 1
    adjusts: bool = False

    def applies_to(self, data_set: DataSet, *, multilabel: bool) -> bool:
        """Whether a set can be trained so: chest X-rays of 64 pixels have no larger originals."""
        return not (multilabel and self.adjusts) and not (
            self.larger > 1 and data_set.image_size < 96
        )

    def on(self, data_set: DataSet) -> DataSet:
        """A data set with the change's size and epochs."""
        return replace(
            data_set,
            image_size=round(self.larger * data_set.image_size),
            max_epochs=round(self.longer * data_set.max_epochs),
        )


CHANGES = {
    "today": Change(),
    "mixup": Change(mix=v2.MixUp(alpha=0.2)),
    "cutmix": Change(mix=v2.CutMix(alpha=1.0)),
    "TrivialAugment": Change(augment=(v2.TrivialAugmentWide(),)),
    "RandAugment": Change(augment=(v2.RandAugment(),)),
    "layer-wise decay": Change(layer_decay=0.85),
    "logit adjustment": Change(adjusts=True),
    "twice as long": Change(longer=2),
    "larger by a third": Change(larger=4 / 3),
    "half the batch": Change(batch=0.5),
    "mixup, twice as long": Change(mix=v2.MixUp(alpha=0.2), longer=2),
}


class Mixed(nn.Module):
    """An objective on mixed images and targets; in evaluation mode it is the objective itself."""

    def __init__(self, objective: nn.Module, mix: nn.Module) -> None:
        super().__init__()
        self.objective, self.mix = objective, mix

    def forward(self, images: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """Images (B, 3, H, W), targets (B, C), weights (B,) → loss."""
        if self.training and len(images) > 1:
            images, targets = self.mix(images, targets)
        loss: Tensor = self.objective(images, targets, weights)
        return loss


@dataclass(frozen=True)
class Learner:
    """What is trained: a module, its objective, its validation score, and its logits of a part."""

    module: nn.Module
    objective: nn.Module
    score: Callable[[], dict[str, float]]
    logits: Callable[[str], Tensor]


def prior_of(job: Job, recipe: Recipe) -> Learner:
    """The prior of both granularities."""
    network = to_device(job.network(recipe, pretrained=True), DEVICE)
    evaluation = Evaluation(job.parts.val, job.options(recipe))

    def logits(part: str) -> Tensor:
        images = _view(job, recipe, part, 0)
        return _encoded(job, recipe, network.eval(), images).fused_logits.cpu()

    objective = PriorObjective(network, recipe)
    return Learner(network.prior, objective, lambda: evaluation.prior(network), logits)


def plain_of(job: Job, recipe: Recipe) -> Learner:
    """The same backbone with one linear layer."""
    with job.rng(BUILDING):
        plain = to_device(PlainClassifier(job), DEVICE)
    options, task = job.options(recipe), job.parts.task

    @torch.inference_mode()
    def logits(part: str) -> Tensor:
        batches = _view(job, recipe, part, 0).batches(options.batch_size)
        plain.eval()
        return torch.cat([plain(pixels(b["image"], options.device)).cpu() for b in batches])

    objective = PlainObjective(plain, recipe, task)
    return Learner(
        plain, objective, lambda: _plain_score(plain, job.parts.val, options, task), logits
    )


LEARNERS = {"prior": prior_of, "plain": plain_of}


def evidence_of_states(job: Job, change: Change, learner: str) -> dict[str, EvidenceOf]:
    """Evidence of the best epoch, and of the moving average of the same run at its end.

    By what is added to the method's name; the networks are kept.
    """
    files = {
        suffix: job.file(f"{learner}{suffix.replace(', ', '-')}.safetensors")
        for suffix in ("", AVERAGED)
    }
    recipe = recipe_of(job, change)
    learning = LEARNERS[learner](job, recipe)
    if not all(file.is_file() for file in files.values()):
        averaged = trained(job, change, recipe, learning, learner)
        _save(averaged.state_dict(), files[AVERAGED])
        _save(learning.module.state_dict(), files[""])

    def evidence(suffix: str, part: str) -> Evidence:
        learning.module.load_state_dict(load_file(files[suffix]))
        return Evidence(learning.logits(part))

    return {suffix: partial(evidence, suffix) for suffix in files}


def recipe_of(job: Job, change: Change) -> Recipe:
    """The recipe, with the loss of the change."""
    if not change.adjusts:
        return OURS
    shares = job.parts.train.targets.mean(dim=0).clamp(min=1e-6).log().to(DEVICE)

    def adjusted(output: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(
            output + shares, target, reduction="none", label_smoothing=OURS.label_smoothing
        )

    return replace(OURS, prior_loss=adjusted)


def trained(job: Job, change: Change, recipe: Recipe, learning: Learner, learner: str) -> nn.Module:
    """Train a learner, which ends in its best state; returns its averaged last state."""
    options = options_of(job, change, recipe)
    objective, module = learning.objective, learning.module
    if change.mix is not None:
        objective = Mixed(objective, change.mix)
    optimizer = optimizer_of(module, options, change)
    total_steps = options.max_epochs * math.ceil(len(job.parts.train) / options.batch_size)
    averaged = moving_average(module, HORIZON, total_steps)
    optimizer.register_step_post_hook(lambda *_: averaged.update_parameters(module))
    history: History = []
    started = time.perf_counter()
    train_on_images(
        objective,
        module,
        job.parts.train,
        options,
        precision=training_precision(options.precision, options.device, module),
        rng=job.rng(LEARNING),
        evaluate=learning.score,
        stage=learner,
        history=history,
        optimizer=optimizer,
    )
    _keep_history(job, learner, history, started)
    for network in (module, averaged.module):
        round_to_half(network)  # as a fit does
    return averaged.module


def options_of(job: Job, change: Change, recipe: Recipe) -> TrainingOptions:
    """Options of a job, with the augmentation and the batches of the change."""
    options = job.options(recipe)
    options = replace(options, batch_size=round(change.batch * options.batch_size))
    if not change.augment:
        return options
    own = named_augment(job.data_set.augment)
    return replace(options, augment=Named(v2.Compose([own.transform, *change.augment])))


def optimizer_of(module: nn.Module, options: TrainingOptions, change: Change) -> Optimizer:
    """AdamW as in a fit, with smaller rates for the lower layers where the change says so."""
    recipe = options.recipe
    groups = parameter_groups(module, options)
    if change.layer_decay is not None:
        backbone, heads = groups
        (model,) = {m.net.model for m in module.modules() if isinstance(m, Backbone)}
        layers = param_groups_layer_decay(
            model,
            recipe.weight_decay,
            weight_decay_exclude_1d=False,
            layer_decay=change.layer_decay,
        )
        groups = [
            {"params": layer["params"], "lr": layer["lr_scale"] * backbone["lr"]}
            for layer in layers
        ] + [heads]
    return AdamW(groups, weight_decay=recipe.weight_decay)
