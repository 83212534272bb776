"""Export of a fitted model to ONNX, and an engine that runs its network by ONNX Runtime."""

import copy
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..exported import session_options
from ..inference import Engine, FittedModel, SamplingOptions
from ..model import Conditions, DiffMICNetwork
from ..model.zoom import ZoomedCrops, of_one_size
from .reduced import Feed, reduced
from .whole import (
    BATCH,
    METADATA_KEY,
    OUTPUTS,
    REASONS,
    inputs_of,
    metadata,
    noise_images,
    replacing,
    whole_model,
)

_INSTALL = 'What writes and runs ONNX files is not installed: pip install "diffmic[onnx]".'
_TOLERANCE = 1e-3  # of the largest value, as for the rewritten backbones


def export_onnx(
    model: FittedModel,
    path: Path,
    options: SamplingOptions,
    *,
    precision: str = "float32",
    images: Sequence[Feed] = (),
    tolerance: float = 0.02,
) -> None:
    """Write a fitted model as one ONNX file: images in, calibrated probabilities out.

    Parameters
    ----------
    model : FittedModel
    path : Path
        File to write; one that exists is replaced.
    options : SamplingOptions
        Sampling options that become part of the graph, with the noise of the model's seed.
    precision : {"float32", "float16", "int8"}
        Precision of the weights; see :mod:`~diffmic.engine.reduced`.
    images : sequence of dict of str to ndarray
        Batches of images as the graph takes them, for another precision than float32.
    tolerance : float
        Largest difference of a probability from that in float32, over these images.

    Raises
    ------
    InputError
        The packages for ONNX are missing, views are asked for, the network cannot be exported, or
        its probabilities in this precision differ too much.
    """
    module, inputs = whole_model(model, options), inputs_of(model)
    shapes = tuple({0: BATCH} for _ in inputs)
    program = _exported(module, tuple(inputs.values()), shapes, names=([*inputs], [*OUTPUTS]))
    graph, told = program.model_proto, metadata(model, options)
    if precision != "float32":
        trained = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
        graph, difference = reduced(graph, precision, images, tolerance, trained)
        told |= {"precision": precision, "largest_difference": difference}
    entry = graph.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, json.dumps(told)
    with replacing(path) as unfinished:
        unfinished.write_bytes(graph.SerializeToString())


class _Encoder(nn.Module):
    """Images (B, 3, S, S) in 0–1, and originals of a zoom → tensors of :class:`Conditions`."""

    def __init__(self, network: DiffMICNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, originals: Tensor | None = None) -> tuple[Tensor, ...]:
        return _tensors(self.network.encode(images, originals))


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

        The graph of a zoom takes originals of one size, to which they are resized.
        """
        prior = self.network.prior
        if not isinstance(prior.regions, ZoomedCrops):
            return Conditions(*_run(self.encoder, [images.float()]))
        shown = of_one_size(images if originals is None else originals, prior.regions.zoom_size)
        return Conditions(*_run(self.encoder, [prior.whole(images).float(), shown]))

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
    images = noise_images(input_size, floats=True)
    conditions = plain.encode(images)
    taken: tuple[Tensor, ...] = (images,)
    if isinstance(network.prior.regions, ZoomedCrops):
        taken = (network.prior.whole(images), images)
    noise = network.noise(2, torch.Generator().manual_seed(0))
    encoder = _session(_exported(_Encoder(network), taken, tuple({0: BATCH} for _ in taken)))
    inputs = (tuple(t.clone() for t in _tensors(conditions)), noise)
    shapes = (tuple({0: BATCH} for _ in fields(Conditions)), {0: torch.export.Dim("draws")})
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


def _tensors(conditions: Conditions) -> tuple[Tensor, ...]:
    return tuple(getattr(conditions, field.name) for field in fields(Conditions))


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
            f"The network cannot be exported as ONNX: {str(reason).splitlines()[0]} {REASONS}"
        ) from reason


def _session(program: Any) -> Any:
    try:
        import onnxruntime
    except ImportError as reason:
        raise InputError(_INSTALL) from reason
    return onnxruntime.InferenceSession(
        program.model_proto.SerializeToString(),
        session_options(torch.get_num_threads()),
        providers=["CPUExecutionProvider"],
    )


def _run(session: Any, inputs: list[Tensor]) -> list[Tensor]:
    names = [argument.name for argument in session.get_inputs()]
    feed = {name: tensor.contiguous().numpy() for name, tensor in zip(names, inputs, strict=True)}
    return [torch.from_numpy(found) for found in session.run(None, feed)]
