"""Backbones: any timm model by name, or any module that returns a feature map."""

import copy
import difflib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import BackboneError, PretrainedWeightsError
from ..random import imported
from .pretrained import load_pretrained

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
FINEST = 4  # pixels per cell of the finer map: earlier maps know little more than edges
LARGEST_TRIAL = 640  # side in pixels; larger images would only need more memory


class FeatureMaps(NamedTuple):
    """Last feature map of a backbone, and a finer one from which regions are cropped."""

    coarse: Tensor  # (B, D, h, w)
    fine: Tensor  # (B, D', h', w'), h' >= h


class Backbone(nn.Module):
    """Backbone that normalises images in 0–1 and maps them to :class:`FeatureMaps`.

    Parameters
    ----------
    net : nn.Module
        Network from normalised images (B, 3, H, W) to :class:`FeatureMaps` or one map (B, D, h, w).
    mean, std : sequence of float
        Normalisation constants per channel, for pixels in 0–1.
    image_size : int
        Side of the images, in pixels; a trial run checks that ``net`` accepts it.

    Attributes
    ----------
    channels, fine_channels : int
        Numbers of channels D and D' of the maps.
    map_size, fine_size : tuple of int
        Map sizes (h, w) and (h', w') for images of ``image_size``.
    strides_single_cell : bool
        Whether images are so small that a strided convolution gets a map of a single cell.

    Raises
    ------
    BackboneError
        ``net`` does not accept ``image_size`` or returns no feature map.
    """

    mean: Tensor
    std: Tensor
    strides_single_cell: bool

    def __init__(
        self, net: nn.Module, *, mean: Sequence[float], std: Sequence[float], image_size: int
    ) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))
        self._try(image_size)

    def _try(self, image_size: int) -> None:
        """Try images of a size, and note the numbers of channels and the sizes of the maps."""
        self.image_size = image_size
        maps = self._trial(image_size)
        self.channels, self.fine_channels = maps.coarse.shape[1], maps.fine.shape[1]
        self.map_size = (maps.coarse.shape[2], maps.coarse.shape[3])
        self.fine_size = (maps.fine.shape[2], maps.fine.shape[3])

    def forward(self, images: Tensor) -> FeatureMaps:
        """Feature maps of images (B, 3, H, W) in 0–1, in the data type of the images."""
        # Computed in the type of the weights, which may be half precision in predictions.
        found: FeatureMaps | Tensor = self.net(((images - self.mean) / self.std).to(self.dtype))
        maps = found if isinstance(found, FeatureMaps) else FeatureMaps(found, found)
        return maps if self.dtype == images.dtype else FeatureMaps(*(m.to(images) for m in maps))

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the weights."""
        return self.mean.dtype

    def pooled(self, images: Tensor) -> Tensor:
        """Mean of the last map over its positions, (B, D)."""
        maps: FeatureMaps = self(images)
        return maps.coarse.mean(dim=(2, 3))

    def tied(self, image_size: int) -> "Backbone":
        """The same weights for images of another size, with batch norm statistics of their own."""
        twin = copy.deepcopy(self, {id(weight): weight for weight in self.parameters()})
        twin._try(image_size)
        return twin

    def trial_images(self) -> Tensor:
        """Two fixed random images, (2, 3, H, W), on which a rewritten backbone is compared."""
        side = min(self.image_size, LARGEST_TRIAL)
        shape = (2, len(self.mean), side, side)
        images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        return images.to(self.mean.device, memory_format=torch.channels_last)

    def _trial(self, image_size: int) -> FeatureMaps:
        """Feature maps of which only the shapes are used; on the meta device if possible."""
        try:
            shapes = copy.deepcopy(self).to("meta")
            maps = shapes._maps_of_one(image_size)
        except Exception:  # not every network runs on the meta device; real errors recur below
            return self._maps_of_one(image_size)
        self.strides_single_cell = shapes.strides_single_cell
        return maps

    @torch.no_grad()
    def _maps_of_one(self, image_size: int) -> FeatureMaps:
        was_training = self.net.training
        self.net.eval()
        self.strides_single_cell = False
        hooks = [
            module.register_forward_pre_hook(self._look_at_input)
            for module in self.net.modules()
            if isinstance(module, nn.Conv2d) and max(module.stride) > 1
        ]
        try:
            image = self.mean.new_zeros(1, len(self.mean), image_size, image_size)
            maps: FeatureMaps = self(image)
        except Exception as reason:  # third-party networks may raise anything
            raise BackboneError(
                f"The backbone {type(self.net).__name__} cannot take images of {image_size} × "
                f"{image_size} pixels: {reason}. Choose another image_size or backbone."
            ) from reason
        finally:
            self.net.train(was_training)
            for hook in hooks:
                hook.remove()
        if not (isinstance(maps.coarse, Tensor) and maps.coarse.ndim == 4):
            found = (
                tuple(maps.coarse.shape) if isinstance(maps.coarse, Tensor) else type(maps.coarse)
            )
            raise BackboneError(
                f"The backbone {type(self.net).__name__} returned {found}; a feature map of shape "
                "(B, D, h, w) is needed. Leave out its pooling and its classifier."
            )
        return maps

    def _look_at_input(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        self.strides_single_cell |= args[0].shape[2:] == (1, 1)


class TimmFeatures(nn.Module):
    """timm model that returns its final feature map and a finer one.

    Parameters
    ----------
    model : nn.Module
    coarsest : float
        Largest reduction of the finer map, in pixels of the image per cell; if no map is so fine,
        or all finer ones are, the one at the next finer resolution is used.
    """

    def __init__(self, model: nn.Module, coarsest: float = math.inf) -> None:
        super().__init__()
        self.model = model
        self.channels_last_output = str(getattr(model, "output_fmt", "")).endswith("NHWC")
        # Transformers have a single resolution: their final map is also the fine one.
        reductions = [stage["reduction"] for stage in model.feature_info]  # type: ignore[union-attr]
        finer = [i for i, r in enumerate(reductions) if r < reductions[-1]]
        finer = [i for i in finer if reductions[i] <= coarsest] or finer
        self.indices = [finer[-1], len(reductions) - 1] if finer else [len(reductions) - 1]

    def forward(self, images: Tensor) -> FeatureMaps:
        final, maps = self.model.forward_intermediates(  # type: ignore[operator]
            images, indices=self.indices, norm=True, output_fmt="NCHW"
        )
        if final.ndim == 3:  # tokens: the last map has them, without the class token
            final = maps[-1]
        elif self.channels_last_output:
            final = final.permute(0, 3, 1, 2)
        return FeatureMaps(final, maps[0] if len(self.indices) == 2 else final)


def build_backbone(
    backbone: str | nn.Module,
    *,
    image_size: int,
    pretrained: bool | str | Path = False,
    fine_cells: int = 1,
    any_size: bool = False,
) -> Backbone:
    """Build a :class:`Backbone` from a timm name, or from a module that returns a feature map.

    Parameters
    ----------
    backbone : str or nn.Module
        timm name or module; a module is copied, so training does not change the original.
    image_size : int
        Side of the images, in pixels.
    pretrained : bool or str
        Pretrained weights, for timm names only; see
        :func:`diffmic.model.pretrained.load_pretrained`.
    fine_cells : int
        Side of the finer feature map of a timm model, in cells, that is at least wanted.
    any_size : bool
        Whether a timm transformer shall take images of other sizes, too, if it can.

    Raises
    ------
    BackboneError
        Unknown name, no feature map, or an image size that the backbone does not accept.
    PretrainedWeightsError
        Weights were requested and could not be loaded.
    """
    if isinstance(backbone, nn.Module):
        if isinstance(pretrained, (str, Path)):
            raise PretrainedWeightsError(
                "pretrained is a file, but backbone is a module: load the weights into the module."
            )
        net = copy.deepcopy(backbone)
        if any(p.is_floating_point() and p.dtype != torch.float32 for p in net.parameters()):
            net = net.float()  # training and saved files are in float32
        return Backbone(net, mean=IMAGENET_MEAN, std=IMAGENET_STD, image_size=image_size)
    model = _timm_model(backbone, image_size, pretrained, any_size)
    cfg = model.pretrained_cfg
    net = TimmFeatures(model, max(FINEST, image_size / fine_cells))
    return Backbone(net, mean=cfg["mean"], std=cfg["std"], image_size=image_size)


def default_image_size(backbone: str | nn.Module, longest_side: int) -> int:
    """Input size of a backbone in pixels if it is fixed; else the longest side, at most 224."""
    if isinstance(backbone, str):
        timm = imported("timm")

        cfg = timm.get_pretrained_cfg(backbone) if timm.is_model(backbone) else None
        if cfg is not None and cfg.fixed_input_size:
            return int(cfg.input_size[-1])
    return min(224, longest_side)


def _timm_model(  # type: ignore[no-untyped-def]
    name: str, image_size: int, pretrained: bool | str | Path, any_size: bool
):
    timm = imported("timm")  # imported only for named models, because it takes seconds

    if not isinstance(name, str):
        raise BackboneError(
            f"backbone is {name!r}; give the name of a timm model or a torch.nn.Module."
        )
    remote = name.startswith(("hf-hub:", "hf_hub:", "local-dir:"))
    if not remote and not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=3)
        raise BackboneError(
            f"timm has no model {name!r}."
            + (f" Close ones: {', '.join(close)}." if close else "")
            + " timm.list_models() lists all names."
        )
    options: dict[str, Any] = {}
    cfg = None if remote else timm.get_pretrained_cfg(name)
    if cfg is not None and cfg.fixed_input_size and cfg.input_size[-1] != image_size:
        options["img_size"] = image_size
    if any_size and cfg is not None and cfg.fixed_input_size and _takes_any_size(name):
        options["dynamic_img_size"] = True
    try:
        model = load_pretrained(name, pretrained, num_classes=0, **options)
    except (AssertionError, TypeError) as reason:
        raise BackboneError(
            f"timm could not build {name!r} for images of {image_size} × {image_size} pixels: "
            f"{reason}. Choose another image_size or backbone."
        ) from reason
    if not hasattr(model, "forward_intermediates"):
        raise BackboneError(
            f"timm's {name!r} returns no feature maps (forward_intermediates); choose another."
        )
    return model


def _takes_any_size(name: str) -> bool:
    """Whether a timm transformer can be built so that it takes images of any size."""
    timm = imported("timm")

    try:
        with torch.device("meta"):
            timm.create_model(name, dynamic_img_size=True)
    except (AssertionError, TypeError, RuntimeError, NotImplementedError):
        return False
    return True
