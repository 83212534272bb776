"""Building an engine: rewritten parts are tested here, once, and never at a prediction."""

import copy
import os

import torch

from ..errors import InputError, warn_user
from ..inference import Engine, inference_dtype
from ..model import Backbone, Denoiser, DiffMICNetwork
from .denoiser import PreparedDenoiser
from .folding import folded

ENGINES = ("auto", "plain", "onnxruntime")


def prediction_engine(
    network: DiffMICNetwork,
    kind: str = "auto",
    *,
    precision: str = "auto",
    num_steps: int | None = None,
) -> Engine:
    """Build the engine with which predictions run a trained network.

    Parameters
    ----------
    network : DiffMICNetwork
        Trained network; its weights are not changed. A rewritten copy has its own weights, so the
        engine must be rebuilt when those of the network change.
    kind : {"auto", "plain", "onnxruntime"}
        Type of engine. ``"plain"``: the network itself, nothing rewritten. ``"auto"``: a copy with
        batch norms folded into convolutions, and other rewritings that keep the predictions up to
        rounding. ``"onnxruntime"``: the network exported and run by ONNX Runtime, on a CPU.
    precision : {"auto", "fp32", "bf16", "fp16"}
        Numerical precision; half precision applies to the backbones and to wide layers of the
        denoiser.
    num_steps : int or None
        Number of sampler steps that ONNX Runtime is prepared for; others are run by torch.

    Raises
    ------
    InputError
        Unknown kind, or ONNX Runtime cannot run the network.
    """
    if kind not in ENGINES:
        raise InputError(f"engine is {kind!r}; give one of {list(ENGINES)}.")
    dtype = inference_dtype(precision)
    if kind == "plain":
        return Engine(network.eval(), kind, dtype)
    if kind == "onnxruntime":
        from .onnx import onnx_engine  # imported on use, as the exporter takes a second

        return onnx_engine(network, () if num_steps is None else (num_steps,))
    try:
        return Engine(_rewritten(network, dtype), kind)
    except Exception as reason:  # too little memory, or a network that cannot be copied
        warn_user(
            f"The network could not be rewritten for faster predictions ({type(reason).__name__}: "
            f"{reason}); predictions run it as it is."
        )
        return Engine(network.eval(), "plain", dtype)


def usual_engine() -> str:
    """Engine that fits and loading build: ``DIFFMIC_ENGINE``, or ``"auto"``."""
    return os.environ.get("DIFFMIC_ENGINE", "auto")


def _rewritten(network: DiffMICNetwork, dtype: torch.dtype) -> DiffMICNetwork:
    """A copy of a network with rewritten backbones and denoiser."""
    rewritten = copy.deepcopy(network).eval().requires_grad_(False)
    for module in list(rewritten.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Backbone):
                setattr(module, name, folded(child, dtype))
    if isinstance(rewritten.denoiser, Denoiser):  # else it is the user's own, and stays as it is
        rewritten.denoiser = PreparedDenoiser(rewritten.denoiser, dtype)  # type: ignore[assignment]
    return rewritten
