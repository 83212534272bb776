"""Building a network from the choices of the estimator."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from numbers import Integral
from pathlib import Path
from typing import Any

from torch import nn

from ..diffusion import NoiseSchedule
from ..errors import InputError
from .backbone import build_backbone
from .denoiser import ContextFusion, Denoiser
from .network import DiffMICNetwork, DiffusionSettings
from .prior import DualGranularityPrior
from .regions import FeatureWindows, PixelCrops, max_regions, window_cells


@dataclass(frozen=True)
class Architecture:
    """The choices that make a network; names and meanings are the estimator's.

    Attributes
    ----------
    backbone : str or nn.Module
        Encodes the image; also gives the global map where ``prior_backbone`` is None.
    prior_backbone : str, nn.Module or None
        A network of its own for the global map.
    region_backbone : str, nn.Module or None
        Network for crops of pixels (two copies: one for the prior, one for the context); None:
        regions are windows of the global map's backbone.
    pretrained : bool, str or Path
        Source of weights; a file is for ``backbone`` alone, and True is meant for the others.
    image_size : int
        Side of the network's input, in pixels.
    n_regions, region_size : int or "auto"
        Auto: the smaller of 6 and the cells of the saliency map; the pixels of one such cell.
    """

    backbone: str | nn.Module
    prior_backbone: str | nn.Module | None
    region_backbone: str | nn.Module | None
    pretrained: bool | str | Path
    image_size: int
    n_regions: int | str
    region_size: int | str
    feature_dim: int
    num_train_timesteps: int
    context_dropout: float = 0.0


def architecture_from(parameters: Mapping[str, Any], **resolved: Any) -> Architecture:
    """An :class:`Architecture` from the estimator's parameters; ``resolved`` ones come first."""
    choices = {**parameters, **resolved}
    return Architecture(**{field.name: choices[field.name] for field in fields(Architecture)})


def build_network(
    architecture: Architecture, num_classes: int, *, multilabel: bool, settings: DiffusionSettings
) -> DiffMICNetwork:
    """A :class:`DiffMICNetwork` with fresh heads; see :class:`Architecture`."""
    a = architecture
    image_size = (a.image_size, a.image_size)
    encoder = build_backbone(a.backbone, image_size=a.image_size, pretrained=a.pretrained)
    others_pretrained = bool(a.pretrained)
    if a.prior_backbone is None:
        global_backbone, image_encoder = encoder, None
    else:
        image_encoder = encoder
        global_backbone = build_backbone(
            a.prior_backbone, image_size=a.image_size, pretrained=others_pretrained
        )
    map_size = global_backbone.map_size
    region_size = _region_size(a, map_size)

    regions: FeatureWindows | PixelCrops
    if a.region_backbone is None:
        regions, region_encoder = FeatureWindows(global_backbone, region_size, image_size), None
    else:
        regions, region_encoder = (
            PixelCrops(
                build_backbone(
                    a.region_backbone, image_size=region_size[0], pretrained=others_pretrained
                ),
                region_size,
                image_size,
                map_size,
            )
            for _ in range(2)
        )
    prior = DualGranularityPrior(
        global_backbone,
        regions,
        num_classes,
        n_regions=_n_regions(a, map_size, window_cells(region_size, image_size, map_size)),
        region_size=region_size,
        image_size=image_size,
    )
    context = ContextFusion(
        encoder.channels,
        regions.channels,
        prior.n_regions,
        a.feature_dim,
        dropout=a.context_dropout,
    )
    return DiffMICNetwork(
        prior,
        image_encoder,
        region_encoder,
        context,
        Denoiser(num_classes, a.feature_dim, a.num_train_timesteps),
        NoiseSchedule(a.num_train_timesteps),
        settings=settings,
        multilabel=multilabel,
    )


def _n_regions(
    architecture: Architecture, map_size: tuple[int, int], window: tuple[int, int]
) -> int:
    """K: explicit, or the smaller of 6 and what fits."""
    if architecture.n_regions == "auto":
        return min(6, max_regions(map_size, window))
    if not isinstance(architecture.n_regions, Integral):
        raise InputError(
            f"n_regions is {architecture.n_regions!r}; it must be 'auto' or an integer."
        )
    return int(architecture.n_regions)


def _region_size(architecture: Architecture, map_size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of a region, in pixels."""
    size, image_size = architecture.region_size, architecture.image_size
    if size == "auto":
        return max(1, round(image_size / map_size[0])), max(1, round(image_size / map_size[1]))
    if not isinstance(size, Integral) or not 1 <= size <= image_size:
        raise InputError(
            f"region_size is {size!r}; it must be 'auto' or a number of pixels between 1 and the "
            f"image_size of {image_size}."
        )
    return int(size), int(size)


def carry_over(learnt: DiffMICNetwork, network: DiffMICNetwork, *, heads: bool) -> None:
    """Give a network what another has learnt: its backbones and, if wanted, all else.

    Raises
    ------
    InputError
        The networks are not built alike.
    """
    tensors = learnt.state_dict()
    if not heads:
        tensors = {name: tensor for name, tensor in tensors.items() if "backbone." in name}
        tensors |= {n: t for n, t in learnt.state_dict().items() if n.startswith("image_encoder.")}
    own = network.state_dict()
    unfit = [name for name, t in tensors.items() if name not in own or own[name].shape != t.shape]
    if unfit:
        raise InputError(
            f"warm_start cannot go on from the fitted network: {unfit[:3]} differ. Leave the "
            "backbones (and for the same classes the other sizes) as they were, or set "
            "warm_start=False."
        )
    network.load_state_dict(tensors, strict=False)
