"""Architecture and diffusion settings of a network, as plain values that can be saved."""

from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal, get_args, get_type_hints

from torch import nn

from ..errors import InputError
from ..tasks import Task

_WHOLE = ("feature_dim", "num_train_timesteps")
_WHOLE_OR_AUTO = ("n_regions", "region_size")


@dataclass(frozen=True)
class Architecture:
    """Architecture of the network apart from its image encoder, the estimator's ``backbone``.

    Attributes
    ----------
    prior_backbone : str, nn.Module or None
        Separate backbone for the saliency map of the whole image, as in the paper; None: the
        image encoder is shared.
    region_backbone : str, nn.Module or None
        Backbone for pixel crops, as in the paper (two copies: one for the prior, one for the
        context); None: regions are windows of the finer feature map of the saliency backbone, at
        almost no cost.
    n_regions : int or "auto"
        K, the number of regions and the side of the label map. Auto: 6, or as many as fit if fewer.
    region_size : int or "auto"
        Side of a region, in pixels of the network's input. Auto: one cell of the saliency map,
        which is 32 pixels for most backbones.
    feature_dim : int
        F, the width of the denoiser.
    num_train_timesteps : int
        T, the number of timesteps of the noise schedule.
    """

    prior_backbone: str | nn.Module | None = None
    region_backbone: str | nn.Module | None = None
    n_regions: int | Literal["auto"] = "auto"
    region_size: int | Literal["auto"] = "auto"
    feature_dim: int = 256
    num_train_timesteps: int = 1000

    def __post_init__(self) -> None:
        for name in (*_WHOLE, *_WHOLE_OR_AUTO):
            value = getattr(self, name)
            auto = name in _WHOLE_OR_AUTO and isinstance(value, str) and value == "auto"
            whole = isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1
            if not auto and not whole:
                also = "'auto' or " if name in _WHOLE_OR_AUTO else ""
                raise InputError(f"{name} is {value!r}; it must be {also}an integer of at least 1.")


ARCHITECTURES = {
    # One shared backbone, regions as windows of its feature map, a narrow denoiser.
    "default": Architecture(),
    # Pixel crops with separate backbones, a wide denoiser (Yang et al., 2025).
    "paper-v2": Architecture(
        prior_backbone="resnet18",
        region_backbone="resnet18",
        n_regions=6,
        region_size=32,
        feature_dim=6144,
    ),
}


def resolve_architecture(architecture: Any) -> Architecture:
    """Architecture from its name; an :class:`Architecture` is returned unchanged.

    Raises
    ------
    InputError
        An unknown name.
    """
    if isinstance(architecture, Architecture):
        return architecture
    if not isinstance(architecture, str) or architecture not in ARCHITECTURES:
        raise InputError(
            f"architecture is {architecture!r}; give one of {sorted(ARCHITECTURES)} or a "
            "diffmic.model.Architecture."
        )
    return ARCHITECTURES[architecture]


@dataclass(frozen=True)
class DiffusionSettings:
    """Settings of the guidance, denoising and sampling of label maps.

    Attributes
    ----------
    prediction_type : {"probability", "noise", "v", "label"}
        Prediction type of the denoiser; ``"probability"``: logits of the clean label, trained with
        cross-entropy.
    guidance : {"logits", "probabilities"}
        Scale of the prior in the guidance map.
    start : {"gaussian", "uniform"}
        Initial label map of sampling: Gaussian noise for each distance, or, as in the authors'
        code, the guidance map of two uniform draws.
    timestep_spacing : {"trailing", "leading"}
        Spacing of the timesteps of the sampler.
    sampler : {"ddim", "dpm-solver++"}
        Sampling algorithm.
    readout : {"mean", "last"}
        Label map that gives the scores: the mean of the clean-label estimates of all steps, or
        the final map. Each estimate is a posterior mean, whereas the final map of a single draw is
        close to one-hot, so averaging a few draws cannot represent small probabilities.
    """

    prediction_type: Literal["probability", "noise", "v", "label"] = "probability"
    guidance: Literal["logits", "probabilities"] = "probabilities"
    start: Literal["gaussian", "uniform"] = "gaussian"
    timestep_spacing: Literal["trailing", "leading"] = "trailing"
    sampler: Literal["ddim", "dpm-solver++"] = "ddim"
    readout: Literal["mean", "last"] = "mean"

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            if getattr(self, name) not in get_args(kind):
                raise InputError(
                    f"{name} is {getattr(self, name)!r}; give one of {list(get_args(kind))}."
                )


@dataclass(frozen=True)
class NetworkPlan:
    """Plan from which a network is built.

    Attributes
    ----------
    backbone : str or nn.Module
        Image encoder; it also computes the saliency map if there is no ``prior_backbone``.
    architecture : Architecture
        Other parts of the network.
    image_size : int
        Side of the network's input, in pixels.
    num_classes : int
        C, the number of classes.
    task : Task
        Type of task.
    diffusion : DiffusionSettings
        Settings of the diffusion process.
    context_dropout : float
        Dropout rate of the context in training.
    """

    backbone: str | nn.Module
    architecture: Architecture
    image_size: int
    num_classes: int
    task: Task
    diffusion: DiffusionSettings
    context_dropout: float = 0.0
