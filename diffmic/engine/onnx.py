"""Export of a fitted model to ONNX, and an engine that runs its network by ONNX Runtime."""

import copy
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..inference import Engine, Evidence, FittedModel, OwnCalibration, SamplingOptions
from ..model import Conditions, DiffMICNetwork
from ..model.part_checks import part_name
from ..model.zoom import ZoomedCrops, of_one_size

ONNX_FORMAT = 1  # of the metadata
METADATA_KEY = "diffmic"
OUTPUTS = ("probabilities", "prior_probabilities")
_INSTALL = 'What writes and runs ONNX files is not installed: pip install "diffmic[onnx]".'
_TOLERANCE = 1e-3  # of the largest value, as for the rewritten backbones


def export_onnx(model: FittedModel, path: Path, options: SamplingOptions) -> None:
    """Write a fitted model as one ONNX file: images in, calibrated probabilities out.

    Parameters
    ----------
    model : FittedModel
    path : Path
        File to write; one that exists is replaced.
    options : SamplingOptions
        Sampling options that become part of the graph, with the noise of the model's seed.

    Raises
    ------
    InputError
        The packages for ONNX are missing, views are asked for, or the network cannot be exported.
    """
    if options.n_views > 1:
        raise InputError(
            f"n_views is {options.n_views}: the augmentation of views cannot be part of an ONNX "
            "graph. Set n_views=1."
        )
    if own := [c for c in model.calibrations.values() if isinstance(c, OwnCalibration)]:
        raise InputError(
            f"The calibration of your own, {part_name(own[0].part)}, cannot be part of an ONNX "
            "graph. Fit with Recipe(calibration=None), or apply it to what the graph gives."
        )
    images = _images(model.input_size, floats=model.value_range is not None)
    program = _exported(
        WholeModel(model, options), (images,), ({0: _BATCH},), names=(["images"], list(OUTPUTS))
    )
    program.model.metadata_props[METADATA_KEY] = json.dumps(metadata(model, options))
    unfinished = path.with_name(path.name + ".unfinished")
    try:
        program.save(str(unfinished))
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def metadata(model: FittedModel, options: SamplingOptions) -> dict[str, Any]:
    """What a program that runs the graph needs to know: classes, preprocessing, decision."""
    classes = model.classes.tolist()
    values = model.value_range
    return {
        "format": ONNX_FORMAT,
        "diffmic": version("diffmic"),
        "task": model.task.name,
        "classes": classes,
        "class_names": list(model.class_names or map(str, classes)),
        "channels": model.channels,
        "image_size": model.input_size,
        "crop": model.crop,
        "value_range": None if values is None else [values.low, values.high],
        "value_range_given": values is not None and values.given,
        "thresholds": {stage: list(map(float, of)) for stage, of in model.thresholds.items()},
        "stages": sorted(model.calibrations),
        "num_steps": options.num_steps,
        "n_draws": options.n_draws,
    }


class WholeModel(nn.Module):
    """A fitted model as one module: images (B, 3, S, S) → calibrated probabilities.

    Images are uint8, or float in 0–1 if the model has a range of pixel values. The outputs are the
    probabilities (B, C) of the diffusion, or of the prior if that is all there is, and of the
    prior.
    """

    noise: Tensor

    def __init__(self, model: FittedModel, options: SamplingOptions) -> None:
        super().__init__()
        self.network, self.num_steps = model.network, options.num_steps
        self.task, self.calibrations = model.task, model.calibrations
        self.register_buffer("noise", model.noise(options.n_draws))
        ratio = model.drawing_ratio
        self.drawing_ratio = None if ratio is None else torch.from_numpy(ratio)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        pixels = images if images.is_floating_point() else images.float() / 255
        conditions = self.network.encode(pixels)
        draws = None
        if "diffusion" in self.calibrations:
            draws = self.network.sample(conditions, self.noise, num_steps=self.num_steps)
        evidence = Evidence(conditions.fused_logits, draws, self.drawing_ratio)
        prior = evidence.prior_logits.double()
        found = [
            self.task.probabilities(
                calibration.logits(evidence.logits(stage, self.task), prior)
            ).float()
            for stage, calibration in sorted(self.calibrations.items())  # the diffusion first
        ]
        return found[0], found[-1].clone()


class _Encoder(nn.Module):
    """Images (B, 3, S, S) in 0–1 → the tensors of :class:`Conditions`."""

    def __init__(self, network: DiffMICNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return _tensors(self.network.encode(images))


class _Sampler(nn.Module):
    """Tensors of :class:`Conditions` and noise (S, K, C) → scores of each draw (B, S, C)."""

    def __init__(self, network: DiffMICNetwork, num_steps: int) -> None:
        super().__init__()
        self.network, self.num_steps = network, num_steps

    def forward(self, conditions: tuple[Tensor, ...], noise: Tensor) -> Tensor:
        return self.network.sample(Conditions(*conditions), noise, num_steps=self.num_steps)


@dataclass(frozen=True, eq=False)
class OnnxEngine(Engine):
    """Engine that runs the network on a CPU by ONNX Runtime.

    Attributes
    ----------
    encoder : onnxruntime.InferenceSession
        Session of the encoder.
    samplers : dict of int to onnxruntime.InferenceSession
        Session of the sampler for each number of steps; other numbers are run by torch.
    """

    encoder: Any = None
    samplers: Mapping[int, Any] = field(default_factory=dict)

    @torch.inference_mode()
    def encode(
        self, images: Tensor, originals: Sequence[Tensor] | None = None, *, seed: int = 0
    ) -> Conditions:
        """Conditions of images (B, 3, H, W) in 0–1, in float32; nothing is drawn at random.

        The graph of a zoom takes images of one size, to which the originals are resized.
        """
        regions = self.network.prior.regions
        if originals is not None and isinstance(regions, ZoomedCrops):
            images = of_one_size(originals, regions.zoom_size)
        return Conditions(*_run(self.encoder, [images.float()]))

    @torch.inference_mode()
    def sample(self, conditions: Conditions, noise: Tensor, *, num_steps: int) -> Tensor:
        """Scores of each draw, (B, S, C), in float32; see :meth:`DiffMICNetwork.sample`."""
        if num_steps not in self.samplers:
            return super().sample(conditions, noise, num_steps=num_steps)
        return _run(self.samplers[num_steps], [*_tensors(conditions), noise])[0]


def onnx_engine(network: DiffMICNetwork, input_size: int, num_steps: Sequence[int]) -> OnnxEngine:
    """Build an engine of ONNX Runtime for images of a size and some numbers of sampler steps.

    Raises
    ------
    InputError
        The packages for ONNX are missing, the network is not on a CPU, cannot be exported, or
        ONNX Runtime gives other scores than torch.
    """
    plain = Engine(network.eval(), "onnxruntime")
    if plain.device.type != "cpu":
        raise InputError(f"The model is on {plain.device}; ONNX Runtime is used on a CPU alone.")
    images = _images(input_size, floats=True)
    conditions = plain.encode(images)
    noise = network.noise(2, torch.Generator().manual_seed(0))
    encoder = _session(_exported(_Encoder(network), (images,), ({0: _BATCH},)))
    inputs = (tuple(t.clone() for t in _tensors(conditions)), noise)
    shapes = (tuple({0: _BATCH} for _ in fields(Conditions)), {0: torch.export.Dim("draws")})
    samplers = {
        n: _session(_exported(_Sampler(network, n), inputs, shapes)) for n in sorted(set(num_steps))
    }
    engine = OnnxEngine(network, "onnxruntime", encoder=encoder, samplers=samplers)
    for n in samplers:
        expected = plain.sample(conditions, noise, num_steps=n)
        found = engine.sample(engine.encode(images), noise, num_steps=n)
        if not torch.allclose(
            found, expected, rtol=0, atol=_TOLERANCE * float(expected.abs().max())
        ):
            raise InputError(
                "ONNX Runtime gives other scores than torch for the same images, by "
                f"{float((found - expected).abs().max()):.3g}. Use compile('auto')."
            )
    return engine


_BATCH = torch.export.Dim("batch")


def _tensors(conditions: Conditions) -> tuple[Tensor, ...]:
    return tuple(getattr(conditions, field.name) for field in fields(Conditions))


def _images(side: int, *, floats: bool) -> Tensor:
    """Two images, from which the types in the graph follow; their number is left open."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (2, 3, side, side), generator=generator, dtype=torch.uint8)
    return pixels.float() / 255 if floats else pixels


def _exported(
    module: nn.Module,
    inputs: tuple[Any, ...],
    shapes: tuple[Any, ...],
    names: tuple[list[str] | None, list[str] | None] = (None, None),
) -> Any:
    """ONNX program of a module, for batches of any size."""
    try:
        import onnxscript  # noqa: F401 - torch's exporter needs it
    except ImportError as reason:
        raise InputError(_INSTALL) from reason
    module = copy.deepcopy(module).cpu().eval()
    try:
        with torch.no_grad(), warnings.catch_warnings():
            # The exporter's own: about names of axes, and about what it does inside.
            warnings.simplefilter("ignore")
            return torch.onnx.export(
                module,
                inputs,
                dynamo=True,
                dynamic_shapes=shapes,
                input_names=names[0],
                output_names=names[1],
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as reason:
        raise InputError(
            f"The network cannot be exported as ONNX: {str(reason).splitlines()[0]} A backbone or "
            "a part of your own must not branch on the values of tensors, or on the number of "
            "images."
        ) from reason


def _session(program: Any) -> Any:
    try:
        import onnxruntime
    except ImportError as reason:
        raise InputError(_INSTALL) from reason
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        program.model_proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _run(session: Any, inputs: list[Tensor]) -> list[Tensor]:
    names = [argument.name for argument in session.get_inputs()]
    feed = {name: tensor.contiguous().numpy() for name, tensor in zip(names, inputs, strict=True)}
    return [torch.from_numpy(found) for found in session.run(None, feed)]
