"""A backbone for predictions: batch norms and activations in the layers before them."""

import copy
from collections import Counter
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ..model.backbone import Backbone, FeatureMaps
from .onednn import ACTIVATIONS, with_activation

_LARGEST = 2**25  # bytes of a tensor; glibc keeps smaller ones for the next of their size
_TOLERANCE = 1e-3  # of the largest value: rounding stays below 1e-4, a wrong folding is far above


class _Seen(NamedTuple):
    """What a backbone did with images; modules by their names."""

    maps: FeatureMaps
    norms: list[tuple[str, str]]  # a convolution, and the batch norm that reads it
    activations: dict[str, str]  # a batch norm or linear layer, and the activation that reads it
    inputs: dict[str, Tensor]  # of convolutions and linear layers
    bytes_per_image: int  # of the largest tensor


@torch.inference_mode(False)  # whose tensors do not tell whether they were written to
@torch.no_grad()
def folded(backbone: Backbone, dtype: torch.dtype = torch.float32) -> Backbone:
    """A copy with batch norms folded into convolutions, or a mere copy where that cannot be done.

    On a CPU activations join the layer before them, and images pass few at a time. What follows
    what is seen when images pass; the result is compared with the original.
    """
    original = copy.deepcopy(backbone).eval()
    device = original.mean.device
    images = torch.rand(
        2, 3, *2 * (backbone.image_size,), generator=torch.Generator().manual_seed(0)
    ).to(device, memory_format=torch.channels_last)
    seen = _observed(original, images)
    without_norms = copy.deepcopy(original)
    _fold_norms(without_norms, seen)
    attempts = [without_norms, original]
    if device.type == "cpu" and dtype == torch.float32:
        attempts.insert(0, copy.deepcopy(without_norms))
        _join_activations(attempts[0], seen)
    new = next(attempt for attempt in attempts if _alike(attempt(images), seen.maps))
    if device.type == "cpu":
        new.net = _InChunks(new.net, max(1, _LARGEST // seen.bytes_per_image))
    return new.to(dtype)


def _alike(found: FeatureMaps, expected: FeatureMaps) -> bool:
    return all(
        torch.allclose(new, old, rtol=0, atol=_TOLERANCE * float(old.abs().max()))
        for new, old in zip(found, expected, strict=True)
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
        # timm's batch norms may bring the activation that follows them.
        setattr(*parents[norm_name], getattr(norm, "act", nn.Identity()))
    backbone.to(memory_format=torch.channels_last)


def _join_activations(backbone: Backbone, seen: _Seen) -> None:
    """Let oneDNN apply what has come into the places of batch norms, or follows a layer."""
    modules, parents = dict(backbone.named_modules()), _parents(backbone)
    places: dict[str, str | None] = {}  # of a layer's activation
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
    """A network on a CPU that takes a batch a few images at a time.

    The C library hands larger tensors back to the system at once, and asks for new pages each time:
    that costs as much as the arithmetic.
    """

    def __init__(self, net: nn.Module, n_images: int) -> None:
        super().__init__()
        self.net, self.n_images = net, n_images

    def forward(self, images: Tensor) -> FeatureMaps | Tensor:
        """As the network."""
        found = [self.net(chunk) for chunk in torch.split(images, self.n_images)]
        if len(found) == 1 or isinstance(found[0], Tensor):
            return found[0] if len(found) == 1 else torch.cat(found)
        return FeatureMaps(*map(torch.cat, zip(*found, strict=True)))


def _observed(backbone: Backbone, images: Tensor) -> _Seen:
    """Look at what passes between layers, batch norms and activations."""
    names = {module: name for name, module in backbone.named_modules()}
    makers: dict[tuple[int, int], nn.Module] = {}  # of tensors, as long as these are not changed
    outputs: list[Tensor] = []  # kept, so that no other tensor gets the same id
    inputs: dict[str, Tensor] = {}
    norms: list[tuple[str, str]] = []
    activations: list[tuple[str, str]] = []

    def before(module: nn.Module, given: tuple[Any, ...]) -> None:
        maker = makers.get(_identity(given[0])) if given else None
        if _foldable(module) and isinstance(maker, nn.Conv2d):
            norms.append((names[maker], names[module]))
        elif type(module) in ACTIVATIONS and (
            isinstance(maker, nn.Linear) or (maker is not None and _foldable(maker))
        ):
            activations.append((names[maker], names[module]))
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            inputs[names[module]] = given[0]

    def after(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            outputs.append(output)
            makers.setdefault(_identity(output), module)  # not one that does nothing, after it

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


def _identity(tensor: Tensor) -> tuple[int, int]:
    return id(tensor), tensor._version


def _used_once(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Pairs whose members are in no other."""
    uses = Counter(name for pair in pairs for name in pair)
    return [pair for pair in pairs if max(uses[name] for name in pair) == 1]


def _foldable(module: nn.Module) -> bool:
    return isinstance(module, nn.BatchNorm2d) and module.running_mean is not None


def _parents(module: nn.Module) -> dict[str, tuple[nn.Module, str]]:
    """Where each submodule stands: its parent, and its name there."""
    return {
        f"{prefix}.{name}" if prefix else name: (parent, name)
        for prefix, parent in module.named_modules()
        for name, _ in parent.named_children()
    }
