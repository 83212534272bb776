"""Building an engine: rewritten parts are tested here, once, and never at a prediction."""

import copy
import os

import torch

from ..errors import InputError, warn_user
from ..inference import Engine, inference_dtype
from ..model import Backbone, Denoiser, DiffMICNetwork
from .denoiser import PreparedDenoiser
from .folding import folded

ENGINES = ("auto", "plain")


def prediction_engine(
    network: DiffMICNetwork, kind: str = "auto", *, precision: str = "auto"
) -> Engine:
    """Build the engine with which predictions run a trained network.

    Parameters
    ----------
    network : DiffMICNetwork
        Trained network; its weights are not changed. A rewritten copy has its own weights, so the
        engine must be rebuilt when those of the network change.
    kind : {"auto", "plain"}
        Type of engine. ``"plain"``: the network itself, nothing rewritten. ``"auto"``: a copy with
        batch norms folded into convolutions, and other rewritings that keep the predictions up to
        rounding.
    precision : {"auto", "fp32", "bf16", "fp16"}
        Numerical precision; half precision applies to the backbones and to wide layers of the
        denoiser.

    Raises
    ------
    InputError
        Unknown kind.
    """
    if kind not in ENGINES:
        raise InputError(
            f"engine is {kind!r}; give one of {list(ENGINES)}, or compile('onnxruntime')."
        )
    dtype = inference_dtype(precision)
    if kind == "plain":
        return Engine(network.eval(), kind, dtype)
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
