"""Architecture and diffusion settings of a network, as plain values that can be saved."""

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal, get_args, get_origin, get_type_hints

from torch import nn

from ..errors import InputError
from ..tasks import Task

LARGEST_ZOOM = 4096  # pixels
_WHOLE = ("feature_dim", "num_train_timesteps")
_WHOLE_OR_AUTO = ("n_regions", "region_size", "zoom_size")


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
    regions : {"windows", "zoom"}
        Source of the region features without a ``region_backbone``. ``"windows"``: a finer
        feature map of the saliency backbone. ``"zoom"``: crops at the image's own resolution, for
        signs that are lost when the whole image is made small; they pass through the same
        convolutions as the whole image, with batch norm statistics of their own.
    zoom_size : int or "auto"
        Zoom: side in pixels of an image from which regions are cut as they are. Of larger and
        smaller images the same share is cut, and resized to ``region_size``. Auto: the longer side
        of the first image, as far as regions still cover the cells of the finer map (1,792 pixels
        for an ``image_size`` of 224).
    region_importance : {"fused", "contrast", "paper"}
        What makes a place worth a region; see :func:`~diffmic.model.regions.importance_map`.
        "fused": contrast of the classes in the evidence of both branches, the saliency map and the
        logits of the local branch at each place; "contrast": in the saliency map alone. The two
        are the same for a zoom and with a ``region_backbone``, whose regions have no features
        before they are chosen.
    region_map : {"upsampled", "fine", "coarse"}
        Cells on which regions are chosen (zoom: cells of half their side), to which the evidence is
        interpolated. "upsampled": those of the feature map before the last resolution (an
        earlier one if that has fewer than 4 cells a side), interpolated until it has 8; windows are
        read of this map. "fine": those of an earlier feature map, if that has fewer than 8 cells a
        side. "coarse": those of the saliency map itself, as in the paper.
    crop : {"none", "square"}
        Part of each image that the network sees: the whole image, resized to a square whatever its
        shape, or the largest square in its centre, as in the paper.
    n_regions : int or "auto"
        K, the number of regions and the side of the label map. Auto: 6, or down to 4 if they would
        cover more than 30 % of the image, or as many as fit; zoom: 4.
    region_size : int or "auto"
        Side of a region, in pixels of the image from which it is taken. Auto: about a
        fifth of the side of the image, in whole cells (48 pixels for an ``image_size`` of 224), or
        a single cell if ``region_map`` is coarse; zoom: four sevenths of the ``image_size``, in
        multiples of 32 (128 pixels for 224), or more if a cell is larger, or another size that the
        backbone takes.
    feature_dim : int
        F, the width of the denoiser.
    num_train_timesteps : int
        T, the number of timesteps of the noise schedule.
    prior, denoiser : nn.Module, class or function, or None
        Prior and denoiser of your own: a :class:`~diffmic.parts.Prior` and a
        :class:`~diffmic.parts.DenoiserPart`, or a class or function that makes one from the
        :class:`NetworkPlan`; None: those of the method. A prior of your own stands for the
        estimator's ``backbone``, too.
    region_finder : callable or None
        Choice of the regions of your own, a :class:`~diffmic.parts.RegionFinder`; None: where
        ``region_importance`` is largest. It is given the evidence by which that would be found.
    """

    prior_backbone: str | nn.Module | None = None
    region_backbone: str | nn.Module | None = None
    regions: Literal["windows", "zoom"] = "windows"
    zoom_size: int | Literal["auto"] = "auto"
    region_importance: Literal["fused", "contrast", "paper"] = "fused"
    region_map: Literal["upsampled", "fine", "coarse"] = "upsampled"
    crop: Literal["none", "square"] = "none"
    n_regions: int | Literal["auto"] = "auto"
    region_size: int | Literal["auto"] = "auto"
    feature_dim: int = 256
    num_train_timesteps: int = 1000
    prior: Any = None
    region_finder: Any = None
    denoiser: Any = None

    def __post_init__(self) -> None:
        self._check_parts()
        for name in (*_WHOLE, *_WHOLE_OR_AUTO):
            value = getattr(self, name)
            auto = name in _WHOLE_OR_AUTO and isinstance(value, str) and value == "auto"
            whole = isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1
            if not auto and not whole:
                also = "'auto' or " if name in _WHOLE_OR_AUTO else ""
                raise InputError(f"{name} is {value!r}; it must be {also}an integer of at least 1.")
        if self.zoom_size != "auto" and self.zoom_size > LARGEST_ZOOM:
            raise InputError(f"zoom_size is {self.zoom_size}; it must be at most {LARGEST_ZOOM}.")
        check_choices(self, "regions", "region_importance", "region_map", "crop")
        if self.zooms and self.region_backbone is not None:
            raise InputError(
                "regions is 'zoom' and region_backbone is given: zoomed regions are encoded by the "
                "backbone of the whole image. Leave one of the two out."
            )

    def _check_parts(self) -> None:
        """Check parts of one's own, as far as that is possible before a network is built."""
        kinds = dict.fromkeys(
            ("prior", "denoiser"),
            "a torch.nn.Module, or a class or function that makes one from the NetworkPlan",
        ) | {"region_finder": "a function of images and saliency that gives boxes"}
        for name, kind in kinds.items():
            if (part := getattr(self, name)) is not None and not callable(part):
                raise InputError(f"{name} is {part!r}; give None, or {kind}.")
        others = ("prior_backbone", "region_backbone", "region_finder")
        given = [name for name in others if getattr(self, name) is not None]
        given += ["regions='zoom'"] if self.zooms else []
        if self.prior is not None and given:
            raise InputError(
                f"prior is your own and {given[0]} is given, too: a prior of your own finds and "
                "reads its regions itself. Leave one of the two out."
            )

    @property
    def zooms(self) -> bool:
        """Whether regions are cropped at the image's own resolution."""
        return self.regions == "zoom"


def check_choices(settings: Any, *names: str) -> None:
    """Check that fields of a dataclass have one of the values that their Literal types name."""
    kinds = get_type_hints(type(settings))
    for name in names:
        kind = kinds[name]  # perhaps a union with a part of one's own
        literals = [kind, *get_args(kind)]
        known = [n for each in literals if get_origin(each) is Literal for n in get_args(each)]
        if getattr(settings, name) not in known:
            raise InputError(f"{name} is {getattr(settings, name)!r}; give one of {known}.")


# Pixel crops with separate backbones, a wide denoiser (Yang et al., 2025).
_PAPER = Architecture(
    prior_backbone="resnet18",
    region_backbone="resnet18",
    region_importance="paper",
    region_map="coarse",
    crop="square",
    n_regions=6,
    region_size=32,
    feature_dim=6144,
)

ARCHITECTURES = {
    # One shared backbone, regions as windows of its feature map, a narrow denoiser.
    "default": Architecture(),
    # Regions are crops at the image's own resolution, for large images with small signs.
    "zoom": Architecture(regions="zoom"),
    "paper-v2": _PAPER,
    # The same prior beside one image encoder (Yang et al., 2023).
    "paper-v1": _PAPER,
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


# Values of the settings that each process takes; of those not named here, it takes all.
_OF_PROCESS: dict[str, dict[str, tuple[str, ...]]] = {
    "label-map": {
        "timestep_spacing": ("trailing", "leading"),
        "sampler": ("ddim", "dpm-solver++"),
    },
    "drift": {
        "prediction_type": ("noise",),
        "guidance": ("probabilities",),
        "start": ("gaussian",),
        "sampler": ("ancestral",),
        "readout": ("last",),
    },
}


@dataclass(frozen=True)
class DiffusionSettings:
    """Settings of the diffusion: its process, guidance, denoising and sampling.

    Attributes
    ----------
    process : {"label-map", "drift"}, or nn.Module, class or function
        What is denoised: a map of labels under Gaussian noise (DiffMIC-v2), or a single vector of
        class probabilities that drifts to the prior (DiffMIC, v1). A drift predicts the noise,
        has the prior's probabilities as its guidance, and is sampled ancestrally. Or a process of
        label maps of your own, a :class:`~diffmic.diffusion.Process`, or a class or function that
        makes one from the :class:`NetworkPlan`; it chooses start, timesteps and sampler itself.
    prediction_type : {"probability", "noise", "v", "label"}
        Prediction type of the denoiser; ``"probability"``: logits of the clean label, trained with
        cross-entropy.
    guidance : {"logits", "probabilities"}
        Scale of the prior in the guidance map.
    start : {"gaussian", "uniform"}
        Initial label map of sampling: Gaussian noise for each distance, or, as in the authors'
        code, the guidance map of two uniform draws.
    timestep_spacing : {"trailing", "leading", "last"}
        Spacing of the timesteps of the sampler. Last: for a drift, the last steps of the whole
        schedule, as in the authors' code of DiffMIC (v1).
    sampler : {"ddim", "dpm-solver++", "ancestral"}, or callable
        Sampling algorithm; ancestral (DDPM) for a drift. Or one of your own for label maps, a
        :class:`~diffmic.parts.Sampler`.
    readout : {"mean", "last"}
        Label map that gives the scores: the mean of the clean-label estimates of all steps, or
        the final map. Each estimate is a posterior mean, whereas the final map of a single draw is
        close to one-hot, so averaging a few draws cannot represent small probabilities.
    """

    process: Literal["label-map", "drift"] | Callable[..., Any] = "label-map"
    prediction_type: Literal["probability", "noise", "v", "label"] = "probability"
    guidance: Literal["logits", "probabilities"] = "probabilities"
    start: Literal["gaussian", "uniform"] = "gaussian"
    timestep_spacing: Literal["trailing", "leading", "last"] = "trailing"
    sampler: Literal["ddim", "dpm-solver++", "ancestral"] | Callable[..., Any] = "ddim"
    readout: Literal["mean", "last"] = "mean"

    def __post_init__(self) -> None:
        own = [name for name in ("process", "sampler") if callable(getattr(self, name))]
        check_choices(self, *(name for name in vars(self) if name not in own))
        if len(own) > 1:
            raise InputError(
                "process and sampler are both your own: a process of your own samples itself. "
                "Leave one of the two out."
            )
        process = self.process if isinstance(self.process, str) else "label-map"
        free = own if process == "label-map" else []  # a drift takes no sampler but its own
        wrong = {
            name: list(values)
            for name, values in _OF_PROCESS[process].items()
            if name not in free and getattr(self, name) not in values
        }
        if wrong:
            found = {name: getattr(self, name) for name in wrong}
            raise InputError(
                f"process is {self.process!r} and {found} does not go with it; it takes {wrong}."
            )

    @property
    def context_of_regions(self) -> bool:
        """Whether the context of the denoiser holds the regions, or the whole image alone."""
        return self.process != "drift"


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
        Side of the whole image as the backbone sees it, in pixels.
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

    @property
    def input_size(self) -> int:
        """Side of the images that the network takes, in pixels: of the zoom, or ``image_size``.

        Raises
        ------
        InputError
            The size of the zoom is still "auto".
        """
        return self.image_size if self.zoom_size is None else self.zoom_size

    @property
    def zoom_size(self) -> int | None:
        """Side of the images from which a zoom cuts regions as they are, in pixels; None: no zoom.

        Raises
        ------
        InputError
            It is still "auto".
        """
        if not self.architecture.zooms:
            return None
        if self.architecture.zoom_size == "auto":
            raise InputError(
                "zoom_size is 'auto', which depends on the images: a network needs a number of "
                "pixels, as in Architecture(regions='zoom', zoom_size=1024). A fit finds it by "
                "itself, as diffmic.model.zoom_size(plan, longest_side) does."
            )
        return int(self.architecture.zoom_size)
