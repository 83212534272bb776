"""Construction of a network from its plan."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..diffusion import DriftProcess, LabelMapProcess, NoiseSchedule, Process
from ..errors import BackboneError, InputError
from .architecture import LARGEST_ZOOM, Architecture, NetworkPlan
from .backbone import FINEST, Backbone, build_backbone
from .denoiser import ContextFusion, Denoiser
from .network import DiffMICNetwork
from .own import OwnDenoiser, OwnPrior
from .own_process import OwnProcess, OwnSampler, try_process
from .prior import DualGranularityPrior
from .regions import FeatureWindows, PixelCrops, Size, max_regions, window_cells
from .vector import ImageContext, VectorDenoiser, VectorNetwork
from .zoom import ZoomedCrops, zoomed_window

FINE_CELLS = 8  # least side of the map on which regions are chosen, in cells
READ_CELLS = 4  # least side of the layer that is interpolated to that: deep layers tell the most
N_REGIONS, FEWEST_REGIONS = 6, 4  # fewer only where no more fit
N_ZOOMED = 4
ZOOM_FINER = 2  # zoomed regions are chosen on a grid so many times finer than the finer map
REGION_SIDE = 0.21  # of the side of the image; six regions cover a quarter of it
COVERED = 0.3  # largest share of the image that all regions cover together


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
    architecture = plan.architecture
    if architecture.prior is not None:
        own = OwnPrior(architecture.prior, plan)
        return _assembled(plan, own, own.channels)
    fine = architecture.region_map != "coarse"
    options: dict[str, Any] = {
        "image_size": plan.image_size,
        "fine_cells": {"upsampled": READ_CELLS, "fine": FINE_CELLS}.get(architecture.region_map, 1),
        "any_size": architecture.zooms,
    }
    encoder = build_backbone(plan.backbone, pretrained=pretrained, **options)
    others_pretrained = bool(pretrained)
    global_backbone, image_encoder = encoder, None
    if (name := architecture.prior_backbone) is not None:
        image_encoder = encoder
        global_backbone = build_backbone(name, pretrained=others_pretrained, **options)
    map_size = global_backbone.fine_size if fine else global_backbone.map_size
    if architecture.region_map == "upsampled":
        map_size = _upsampled(map_size, plan.image_size)
    input_size = plan.input_size, plan.input_size

    regions: FeatureWindows | PixelCrops | ZoomedCrops
    region_encoder = None
    if architecture.zooms:
        if fine:
            map_size = map_size[0] * ZOOM_FINER, map_size[1] * ZOOM_FINER
        tied, region_size = _zoomed(plan, global_backbone, map_size)
        window = zoomed_window(region_size, input_size, map_size)
        regions = ZoomedCrops(tied, region_size, input_size, map_size, window)
    else:
        region_size = _region_size(plan, map_size)
        window = window_cells(region_size, input_size, map_size)
        if architecture.region_backbone is None:
            read = map_size if fine else global_backbone.fine_size
            regions = FeatureWindows(global_backbone, region_size, input_size, map_size, read)
        else:
            crops = [
                PixelCrops(
                    build_backbone(
                        architecture.region_backbone,
                        image_size=region_size[0],
                        pretrained=others_pretrained,
                    ),
                    region_size,
                    input_size,
                    map_size,
                )
                for _ in range(1 + plan.diffusion.context_of_regions)
            ]
            regions, region_encoder = crops[0], crops[1] if len(crops) > 1 else None
    prior = DualGranularityPrior(
        global_backbone,
        regions,
        plan.num_classes,
        n_regions=_n_regions(architecture, map_size, window),
        window=window,
        task=plan.task,
        importance=architecture.region_importance,
        finder=architecture.region_finder,
    )
    return _assembled(plan, prior, encoder.channels, image_encoder, region_encoder)


def _assembled(
    plan: NetworkPlan,
    prior: DualGranularityPrior | OwnPrior,
    image_channels: int,
    image_encoder: Backbone | None = None,
    region_encoder: PixelCrops | None = None,
) -> DiffMICNetwork:
    """The network of DiffMIC-v2, or that of v1 (a vector, and a context of the image alone)."""
    settings, width, n_regions = plan.diffusion, plan.architecture.feature_dim, prior.n_regions
    kind: type[DiffMICNetwork]
    context: ImageContext | ContextFusion
    process: Process
    if settings.process == "drift":
        kind = VectorNetwork
        context = ImageContext(image_channels, width, dropout=plan.context_dropout)
        denoiser = _denoiser(plan, n_regions, VectorDenoiser, positions=False)
        schedule = NoiseSchedule(plan.architecture.num_train_timesteps)
        process = DriftProcess(schedule, timestep_spacing=settings.timestep_spacing)
    else:
        kind, channels = DiffMICNetwork, (image_channels, prior.regions.channels)
        context = ContextFusion(*channels, n_regions, width, dropout=plan.context_dropout)
        denoiser, process = _denoiser(plan, n_regions, Denoiser), _process(plan, n_regions)
    parts = prior, image_encoder, region_encoder, context, denoiser, process
    return kind(*parts, settings=settings, task=plan.task)


def _process(plan: NetworkPlan, n_regions: int) -> Process:
    """Process of label maps; one of one's own, or its sampler, is tried out."""
    settings, process = plan.diffusion, plan.diffusion.process
    role, part = ("sampler", settings.sampler) if isinstance(process, str) else ("process", process)
    made: OwnProcess | LabelMapProcess
    if role == "process":
        made = OwnProcess(part, plan)
    else:
        made = LabelMapProcess(
            NoiseSchedule(plan.architecture.num_train_timesteps),
            start=settings.start,
            timestep_spacing=settings.timestep_spacing,
            sampler=part if isinstance(part, str) else OwnSampler(part),
        )
    if not isinstance(part, str) and torch.get_default_device().type != "meta":
        try_process(made, role, part, n_regions, plan.num_classes)
    return made


def _denoiser(
    plan: NetworkPlan, n_regions: int, usual: type[Denoiser], *, positions: bool = True
) -> Denoiser | OwnDenoiser:
    """New denoiser: that of the method, or one's own, which is tried out."""
    width, n_timesteps = plan.architecture.feature_dim, plan.architecture.num_train_timesteps
    if plan.architecture.denoiser is None:
        return usual(plan.num_classes, width, n_timesteps)
    own = OwnDenoiser(plan.architecture.denoiser, plan, positions=positions)
    if torch.get_default_device().type != "meta":
        own.try_out(n_regions, width, n_timesteps)
    return own


def resolved(plan: NetworkPlan, network: DiffMICNetwork) -> NetworkPlan:
    """The plan of a network with every "auto" replaced by its value in the network."""
    regions = network.prior.regions
    if isinstance(regions, ZoomedCrops):
        side = regions.region_size[0]
    else:
        side = _region_size(plan, regions.map_size)[0]
    architecture = replace(plan.architecture, n_regions=network.n_regions, region_size=side)
    return replace(plan, architecture=architecture)


def zoom_size(plan: NetworkPlan, longest_side: int) -> int:
    """Side to which images are resized for a zoom, in pixels, given the longest side of an image.

    At most so large that the regions, each chosen by a cell of the saliency map, cover their cells,
    and at least the side of the whole image as the backbone sees it.
    """
    size = plan.architecture.zoom_size
    if size != "auto":
        return int(size)
    crop = plan.architecture.region_size
    crop = _zoomed_region(plan.image_size) if crop == "auto" else int(crop)
    # Of the map on which most backbones choose regions.
    cells = max(FINE_CELLS, round(plan.image_size / 16))
    return max(plan.image_size, crop, min(longest_side, crop * cells, LARGEST_ZOOM))


def _upsampled(size: Size, image_size: int) -> Size:
    """Size of a map whose sides are doubled until they have enough cells to choose from.

    A single cell is all alike, and cells of fewer than :data:`FINEST` pixels show nothing.
    """
    while 1 < min(size) < FINE_CELLS and image_size >= 2 * FINEST * max(size):
        size = 2 * size[0], 2 * size[1]
    return size


def _n_regions(architecture: Architecture, map_size: Size, window: Size) -> int:
    """K: the number requested, or for "auto" 6, or fewer that fit and leave most uncovered."""
    if architecture.n_regions != "auto":
        return int(architecture.n_regions)
    room = max_regions(map_size, window)
    if architecture.zooms:
        return min(N_ZOOMED, room)
    if architecture.region_map != "coarse":
        uncovering = int(COVERED * math.prod(map_size) / math.prod(window))
        room = min(room, max(FEWEST_REGIONS, uncovering))
    return min(N_REGIONS, room)


def _region_size(plan: NetworkPlan, map_size: Size) -> Size:
    """Height and width of a region, in pixels of the image from which it is taken."""
    size, side = plan.architecture.region_size, plan.input_size
    if size == "auto":
        share = REGION_SIDE if plan.architecture.region_map != "coarse" else 0.0
        height, width = (max(1, round(max(1, round(n * share)) * side / n)) for n in map_size)
        return height, width
    return _checked(int(size), side, "image_size")


def _checked(size: int, side: int, whole: str) -> Size:
    if size > side:
        raise InputError(
            f"region_size is {size!r}; it must be 'auto' or a number of pixels between 1 and the "
            f"{whole} of {side}."
        )
    return size, size


def _zoomed(plan: NetworkPlan, backbone: Backbone, map_size: Size) -> tuple[Backbone, Size]:
    """Backbone for zoomed regions, and their height and width, in pixels of the zoom.

    "auto" takes the first of several sizes that covers the cell that chooses it and that the
    backbone takes.
    """
    size, side = plan.architecture.region_size, plan.input_size
    if size == "auto":
        cell = max(-(-side // n) for n in map_size)
        usual = _zoomed_region(plan.image_size)
        wanted = max(usual, 32 * math.ceil(cell / 32))
        # Patches of 14 pixels, and windows that fit the backbone's own size alone.
        sizes = [wanted, 14 * math.ceil(max(usual - 13, cell) / 14), plan.image_size]
        sizes = [min(one, side) for one in sizes if one >= cell]
    else:
        sizes = [_checked(int(size), side, "zoom_size")[0]]
    for number, one in enumerate(sizes, start=1):
        try:
            return backbone.tied(one), (one, one)
        except BackboneError as reason:
            if number == len(sizes):
                raise BackboneError(
                    f"Zoomed regions of {one} pixels pass through the backbone of the whole image, "
                    f"which does not take them: {reason} Set Architecture(region_size=...) to a "
                    f"size that it takes, such as {plan.image_size}."
                ) from reason
    raise AssertionError


def _zoomed_region(image_size: int) -> int:
    """Side of a zoomed region, in pixels: four cost 1.3 times as much as the whole image."""
    return max(32, 32 * round(4 * image_size / 7 / 32))


def same_regions(one: DiffMICNetwork, other: DiffMICNetwork) -> bool:
    """Whether the regions of two networks are read in the same way."""
    return type(one.prior.regions) is type(other.prior.regions)


def carry_over(learnt: DiffMICNetwork, network: DiffMICNetwork, *, heads: bool) -> None:
    """Copy the weights of a trained network: those of the backbones, and the heads if requested.

    Where one of the networks zooms and the other does not, backbones for regions are not copied: a
    zoom gets the weights and the statistics of the backbone of the whole image.

    Parameters
    ----------
    learnt, network : DiffMICNetwork
        Source and target.
    heads : bool
        Whether all weights are copied, or only those of the backbones.

    Raises
    ------
    InputError
        The architectures of the networks differ, or their processes while the heads are copied.
    """
    before, now = learnt.settings.process, network.settings.process
    if heads and before != now:
        raise InputError(
            f"warm_start cannot continue from the fitted network: its diffusion is of the process "
            f"{before!r}, and that of the recipe of {now!r}. Keep the recipe, or set "
            "warm_start=False."
        )
    tensors = learnt.state_dict()
    if not heads:
        tensors = {name: tensor for name, tensor in tensors.items() if "backbone." in name}
        tensors |= {n: t for n, t in learnt.state_dict().items() if n.startswith("image_encoder.")}
    zooms = [isinstance(net.prior.regions, ZoomedCrops) for net in (learnt, network)]
    if zooms[0] != zooms[1]:
        whole, crops = "prior.backbone.", "prior.regions.backbone."
        tensors = {
            name: tensor
            for name, tensor in tensors.items()
            if not name.startswith((crops, "region_encoder."))
        }
        if zooms[1]:
            tensors |= {
                crops + name.removeprefix(whole): tensor
                for name, tensor in tensors.items()
                if name.startswith(whole)
            }
    own = network.state_dict()
    unfit = [name for name, t in tensors.items() if name not in own or own[name].shape != t.shape]
    # Encoders that the fitted network lacks would begin with random weights.
    encoders = "prior.backbone.", "prior.regions.backbone.", "region_encoder.", "image_encoder."
    unfit += [name for name in own if name.startswith(encoders) and name not in tensors]
    if unfit:
        raise InputError(
            f"warm_start cannot continue from the fitted network: {unfit[:3]} differ. Keep the "
            "backbones (and, if the classes are the same, the other sizes) as they were, or set "
            "warm_start=False."
        )
    network.load_state_dict(tensors, strict=False)
