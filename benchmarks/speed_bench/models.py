"""What is measured: estimators that were never trained, plain timm models, and images."""

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from diffmic import DiffMICClassifier
from diffmic.data import unit_range
from diffmic.datasets import make_lesions
from diffmic.engine import prediction_engine
from diffmic.estimator.presets import preset_parameters
from diffmic.exported import session_options
from diffmic.inference import STAGES, Calibration, FittedModel, SamplingOptions
from diffmic.model import (
    Architecture,
    DiffMICNetwork,
    NetworkPlan,
    build_network,
    resolve_architecture,
    resolved,
)
from diffmic.random import LocalRNG
from diffmic.tasks import MULTICLASS
from diffmic.training import resolve_device, resolve_recipe
from diffmic.training.precision import to_device

from .timing import Run

DEVICE = torch.device("cpu")
N_PICTURES = 8  # different ones; more are repetitions


@dataclass(frozen=True)
class Settings:
    """Sizes of the benchmark.

    Attributes
    ----------
    image_size, large_size : int
        Pixels of a side: of the networks' input, and of images that have to be resized.
    batch, n_classes : int
        Where another factor is varied.
    batches, steps, draws, classes, threads : tuple of int
        What is tried; ``paper_`` and so on for the paper's arrangement.
    default, paper : dict
        Parameters of the estimator, for the default model and the paper's arrangement; with an
        architecture as plain values, so that another process can be told.
    few_rounds, paper_batch : int
        Turns of what takes long; images where another factor is varied.
    device : str
        Where predictions are measured, and the floors beside them.
    fit_sizes : tuple of int
        Images of the fits whose memory is compared.
    epoch_images : int
        Of the epoch in which waiting for images is measured.
    seconds, shard_seconds, compile_seconds : float
        Least seconds of one timing; how long whole processes predict; after how long compiling is
        given up.
    """

    device: str = "cpu"
    image_size: int = 224
    large_size: int = 512
    batch: int = 32
    n_classes: int = 7
    batches: tuple[int, ...] = (1, 8, 32, 64)
    paper_batches: tuple[int, ...] = (1, 8, 64)
    few_rounds: int = 3
    paper_batch: int = 8
    paper_steps: tuple[int, ...] = (1, 10, 50)
    paper_draws: tuple[int, ...] = (1, 16)
    paper_classes: tuple[int, ...] = (2, 7, 100)
    fit_sizes: tuple[int, ...] = (1_000, 20_000)
    epoch_images: int = 96
    steps: tuple[int, ...] = (1, 2, 5, 10, 50)
    draws: tuple[int, ...] = (1, 8, 16)
    classes: tuple[int, ...] = (2, 7, 100, 1000)
    threads: tuple[int, ...] = (1, 2)
    default: Mapping[str, Any] = field(default_factory=dict)
    v1_steps: tuple[int, ...] = (1, 2, 5, 10, 60, 250, 1000)
    paper: Mapping[str, Any] = field(default_factory=lambda: preset_parameters("paper-v2"))
    v1: Mapping[str, Any] = field(default_factory=lambda: {"recipe": "paper-v1"})
    seconds: float = 0.1
    shard_seconds: float = 12.0
    compile_seconds: float = 100.0

    def parameters(self, model: str) -> dict[str, Any]:
        """Parameters of the estimator for ``"default"``, ``"paper-v2"`` or ``"diffmic-v1"``."""
        of = {"default": self.default, "paper-v2": self.paper, "diffmic-v1": self.v1}
        parameters = dict(of[model])
        if isinstance(parameters.get("architecture"), dict):
            parameters["architecture"] = Architecture(**parameters["architecture"])
        return parameters

    def encoder(self, model: str) -> str:
        """Name of its image encoder."""
        return str(self.parameters(model).get("backbone", DiffMICClassifier().backbone))

    def estimator(self, model: str, **changes: Any) -> DiffMICClassifier:
        """One that can predict, but has learnt nothing; see :func:`untrained`.

        Parameters
        ----------
        model : {"default", "paper-v2", "diffmic-v1"}
        **changes
            Of its parameters; also ``n_classes`` and ``engine``.
        """
        n_classes = changes.pop("n_classes", self.n_classes)
        engine = changes.pop("engine", "auto")
        sizes = {"image_size": self.image_size, "device": self.device}
        parameters = sizes | self.parameters(model) | changes
        return untrained(parameters, n_classes, engine)


TINY = {
    "backbone": "test_resnet",
    "pretrained": False,
    "architecture": asdict(Architecture(feature_dim=32)),
}
# To see that everything runs; the figures mean nothing.
QUICK = Settings(
    image_size=64,
    large_size=80,
    batch=4,
    n_classes=3,
    batches=(1, 4),
    paper_batches=(1, 2),
    paper_batch=2,
    paper_steps=(1, 10),
    paper_classes=(2, 3),
    fit_sizes=(20, 40),
    epoch_images=8,
    steps=(1, 2, 10, 50),
    draws=(1, 8, 16),
    classes=(2, 3),
    threads=(1,),
    default=TINY,
    paper=preset_parameters("paper-v2")
    | {"image_size": 64, "backbone": "test_resnet"}
    | {
        "architecture": asdict(resolve_architecture("paper-v2"))
        | {"prior_backbone": "test_resnet", "region_backbone": "test_resnet", "n_regions": 2}
        | {"feature_dim": 1024}  # the least that counts as wide
    },
    v1_steps=(1, 2, 1000),
    v1=TINY | {"recipe": "paper-v1"},
    seconds=0.0,
    shard_seconds=0.05,
)


def untrained(
    parameters: Mapping[str, Any], n_classes: int, engine: str = "auto"
) -> DiffMICClassifier:
    """An estimator as a fit leaves it, but for what it would have learnt: that costs no time.

    The same parameters give the same weights.
    """
    usual = {"pretrained": False, "random_state": 0, "verbose": 0, "device": "cpu"}
    clf = DiffMICClassifier(**usual | dict(parameters))
    device, recipe = resolve_device(clf.device), resolve_recipe(clf.recipe)
    plan = NetworkPlan(
        backbone=clf.backbone,
        architecture=resolve_architecture(clf.architecture),
        image_size=int(clf.image_size),
        num_classes=n_classes,
        task=MULTICLASS,
        diffusion=recipe.diffusion,
        context_dropout=recipe.context_dropout,
    )
    with LocalRNG(0):
        network = build_network(plan)
        to_device(network, device)
        _settle(network, float_batch(pictures(4, plan.image_size)).to(device))
    made = "plain" if engine == "plain" else "auto"
    clf.model_ = FittedModel(
        network=network,
        plan=resolved(plan, network),
        classes=np.arange(n_classes),
        channels=3,
        calibrations={stage: Calibration() for stage in STAGES},
        thresholds={},
        sampling=SamplingOptions(clf.num_steps, clf.n_draws),
        seed=0,
        engine=prediction_engine(network, made, precision=clf.precision),
    )
    return clf.compile(engine) if engine == "onnxruntime" else clf


@torch.no_grad()
def _settle(network: DiffMICNetwork, images: Tensor) -> None:
    """Give batch norms of the encoders the statistics of images: numbers of the usual size."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # a plain mean over what passes
    network.train()
    network.encode(images)
    network.eval()


def plain_pass(name: str, batch: int, settings: Settings, dtype: torch.dtype | None = None) -> Run:
    """The floor: one forward pass of timm's own model, on images that are ready for it."""
    model: nn.Module = timm.create_model(name, pretrained=False, num_classes=settings.n_classes)
    model = model.eval().to(settings.device, dtype=dtype, memory_format=torch.channels_last)
    size = settings.image_size
    images = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0))
    images = images.to(settings.device, dtype=dtype, memory_format=torch.channels_last)

    @torch.inference_mode()
    def forward() -> Tensor:
        logits: Tensor = model(images).cpu()  # a GPU is done when they are there
        return logits

    return forward


def has_onnxruntime() -> bool:
    """Whether ONNX Runtime and what exports for it are installed."""
    return all(find_spec(package) is not None for package in ("onnxruntime", "onnxscript"))


def onnx_pass(name: str, batch: int, settings: Settings) -> Run | None:
    """The same pass by ONNX Runtime, where it and the exporter are installed."""
    if not has_onnxruntime():
        return None
    import onnxruntime

    model = timm.create_model(name, pretrained=False, num_classes=settings.n_classes).eval()
    images = torch.rand(batch, 3, settings.image_size, settings.image_size)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "encoder.onnx"
        torch.onnx.export(model, (images,), file, dynamo=True, verbose=False)
        options = session_options(torch.get_num_threads())
        session = onnxruntime.InferenceSession(file, options, ["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: images.numpy()}
    return lambda: session.run(None, feed)


def floors(model: str, batch: int, settings: Settings) -> dict[str, Run]:
    """A pass of the model's own image encoder, and one of resnet18."""
    return {
        "encoder": plain_pass(settings.encoder(model), batch, settings),
        "resnet18": plain_pass("resnet18", batch, settings),
    }


def prediction(clf: DiffMICClassifier, images: Any, **options: int) -> Run:
    """The whole public call, in one batch."""
    clf.set_params(batch_size=max(2, len(images)))
    return lambda: clf.predict_proba(images, **options)


def pictures(n_images: int, size: int) -> NDArray[np.uint8]:
    """Generated colour images (n, H, W, 3) as a user has them."""
    grey, _ = make_lesions(min(n_images, N_PICTURES), image_size=size, random_state=0)
    colour = np.repeat(grey[..., None], 3, axis=-1)
    return np.ascontiguousarray(np.resize(colour, (n_images, *colour.shape[1:])))


def float_batch(images: NDArray[np.uint8]) -> Tensor:
    """Images (n, H, W, 3) as the network gets them: (n, 3, H, W), channels last in memory."""
    pixels = unit_range(torch.from_numpy(images).permute(0, 3, 1, 2))
    return pixels.contiguous(memory_format=torch.channels_last)
