"""Exported graphs with weights of 16 or 8 bits, compared with the graph in float32."""

import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data import PreparedImages, PreparedStream
from ..errors import InputError
from ..exported import session_options

PRECISIONS = ("float32", "float16", "int8")
Feed = Mapping[str, NDArray[Any]]  # a batch of images by the names of the graph's inputs
Weights = Mapping[str, NDArray[Any]]

_INSTALL = 'What writes and runs ONNX files is not installed: pip install "diffmic[onnx]".'
_BATCH = 8
_LARGE = 256  # numbers in a tensor that is worth storing in half precision


def reduced(
    graph: Any,
    precision: str,
    images: Sequence[Feed],
    tolerance: float,
    trained: Weights | None = None,
) -> tuple[Any, float]:
    """A graph with weights of 16 or 8 bits, and the largest difference of a probability.

    ``"float16"``: all weights are stored in half precision, computed with in float32. ``"int8"``:
    static quantization of the convolutions, weights for each channel, activations over the images;
    all else, the first convolution and the class maps stay in float32.

    Parameters
    ----------
    graph : onnx.ModelProto
        Graph in float32.
    precision : {"float16", "int8"}
    images : sequence of dict of str to ndarray
        Batches on which activations are calibrated, and on which both graphs are compared.
    tolerance : float
        Largest difference that is accepted.
    trained : mapping of str to ndarray, or None
        Weights of the network by the names that they have in the graph.

    Returns
    -------
    onnx.ModelProto
    float
        Largest difference of a probability, of the diffusion or of the prior.

    Raises
    ------
    InputError
        ONNX Runtime is missing, there are no convolutions, or the difference is too large.
    """
    try:
        found = (
            _half(graph, trained or {}) if precision == "float16" else _eight_bits(graph, images)
        )
        differences = _differences(graph, found, images)
    except ImportError as reason:
        raise InputError(_INSTALL) from reason
    largest = float(differences.max())
    if not largest <= tolerance:  # NaN is too large, too
        over, n = int((~(differences <= tolerance)).sum()), len(differences)
        other = ", use precision='float16'" if precision == "int8" else ""
        raise InputError(
            f"In {precision} the probabilities differ from those in float32 by more than "
            f"{tolerance:g} for {over} of {n} images, by {largest:.3g} at most (median "
            f"{float(np.median(differences)):.2g}). Nothing was written. Export in float32{other}, "
            "or accept this by a larger tolerance."
        )
    return found, largest


def feeds(
    prepared: PreparedImages | PreparedStream, inputs: Sequence[str], *, floats: bool
) -> list[Feed]:
    """Batches of images as a graph takes them: uint8, or float in 0–1."""
    found: list[Feed] = []
    for batch in prepared.batches(_BATCH):
        every = {"images": batch["image"].numpy()}
        if "originals" in inputs:
            every["originals"] = np.stack([each.numpy() for each in prepared.to_augment(batch)])
        found.append({name: _of_type(pixels, floats=floats) for name, pixels in every.items()})
    return found


def _of_type(pixels: NDArray[Any], *, floats: bool) -> NDArray[Any]:
    if floats:
        is_float = pixels.dtype.kind == "f"
        return pixels.astype(np.float32) / (1 if is_float else 255)
    return pixels if pixels.dtype == np.uint8 else np.rint(pixels * 255).astype(np.uint8)


def _half(graph: Any, trained: Weights) -> Any:
    """All large weights in half precision; every computation stays in float32.

    Weights that the exporter has multiplied by a factor for each output channel, which are those of
    a batch norm, are stored as they were trained, beside their factors: what a fit rounded to half
    precision then stays exactly what it is. ONNX Runtime computes the product once, when it loads.
    """
    import onnx
    from onnx import helper, numpy_helper

    found = onnx.ModelProto()
    found.CopyFrom(graph)
    others, nodes = [], []

    def node(kind: str, inputs: list[str], name: str, **attributes: Any) -> None:
        nodes.append(helper.make_node(kind, inputs, [name], name=f"{name}_{kind}", **attributes))

    for tensor in list(found.graph.initializer):
        name = tensor.name
        if tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        if len(tensor.dims) < 2 or math.prod(tensor.dims) < _LARGE:  # offsets decide, and are small
            continue
        values = numpy_helper.to_array(tensor)
        factors = _factors(values, trained.get(name))
        whole = name if factors is None else f"{name}_trained"
        if factors is not None:
            values = trained[name]
            others.append(numpy_helper.from_array(factors, f"{name}_factors"))
        with np.errstate(over="ignore"):  # it is found in the comparison
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
        node("Cast", [f"{name}_half"], whole, to=onnx.TensorProto.FLOAT)
        if factors is not None:
            node("Mul", [whole, f"{name}_factors"], name)
    nodes += found.graph.node
    del found.graph.node[:]
    found.graph.node.extend(nodes)
    found.graph.initializer.extend(others)
    return found


def _factors(folded: NDArray[Any], trained: NDArray[Any] | None) -> NDArray[np.float32] | None:
    """Factor of each output channel by which trained weights were multiplied; None: by none."""
    if trained is None or trained.shape != folded.shape or folded.ndim < 2:
        return None
    axes = tuple(range(1, folded.ndim))
    square = (trained.astype(float) ** 2).sum(axis=axes, keepdims=True)
    factors = (trained * folded.astype(float)).sum(axis=axes, keepdims=True) / (square + 1e-300)
    if np.abs(trained * factors - folded).max() > 1e-5 * np.abs(folded).max():
        return None
    found: NDArray[np.float32] = factors.astype(np.float32)
    return found


def _eight_bits(graph: Any, images: Sequence[Feed]) -> Any:
    """Convolutions quantized, but for the first one and that of the class maps."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(images)

        def get_next(self) -> Feed | None:
            return next(self.left, None)

    with tempfile.TemporaryDirectory() as folder:
        # By files: a graph that is passed itself would be changed.
        whole, simple, quantized = (str(Path(folder) / f"{n}.onnx") for n in range(3))
        onnx.save(graph, whole)
        quant_pre_process(whole, simple, skip_symbolic_shape=True)
        convolutions = [n for n in onnx.load(simple).graph.node if n.op_type == "Conv"]
        chosen = [n.name for n in convolutions[1:] if not n.input[1].endswith("saliency.weight")]
        if not chosen:
            raise InputError(
                "The network has no convolutions but the first one, and only convolutions are "
                "quantized. Export in float16."
            )
        quantize_static(
            simple,
            quantized,
            Reader(),
            per_channel=True,
            nodes_to_quantize=chosen,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(quantized)


def _differences(graph: Any, other: Any, images: Sequence[Feed]) -> NDArray[np.float64]:
    """Largest difference of a probability of each image."""
    import onnxruntime

    sessions = [
        onnxruntime.InferenceSession(
            each.SerializeToString(), session_options(), providers=["CPUExecutionProvider"]
        )
        for each in (graph, other)
    ]
    found = []
    for batch in images:
        expected, given = (np.stack(session.run(None, dict(batch))) for session in sessions)
        found.append(np.abs(given - expected).max(axis=(0, 2)))
    return np.concatenate(found).astype(np.float64)
