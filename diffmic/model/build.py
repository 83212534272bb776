"""Construction of a network from its plan."""

from dataclasses import replace
from pathlib import Path

from ..diffusion import LabelMapProcess, NoiseSchedule
from ..errors import InputError
from .architecture import Architecture, NetworkPlan
from .backbone import build_backbone
from .denoiser import ContextFusion, Denoiser
from .network import DiffMICNetwork
from .prior import DualGranularityPrior
from .regions import FeatureWindows, PixelCrops, max_regions, window_cells


def build_network(plan: NetworkPlan, *, pretrained: bool | str | Path = False) -> DiffMICNetwork:
    """Build a :class:`DiffMICNetwork` with newly initialised heads.

    Parameters
    ----------
    plan : NetworkPlan
        Plan of the network.
    pretrained : bool, str or Path
        Pretrained weights of the backbones; a file applies to ``backbone`` alone and means True for
        the others.

    Raises
    ------
    InputError, PretrainedWeightsError
        Sizes or backbones do not fit together, or weights cannot be loaded.
    """
    architecture, side = plan.architecture, plan.image_size
    image_size = (side, side)
    encoder = build_backbone(plan.backbone, image_size=side, pretrained=pretrained)
    others_pretrained = bool(pretrained)
    if architecture.prior_backbone is None:
        global_backbone, image_encoder = encoder, None
    else:
        image_encoder = encoder
        global_backbone = build_backbone(
            architecture.prior_backbone, image_size=side, pretrained=others_pretrained
        )
    map_size = global_backbone.map_size
    region_size = _region_size(architecture, side, map_size)

    regions: FeatureWindows | PixelCrops
    if architecture.region_backbone is None:
        regions, region_encoder = FeatureWindows(global_backbone, region_size, image_size), None
    else:
        regions, region_encoder = (
            PixelCrops(
                build_backbone(
                    architecture.region_backbone,
                    image_size=region_size[0],
                    pretrained=others_pretrained,
                ),
                region_size,
                image_size,
                map_size,
            )
            for _ in range(2)
        )
    window = window_cells(region_size, image_size, map_size)
    prior = DualGranularityPrior(
        global_backbone,
        regions,
        plan.num_classes,
        n_regions=_n_regions(architecture, map_size, window),
        region_size=region_size,
        image_size=image_size,
    )
    context = ContextFusion(
        encoder.channels,
        regions.channels,
        prior.n_regions,
        architecture.feature_dim,
        dropout=plan.context_dropout,
    )
    settings, n_timesteps = plan.diffusion, architecture.num_train_timesteps
    return DiffMICNetwork(
        prior,
        image_encoder,
        region_encoder,
        context,
        Denoiser(plan.num_classes, architecture.feature_dim, n_timesteps),
        LabelMapProcess(
            NoiseSchedule(n_timesteps),
            start=settings.start,
            timestep_spacing=settings.timestep_spacing,
            sampler=settings.sampler,
        ),
        settings=settings,
        task=plan.task,
    )


def resolved(plan: NetworkPlan, network: DiffMICNetwork) -> NetworkPlan:
    """The plan of a network with every "auto" replaced by its value in the network."""
    architecture = replace(
        plan.architecture,
        n_regions=network.n_regions,
        region_size=network.prior.region_size[0],
    )
    return replace(plan, architecture=architecture)


def _n_regions(
    architecture: Architecture, map_size: tuple[int, int], window: tuple[int, int]
) -> int:
    """K: the number requested, or for "auto" the smaller of 6 and the number that fits."""
    if architecture.n_regions == "auto":
        return min(6, max_regions(map_size, window))
    return int(architecture.n_regions)


def _region_size(
    architecture: Architecture, image_size: int, map_size: tuple[int, int]
) -> tuple[int, int]:
    """Height and width of a region, in pixels."""
    size = architecture.region_size
    if size == "auto":
        return max(1, round(image_size / map_size[0])), max(1, round(image_size / map_size[1]))
    if size > image_size:
        raise InputError(
            f"region_size is {size!r}; it must be 'auto' or a number of pixels between 1 and the "
            f"image_size of {image_size}."
        )
    return int(size), int(size)


def carry_over(learnt: DiffMICNetwork, network: DiffMICNetwork, *, heads: bool) -> None:
    """Copy the weights of a trained network: those of the backbones, and the heads if requested.

    Parameters
    ----------
    learnt, network : DiffMICNetwork
        Source and target.
    heads : bool
        Whether all weights are copied, or only those of the backbones.

    Raises
    ------
    InputError
        The architectures of the networks differ.
    """
    tensors = learnt.state_dict()
    if not heads:
        tensors = {name: tensor for name, tensor in tensors.items() if "backbone." in name}
        tensors |= {n: t for n, t in learnt.state_dict().items() if n.startswith("image_encoder.")}
    own = network.state_dict()
    unfit = [name for name, t in tensors.items() if name not in own or own[name].shape != t.shape]
    if unfit:
        raise InputError(
            f"warm_start cannot continue from the fitted network: {unfit[:3]} differ. Keep the "
            "backbones (and, if the classes are the same, the other sizes) as they were, or set "
            "warm_start=False."
        )
    network.load_state_dict(tensors, strict=False)
