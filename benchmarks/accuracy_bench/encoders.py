"""Whatever passes images through a backbone: the prior, and plain fine-tuning; kept on disk."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import dropout

from diffmic import DiffMICClassifier
from diffmic.data import LabelledImages, PreparedImages, named_augment
from diffmic.data import views_of as augmented_views
from diffmic.inference import Engine, SamplingOptions, encode_images
from diffmic.inference.calibration import mean_nll
from diffmic.model import (
    Architecture,
    Conditions,
    DiffMICNetwork,
    NetworkPlan,
    build_backbone,
    build_network,
    resolve_architecture,
)
from diffmic.random import LocalRNG, derived_seed
from diffmic.tasks import Task
from diffmic.training import Recipe, TrainingOptions
from diffmic.training.evaluation import Evaluation
from diffmic.training.options import pixels
from diffmic.training.precision import to_device, training_precision
from diffmic.training.prior_stage import train_on_images, train_prior
from diffmic.training.readings import Reading
from diffmic.training.state import History
from diffmic.training.watch import Watch

from .tasks import DataSet, Parts

N_VIEWS = 5  # the image itself, then augmented views
DEFAULTS = DiffMICClassifier().get_params()
DEFAULT_ARCHITECTURE = resolve_architecture(DEFAULTS["architecture"])
BUILDING, LEARNING = 0, 1  # what a job's seed is for, as in a fit
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True, eq=False)
class Job:
    """A data set and a seed, with everything that training needs to know.

    With an architecture that zooms, the parts hold images of its ``zoom_size``.
    """

    name: str
    data_set: DataSet
    seed: int
    parts: Parts
    folder: Path
    verbose: int
    architecture: Architecture = DEFAULT_ARCHITECTURE
    backbone: str = field(default_factory=lambda: str(DEFAULTS["backbone"]))

    def file(self, what: str) -> Path:
        """Where something is kept."""
        return self.folder / f"{self.name}-{self.seed}-{what}"

    def options(self, recipe: Recipe) -> TrainingOptions:
        """The estimator's defaults, with the data set's size, epochs and augmentation."""
        names = {each.name for each in fields(TrainingOptions)} & set(DEFAULTS)
        chosen = {name: DEFAULTS[name] for name in names} | {
            "recipe": recipe,
            "image_size": self.plan(recipe).input_size,
            "max_epochs": self.data_set.max_epochs,
            "augment": named_augment(self.data_set.augment),
            "sampling": SamplingOptions(DEFAULTS["num_steps"], DEFAULTS["n_draws"]),
            "device": DEVICE,
            "seed": self.seed,
            "pretrained": True,
            "watch": Watch(verbose=self.verbose),
        }
        return TrainingOptions(**chosen)

    def plan(self, recipe: Recipe, **changes: int) -> NetworkPlan:
        """Plan of the job's architecture, but for changed fields of it."""
        return NetworkPlan(
            backbone=self.backbone,
            architecture=replace(self.architecture, **changes),
            image_size=self.data_set.image_size,
            num_classes=len(self.parts.classes),
            task=self.parts.task,
            diffusion=recipe.diffusion,
            context_dropout=recipe.context_dropout,
        )

    def network(self, recipe: Recipe, *, pretrained: bool, **changes: int) -> DiffMICNetwork:
        """An untrained network of the job's architecture, but for changed fields of it."""
        plan = self.plan(recipe, **changes)
        with self.rng(BUILDING):
            return build_network(plan, pretrained=pretrained and DEFAULTS["pretrained"])

    def rng(self, purpose: int) -> LocalRNG:
        """Random numbers of the job's seed: the same whatever ran before."""
        return LocalRNG(derived_seed(self.seed, purpose))


class PlainClassifier(nn.Module):
    """The usual way: a backbone, the mean of its last map, dropout, a linear layer."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.backbone = build_backbone(
            job.backbone,
            image_size=job.data_set.image_size,
            pretrained=DEFAULTS["pretrained"],
        )
        self.classifier = nn.Linear(self.backbone.channels, len(job.parts.classes))

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in 0–1 → logits (B, C)."""
        logits: Tensor = self.classifier(dropout(self.backbone.pooled(images), 0.2, self.training))
        return logits


class PlainObjective(nn.Module):
    """The loss of stage one: cross-entropy with label smoothing, or the recipe's own."""

    def __init__(self, plain: PlainClassifier, recipe: Recipe, task: Task) -> None:
        super().__init__()
        self.plain, self.recipe, self.task = plain, recipe, task

    def forward(self, images: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """Images (B, 3, H, W), targets (B, C), weights (B,) → loss."""
        logits, own = self.plain(images).float(), self.recipe.prior_loss
        if own is None:
            errors = self.task.loss(logits, targets, label_smoothing=self.recipe.label_smoothing)
        else:
            errors = own(logits, targets)
        return (weights * errors).mean()


def conditions_of(job: Job, recipe: Recipe, part: str) -> Conditions:
    """Conditions of a part under the job's prior, trained where that has not been done.

    Those of the training part are of :data:`N_VIEWS` views: all images in the first, and so on.
    """
    views = range(N_VIEWS if part == "train" else 1)
    return _kept_conditions(
        job,
        recipe,
        job.file(f"conditions-{part}.safetensors"),
        lambda network: [
            _encoded(job, recipe, network, _view(job, recipe, part, view)) for view in views
        ],
    )


def views_of(job: Job, recipe: Recipe, part: str) -> Conditions:
    """Conditions of a part in views, as the estimator's: those of an image lie side by side."""
    return _kept_conditions(
        job,
        recipe,
        job.file(f"conditions-{N_VIEWS}-views-{part}.safetensors"),
        lambda network: [_encoded(job, recipe, network, _view(job, recipe, part, 0), N_VIEWS)],
    )


def _kept_conditions(
    job: Job, recipe: Recipe, file: Path, encode: Callable[[DiffMICNetwork], list[Conditions]]
) -> Conditions:
    if not file.is_file():
        conditions = Conditions.cat(encode(trained_prior(job, recipe))).without_pictures()
        _save(vars(conditions), file)
    return Conditions(**load_file(file, device=str(DEVICE)))


def trained_prior(job: Job, recipe: Recipe) -> DiffMICNetwork:
    """A network with its prior trained and nothing else."""
    network, file = job.network(recipe, pretrained=False), job.file("prior.safetensors")
    if not file.is_file():
        network = job.network(recipe, pretrained=True)
        options, history = job.options(recipe), []
        evaluation, started = Evaluation(job.parts.val, options), time.perf_counter()
        to_device(network, options.device)
        precision = training_precision(options.precision, options.device, network.prior)
        train_prior(
            network,
            job.parts.train,
            options,
            precision=precision,
            rng=job.rng(LEARNING),
            evaluate=lambda: evaluation.prior(network),
            history=history,
        )
        _keep_history(job, "prior", history, started)
        _save(network.prior.state_dict(), file)
    network.prior.load_state_dict(load_file(file))
    return network.to(DEVICE).eval()


def plain_logits(job: Job, recipe: Recipe, part: str, n_views: int = 1) -> Tensor:
    """Logits of plain fine-tuning, (V, n, C): of the images themselves, then of their views."""
    file = job.file(f"plain-{n_views}-views-{part}.safetensors")
    if not file.is_file():
        plain, options = trained_plain(job, recipe).eval(), job.options(recipe)
        found = []
        for batch in _view(job, recipe, part, 0).batches(options.batch_size):
            images = augmented_views(batch["image"], n_views, options.augment, options.seed)
            with torch.inference_mode():
                found.append(plain(pixels(images, options.device)).cpu())
        logits = torch.cat(found).view(-1, n_views, len(job.parts.classes)).transpose(0, 1)
        _save({"logits": logits}, file)
    return load_file(file)["logits"]


def trained_plain(job: Job, recipe: Recipe) -> PlainClassifier:
    """The same backbone, fine-tuned for as many epochs with the same settings."""
    file, options = job.file("plain.safetensors"), job.options(recipe)
    with job.rng(BUILDING):
        plain = PlainClassifier(job)
    to_device(plain, options.device)
    if not file.is_file():
        history: History = []
        precision = training_precision(options.precision, options.device, plain)
        started = time.perf_counter()
        train_on_images(
            PlainObjective(plain, recipe, job.parts.task),
            plain,
            job.parts.train,
            options,
            precision=precision,
            rng=job.rng(LEARNING),
            evaluate=lambda: _plain_score(plain, job.parts.val, options, job.parts.task),
            stage="plain",
            history=history,
        )
        _keep_history(job, "plain", history, started)
        _save(plain.state_dict(), file)
    plain.load_state_dict(load_file(file))
    return plain


def _plain_score(
    plain: PlainClassifier, part: LabelledImages, options: TrainingOptions, task: Task
) -> dict[str, float]:
    """Validation score as stage one has it: the negative log-likelihood at the best temperature."""
    plain.eval()
    batches = options.prepared(part).batches(options.batch_size)
    with torch.inference_mode():
        logits = torch.cat([plain(pixels(b["image"], options.device)).cpu() for b in batches])
    reading = Reading(logits.double(), None, part.targets, part.weights, task)
    nll = mean_nll(reading.fitted().logits(reading.logits), part.targets, task)
    return {"score": -nll, "nll": nll}


def _view(job: Job, recipe: Recipe, part: str, view: int) -> PreparedImages:
    """A part's images as they are (view 0), or each augmented in its own way."""
    options = job.options(recipe)
    images = options.prepared(job.parts[part], augmented=view > 0)
    images.epoch = options.max_epochs + view  # other draws than those of stage one
    return images


def _encoded(
    job: Job, recipe: Recipe, network: DiffMICNetwork, images: PreparedImages, n_views: int = 1
) -> Conditions:
    options = job.options(recipe)
    encoded = encode_images(
        Engine(network),
        images,
        batch_size=options.batch_size,
        n_views=n_views,
        augment=options.augment,
        seed=options.seed,
    )
    return Conditions.cat([conditions for conditions, _ in encoded]).map(torch.clone)


def _save(tensors: dict[str, Tensor], file: Path) -> None:
    """Whole or not at all, so that an interrupted run resumes before what it was doing."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".unfinished")
    # Copies, because the encoders of a zoom share their weights.
    apart = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    save_file(apart, unfinished)
    unfinished.replace(file)


def _keep_history(job: Job, what: str, history: History, started: float) -> None:
    job.folder.mkdir(parents=True, exist_ok=True)
    record = {"seconds": round(time.perf_counter() - started, 1), "history": history}
    job.file(f"{what}-history.json").write_text(json.dumps(record, indent=1))
