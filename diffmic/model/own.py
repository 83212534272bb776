"""Parts of one's own in a network: their protocols, and adapters with the interface of ours."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from .architecture import NetworkPlan
from .conditions import Conditions
from .part_checks import check_repeats, checked, made, naming, part_error

_TOLERANCE = 1e-4  # of a box beyond the border of the image


@runtime_checkable
class Prior(Protocol):
    """What the image alone says, before the diffusion: an ``nn.Module``.

    Its parameters that require gradients are learnt in stage one; without any, that stage is left
    out. Images are in 0–1, not normalised. It may have a method
    ``reread(image_features, region_features, region_weights)`` that gives both logits from changed
    features; only then the recipe's ``feature_noise`` is added to the features.

    Attributes
    ----------
    n_regions : int
        K, the number of regions and the side of the label map.
    image_channels, region_channels : int
        Numbers of channels D and D' of its features.
    """

    n_regions: int
    image_channels: int
    region_channels: int

    def __call__(self, images: Tensor) -> Conditions:
        """Conditions of images (B, 3, H, W); see :meth:`Conditions.of`."""
        ...


@runtime_checkable
class RegionFinder(Protocol):
    """Choice of the regions of each image: a function, or an object that can be called."""

    def __call__(self, images: Tensor, saliency: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Regions of images (B, 3, H, W) in 0–1 with saliency (B, C, h, w) in logits.

        The saliency is that of :class:`~diffmic.model.Conditions`.

        Returns
        -------
        Tensor of shape (B, K, 4)
            Boxes as x0, y0, x1, y1, as fractions of the image; K is the architecture's
            ``n_regions``. Features of the regions are means over (or crops of) these boxes.
        Tensor of shape (B, K), optional
            Weight of each region in the attention, 0–1; 0 leaves a region out. At least one region
            of an image has one.
        """
        ...


@runtime_checkable
class DenoiserPart(Protocol):
    """Denoiser of the label map: an ``nn.Module``.

    It draws nothing at random in evaluation mode, so that a prediction can be repeated. It may have
    an attribute ``mixes_positions``: whether positions see each other. If so, it is given the map
    by distance, all K distances in order, in training as in predictions. Else each position stands
    for itself, and P is any number.
    """

    def __call__(
        self, guidance: Tensor, noisy: Tensor, timesteps: Tensor, context: Tensor
    ) -> Tensor:
        """Noise, v, label or logits of the label, as the recipe's ``prediction_type`` says.

        Parameters
        ----------
        guidance, noisy : Tensor of shape (N, P, C)
            Guidance map, and noisy label map.
        timesteps : Tensor of shape (N, P)
            Timestep of each position, integers in 0..T−1.
        context : Tensor of shape (N, F)
            Context of each image; F is the architecture's ``feature_dim``.

        Returns
        -------
        Tensor of shape (N, P, C)
        """
        ...


class _Pixels(NamedTuple):
    """Stands where a prior of one's own has no backbone: images are not normalised."""

    channels: int
    net: None = None

    @property
    def mean(self) -> Tensor:
        return torch.zeros(3)

    @property
    def std(self) -> Tensor:
        return torch.ones(3)


class _Places(nn.Module):
    """Stands where a prior of one's own has no module for its regions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels, self.map_size = channels, (1, 1)


class OwnPrior(nn.Module):
    """Prior of one's own, with the interface of a :class:`~.prior.DualGranularityPrior`."""

    def __init__(self, part: Any, plan: NetworkPlan) -> None:
        super().__init__()
        self.own = made("prior", part, plan)
        self.num_classes = plan.num_classes
        for name in ("n_regions", "image_channels", "region_channels"):
            value = getattr(self.own, name, None)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                told = f"has {name} = {value!r}; expected is an integer of at least 1."
                raise part_error("prior", self.own, told)
        self.n_regions: int = self.own.n_regions  # type: ignore[assignment]
        self.channels: int = self.own.image_channels  # type: ignore[assignment]
        self.regions = _Places(self.own.region_channels)  # type: ignore[arg-type]
        self.rereads = hasattr(self.own, "reread")

    @property
    def backbone(self) -> _Pixels:
        """What is known of the encoder: images enter as they are."""
        return _Pixels(self.channels)

    def whole(self, images: Tensor) -> Tensor:
        """The images as they are."""
        return images

    def forward(self, images: Tensor, originals: None = None) -> tuple[Conditions, Tensor]:
        """Conditions, checked, and no cells."""
        with naming("prior", self.own, f"fails on images of shape {tuple(images.shape)}"):
            found = self.own(images)
        if not isinstance(found, Conditions):
            expected = "diffmic.model.Conditions, such as Conditions.of(...) makes."
            told = f"gave a {type(found).__name__}; expected are {expected}"
            raise part_error("prior", self.own, told)
        n, n_classes, n_regions = images.shape[0], self.num_classes, self.n_regions
        shapes: dict[str, tuple[int | str, ...]] = {
            "global_logits": (n, n_classes),
            "local_logits": (n, n_classes),
            "image_features": (n, self.channels),
            "region_features": (n, n_regions, self.regions.channels),
            "saliency": (n, n_classes, "h", "w"),
            "boxes": (n, n_regions, 4),
            "attention": (n, n_regions),
            "region_weights": (n, n_regions),
        }
        for field in fields(Conditions):
            value = getattr(found, field.name)
            checked("prior", self.own, field.name, value, shapes[field.name], images)
        return found, images.new_zeros((n, n_regions, 0))

    def reread(self, *features: Tensor) -> tuple[Tensor, Tensor]:
        """Global and local logits from changed features."""
        with naming("prior", self.own, f"fails on reread of {features[0].shape[0]} images"):
            found = self.own.reread(*features)  # type: ignore[operator]
        n = features[0].shape[0]
        if not isinstance(found, tuple) or len(found) != 2:
            expected = "two tensors, the global and the local logits."
            told = f"gave a {type(found).__name__} from reread; expected are {expected}"
            raise part_error("prior", self.own, told)
        both = [
            checked("prior", self.own, what, value, (n, self.num_classes), features[0])
            for what, value in zip(("global logits", "local logits"), found, strict=True)
        ]
        return both[0], both[1]


class OwnRegions(nn.Module):
    """Region finder of one's own, whose boxes and weights are checked."""

    def __init__(self, part: Callable[..., Any], n_regions: int) -> None:
        super().__init__()
        self.own = copy.deepcopy(part) if isinstance(part, nn.Module) else part
        self.n_regions = n_regions

    @torch.no_grad()
    def forward(self, images: Tensor, saliency: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (B, K, 4) of each image, and the weights (B, K) of its regions, 0–1."""
        shapes = f"images and saliency of shape {tuple(images.shape)} and {tuple(saliency.shape)}"
        with naming("region_finder", self.own, f"fails on {shapes}"):
            found = self.own(images, saliency)
        boxes, weights = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
        shape = images.shape[0], self.n_regions
        if isinstance(boxes, Tensor) and boxes.ndim == 3 and boxes.shape[1] != self.n_regions:
            told = f"gave {boxes.shape[1]} boxes for each image; expected are {self.n_regions}."
            told += " Set Architecture(n_regions=...)."
            raise part_error("region_finder", self.own, told)
        boxes = checked("region_finder", self.own, "boxes", boxes, (*shape, 4), images).float()
        if torch.compiler.is_exporting():
            return boxes, boxes.new_ones(boxes.shape[:2]) if weights is None else weights.float()
        low, high = boxes[..., :2], boxes[..., 2:]
        right = ((low >= -_TOLERANCE) & (high <= 1 + _TOLERANCE) & (low < high)).all(dim=-1)
        if not right.all():
            image, region = (int(n) for n in (~right).nonzero()[0])
            raise part_error(
                "region_finder",
                self.own,
                f"gave the box {boxes[image, region].tolist()} for image {image} of the batch; "
                "expected are x0, y0, x1, y1 with 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1, "
                "fractions of the image.",
            )
        if weights is None:
            return boxes.clamp(0, 1), boxes.new_ones(shape)
        weights = checked("region_finder", self.own, "weights", weights, shape, images).float()
        right = ((weights >= 0) & (weights <= 1)).all(dim=1) & (weights > 0).any(dim=1)
        if not right.all():
            image = int((~right).nonzero()[0])
            raise part_error(
                "region_finder",
                self.own,
                f"gave the weights {weights[image].tolist()} for image {image} of the batch; "
                "expected are numbers in 0–1, at least one of them above 0.",
            )
        return boxes.clamp(0, 1), weights


class OwnDenoiser(nn.Module):
    """Denoiser of one's own, with the interface of a :class:`~.denoiser.Denoiser`.

    Attributes
    ----------
    mixes_positions : bool
        Whether positions see each other.
    """

    def __init__(self, part: Any, plan: NetworkPlan, *, positions: bool = True) -> None:
        super().__init__()
        self.own = made("denoiser", part, plan)
        self.num_classes = plan.num_classes
        self.positions = positions
        self.mixes_positions = bool(getattr(self.own, "mixes_positions", False)) and positions

    def forward(
        self, guidance: Tensor, noisy: Tensor, timesteps: Tensor | int, context: Tensor
    ) -> Tensor:
        """As :meth:`Denoiser.forward`, through (N, P, C)."""
        if isinstance(timesteps, int):
            timesteps = torch.full(noisy.shape[:-1], timesteps, device=noisy.device)
        n_images, n_classes = context.shape[0], noisy.shape[-1]
        rows = math.prod(noisy.shape[:-1]) if not self.positions else n_images
        if self.positions and noisy.ndim > 3:  # (B, S, K, C): draws are rows, too
            rows *= noisy.shape[1]
        maps = [x.reshape(rows, -1, n_classes) for x in (guidance.expand_as(noisy), noisy)]
        each = context[:, None].expand(-1, rows // n_images, -1).reshape(rows, -1)
        with naming("denoiser", self.own, f"fails on maps of shape {tuple(maps[1].shape)}"):
            found = self.own(*maps, timesteps.reshape(rows, -1), each)
        found = checked("denoiser", self.own, "an output", found, tuple(maps[1].shape), noisy)
        return found.to(noisy.dtype).reshape(noisy.shape)

    def folded(self, timesteps: Sequence[int]) -> "OwnDenoiser":
        """The denoiser itself, at any timestep."""
        return self

    @torch.no_grad()
    def try_out(self, n_positions: int, width: int, n_timesteps: int) -> None:
        """Try random maps, so that what does not fit is told before anything is trained."""
        was_training = self.own.training
        self.own.eval()
        try:
            maps = torch.rand(2, 2, n_positions if self.positions else 1, self.num_classes)
            maps = maps if self.positions else maps[:, :, 0]
            context = torch.rand(2, width)
            once, again = (self(maps, maps, n_timesteps - 1, context) for _ in range(2))
            check_repeats("denoiser", self.own, "outputs", once, again)
        finally:
            self.own.train(was_training)
