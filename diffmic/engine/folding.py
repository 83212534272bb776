"""Backbones for predictions: batch norms and activations merged into the preceding layers."""

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ..errors import warn_user
from ..model import Backbone, FeatureMaps
from ..random import LocalRNG
from .onednn import ACTIVATIONS, with_activation

_LARGEST = 2**25  # bytes of a tensor; glibc reuses the memory of smaller ones
_TOLERANCE = 1e-3  # of the largest value: rounding stays below 1e-4, a wrong folding is far above


class _Seen(NamedTuple):
    """Observations from a run of a backbone; modules are given by name."""

    maps: FeatureMaps
    norms: list[tuple[str, str]]  # convolution, and the batch norm that follows it
    activations: dict[str, str]  # batch norm or linear layer → the activation that follows it
    inputs: dict[str, Tensor]  # inputs of convolutions and linear layers
    bytes_per_image: int  # size of the largest tensor


@torch.no_grad()
def folded(backbone: Backbone, dtype: torch.dtype = torch.float32) -> Backbone:
    """Copy of a backbone with batch norms folded into convolutions where that is possible.

    In evaluation mode batch norm is an affine map, which can be merged into the convolution before
    it. On a CPU, activations are also fused into the layer before them, and a batch is processed a
    few images at a time. The order of the layers is observed on random images; the result is
    compared with the original.

    Parameters
    ----------
    backbone : Backbone
        Trained backbone, which is not changed.
    dtype : torch.dtype
        Data type of the weights of the copy; its maps keep that of the images.

    Returns
    -------
    Backbone
        Folded copy, or an unfolded one if folding fails.
    """
    original = copy.deepcopy(backbone).eval()
    images = original.trial_images()
    try:
        with LocalRNG(0) as rng:
            seen = _observed(original, images)
    except Exception:  # the backbone may need larger images
        return original
    if rng.has_drawn:
        warn_user(
            f"The backbone {type(original.net).__name__} draws random numbers although it is in "
            "evaluation mode, as dropout with training=True does. Predictions draw the same ones "
            "for every image, so that they repeat, and run it on one image at a time."
        )
        return original
    if not reproduces(original, images, seen.maps):
        warn_user(
            f"The backbone {type(original.net).__name__} gives other feature maps for the same "
            "images each time, or NaN, although it is in evaluation mode. Predictions run it "
            "unchanged and are not reproducible. Look for random numbers, or overflow."
        )
        return original
    on_cpu = original.mean.device.type == "cpu"
    attempts: list[tuple[Callable[[Backbone, _Seen], None], ...]] = [(_fold_norms,)]
    if on_cpu and dtype == torch.float32:  # packed weights cannot be converted to another type
        attempts.insert(0, (_fold_norms, _join_activations))
    for rewriting in attempts:
        if (new := _tried(rewriting, original, seen, images)) is not None:
            break
    else:
        new = original
    if on_cpu:
        scale = (backbone.image_size / images.shape[-1]) ** 2
        n_images = max(1, round(_LARGEST / (scale * seen.bytes_per_image)))
        new.net = _InChunks(new.net, n_images)
    return new.to(dtype)


def _tried(
    rewriting: tuple[Callable[[Backbone, _Seen], None], ...],
    original: Backbone,
    seen: _Seen,
    images: Tensor,
) -> Backbone | None:
    """Rewritten copy, or None if it does not reproduce the feature maps."""
    new = copy.deepcopy(original)
    try:
        for rewrite in rewriting:
            rewrite(new, seen)
        return new if reproduces(new, images, seen.maps) else None
    except Exception:  # a layer has unexpected properties: the rewriting is discarded
        return None


def reproduces(backbone: Backbone, images: Tensor, expected: FeatureMaps) -> bool:
    """Whether a backbone gives the expected maps up to rounding; never true if these hold NaN."""
    return all(
        bool(old.isfinite().all())
        and torch.allclose(new, old, rtol=0, atol=_TOLERANCE * float(old.abs().max()))
        for new, old in zip(backbone(images), expected, strict=True)
    )


def _fold_norms(backbone: Backbone, seen: _Seen) -> None:
    modules, parents = dict(backbone.named_modules()), _parents(backbone)
    for conv_name, norm_name in seen.norms:
        conv, norm = modules[conv_name], modules[norm_name]
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight,
            conv.bias,
            norm.running_mean,
            norm.running_var,
            norm.eps,
            norm.weight,
            norm.bias,
        )
        # timm's batch norms may contain the activation that follows them.
        setattr(*parents[norm_name], getattr(norm, "act", nn.Identity()))
    backbone.to(memory_format=torch.channels_last)


def _join_activations(backbone: Backbone, seen: _Seen) -> None:
    """Fuse activations, after folded batch norms or linear layers, into oneDNN's operators."""
    modules, parents = dict(backbone.named_modules()), _parents(backbone)
    places: dict[str, str | None] = {}  # layer → location of its activation
    for conv, norm in seen.norms:
        empty = isinstance(modules[norm], nn.Identity)
        places[conv] = seen.activations.get(norm, norm) if empty else norm
    for name in seen.inputs:
        if isinstance(modules[name], nn.Linear):
            places[name] = seen.activations.get(name)
    for name, place in places.items():
        activation = nn.Identity() if place is None else modules[place]
        joined = with_activation(modules[name], activation, seen.inputs[name])
        if joined is not None:
            setattr(*parents[name], joined)
            if place is not None:
                setattr(*parents[place], nn.Identity())


class _InChunks(nn.Module):
    """Network on a CPU that processes a batch in chunks of a few images.

    The C library returns the memory of larger tensors to the system at once and requests new pages
    each time, which takes as long as the arithmetic.
    """

    def __init__(self, net: nn.Module, n_images: int) -> None:
        super().__init__()
        self.net, self.n_images = net, n_images

    def forward(self, images: Tensor) -> FeatureMaps | Tensor:
        """Output of the network, concatenated over the chunks."""
        found = [self.net(chunk) for chunk in torch.split(images, self.n_images)]
        if len(found) == 1 or isinstance(found[0], Tensor):
            return found[0] if len(found) == 1 else torch.cat(found)
        return FeatureMaps(*map(torch.cat, zip(*found, strict=True)))


def _observed(backbone: Backbone, images: Tensor) -> _Seen:
    """Run a backbone and record which layers, batch norms and activations follow each other."""
    names = {module: name for name, module in backbone.named_modules()}
    makers: dict[tuple[int, float], nn.Module] = {}  # of tensors, until they change
    outputs: list[Tensor] = []  # kept alive, so that no other tensor gets the same id
    inputs: dict[str, Tensor] = {}
    norms: list[tuple[str, str]] = []
    activations: list[tuple[str, str]] = []

    def before(module: nn.Module, given: tuple[Any, ...]) -> None:
        tensor = given[0] if given and isinstance(given[0], Tensor) else None
        maker = None if tensor is None else makers.get(_identity(tensor))
        if _foldable(module) and isinstance(maker, nn.Conv2d):
            norms.append((names[maker], names[module]))
        elif type(module) in ACTIVATIONS and (
            isinstance(maker, nn.Linear) or (maker is not None and _foldable(maker))
        ):
            activations.append((names[maker], names[module]))
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            inputs[names[module]] = given[0].clone()

    def after(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            outputs.append(output)
            makers.setdefault(_identity(output), module)  # the first, not an identity after it

    leaves = [module for module in backbone.modules() if not any(True for _ in module.children())]
    watched = [*leaves, *filter(_foldable, backbone.modules())]
    hooks = [
        hook
        for module in dict.fromkeys(watched)
        for hook in (
            module.register_forward_pre_hook(before),
            module.register_forward_hook(after),
        )
    ]
    try:
        maps = backbone(images)
    finally:
        for hook in hooks:
            hook.remove()
    return _Seen(
        maps,
        _used_once(norms),
        dict(_used_once(activations)),
        inputs,
        max(output.nbytes for output in [*outputs, *maps]) // len(images),
    )


def _identity(tensor: Tensor) -> tuple[int, float]:
    """Key of a tensor and its contents, which in-place operations change."""
    return id(tensor), float(tensor.float().sum())


def _used_once(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Pairs whose members occur in no other pair."""
    uses = Counter(name for pair in pairs for name in pair)
    return [pair for pair in pairs if max(uses[name] for name in pair) == 1]


def _foldable(module: nn.Module) -> bool:
    return isinstance(module, nn.BatchNorm2d) and module.running_mean is not None


def _parents(module: nn.Module) -> dict[str, tuple[nn.Module, str]]:
    """Parent of each submodule, and its attribute name in the parent."""
    return {
        f"{prefix}.{name}" if prefix else name: (parent, name)
        for prefix, parent in module.named_modules()
        for name, _ in parent.named_children()
    }
