"""A network for predictions: the same answers for less work."""

import copy
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ..model import DiffMICNetwork
from ..model.backbone import Backbone
from ..model.denoiser import TimeGain

AnyModule = TypeVar("AnyModule", bound=nn.Module)
Change = Callable[[nn.Module], nn.Module]

_WIDE = 2**20  # weights of a layer
_ROWS = 6  # positions of one image with one draw: fewer rows than this are rare
_TOLERANCE = 1e-3  # of the largest value: rounding stays below 1e-4, a wrong folding is far above


def for_encoding(network: DiffMICNetwork, dtype: torch.dtype = torch.float32) -> DiffMICNetwork:
    """The network with batch norms folded into the convolutions of its backbones.

    In evaluation mode batch norm is an affine map, which the convolution before it can do itself.

    Parameters
    ----------
    network : DiffMICNetwork
        In evaluation mode. All but its backbones is shared; these are made once, and again when
        they have changed.
    dtype : torch.dtype
        Of the weights of encoders that serve the context alone; what they return stays float32.
        The prior is always of float32: it chooses the regions, and a choice between two that are
        nearly alike turns on the last bits.
    """
    exact = set(network.prior.modules())

    def change(module: nn.Module) -> nn.Module:
        if not isinstance(module, Backbone) or any(map(_n_hooks, module.modules())):
            return module  # with hooks somebody wants to see what passes
        return _remembered(module, torch.float32 if module in exact else dtype, _folded_in)

    return _changed(network, change)


def for_sampling(network: DiffMICNetwork, dtype: torch.dtype = torch.float32) -> DiffMICNetwork:
    """The network with the weights of wide layers of its denoiser where they are read faster.

    Parameters
    ----------
    network : DiffMICNetwork
        In evaluation mode. All but these weights is shared.
    dtype : torch.dtype
        Of these weights; the rest of the arithmetic stays in float32.
    """

    def change(module: nn.Module) -> nn.Module:
        if isinstance(module, TimeGain) and module.linear.weight.numel() >= _WIDE:
            return _remembered(module, dtype, WideTimeGain)
        return module

    return _with_children(network, {"denoiser": _changed(network.denoiser, change)})


def _changed(module: AnyModule, change: Change) -> AnyModule:
    """A module with some of its parts changed, and the others as they are, not copied."""
    new = change(module)
    if new is not module or isinstance(module, Backbone):
        return new  # type: ignore[return-value]
    changed = {
        name: part
        for name, child in module.named_children()
        if (part := _changed(child, change)) is not child
    }
    return _with_children(module, changed) if changed else module


def _with_children(module: AnyModule, children: dict[str, nn.Module]) -> AnyModule:
    """The same module with other children; all else is shared."""
    new = copy.copy(module)
    new._modules = {**module._modules, **children}
    return new


class _Known(NamedTuple):
    """What was made of a module, and the state that the module had."""

    dtype: torch.dtype
    made: nn.Module
    contents: list[tuple[dict[str, Any], str, Any, Any]]

    def holds(self) -> bool:
        """Whether nothing has changed since; a fifth of the time that a state dict would take."""
        return all(
            entries.get(name) is value and state == _state(value)
            for entries, name, value, state in self.contents
        )


_known: "WeakKeyDictionary[nn.Module, _Known]" = WeakKeyDictionary()


def _remembered(
    module: nn.Module, dtype: torch.dtype, make: Callable[[Any, torch.dtype], nn.Module]
) -> nn.Module:
    """``make(module, dtype)``, made once until the module changes."""
    known = _known.get(module)
    if known is None or known.dtype != dtype or not known.holds():
        known = _known[module] = _Known(dtype, make(module, dtype), list(_contents(module)))
    return known.made


def _contents(module: nn.Module) -> Iterator[tuple[dict[str, Any], str, Any, Any]]:
    """Every tensor and submodule, where it stands, and its state."""
    for part in module.modules():
        for entries in (part._parameters, part._buffers, part._modules):
            for name, value in entries.items():
                yield entries, name, value, _state(value)


def _state(value: Any) -> Any:
    """What changes with a tensor's values, or the memory that holds them."""
    return (value._version, value.data_ptr()) if isinstance(value, Tensor) else None


def _n_hooks(module: nn.Module) -> int:
    return len(module._forward_hooks) + len(module._forward_pre_hooks)


def _folded_in(backbone: Backbone, dtype: torch.dtype) -> Backbone:
    return folded(backbone).to(dtype)


class WideTimeGain(nn.Module):
    """A :class:`TimeGain` whose weights are too many for the cache: reading them is what costs.

    They are kept in a smaller type, or in the order in which oneDNN reads them.
    """

    def __init__(self, original: TimeGain, dtype: torch.dtype) -> None:
        super().__init__()
        self.linear, self.gain = original.linear, original.gain
        weight = original.linear.weight.detach()
        if dtype == torch.float32 and weight.device.type == "cpu":
            self._times_weight = _packed(weight)
        else:
            weight = weight.to(dtype)
            self._times_weight = lambda features: F.linear(features.to(dtype), weight)

    def product(self, features: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """As :meth:`TimeGain.product`."""
        return torch.addcmul(shift, self._times_weight(features).to(features), scale)


def _packed(weight: Tensor) -> Callable[[Tensor], Tensor]:
    """Multiplication by a weight that oneDNN has put in its own order: a third faster."""
    onednn = torch.ops.mkldnn
    try:
        packed = onednn._reorder_linear_weight(weight, _ROWS)
    except (AttributeError, RuntimeError):  # not public, and not on every processor
        return lambda features: F.linear(features, weight)

    def times_weight(features: Tensor) -> Tensor:
        rows = onednn._linear_pointwise(features.flatten(0, -2), packed, None, "none", [], "")
        return rows.view(*features.shape[:-1], -1)  # type: ignore[no-any-return]

    return times_weight


@torch.no_grad()
def folded(backbone: Backbone) -> Backbone:
    """A copy with batch norms folded into convolutions, or a mere copy where that cannot be done.

    Which batch norm follows which convolution is seen when images pass; the result is compared
    with the original.
    """
    original = copy.deepcopy(backbone).eval()
    device = original.mean.device
    images = torch.rand(
        2, 3, *2 * (backbone.image_size,), generator=torch.Generator().manual_seed(0)
    ).to(device, memory_format=torch.channels_last)
    expected, pairs = _observed(original, images)
    attempt = copy.deepcopy(original)
    modules, parents = dict(attempt.named_modules()), _parents(attempt)
    for conv_name, norm_name in pairs:
        conv, norm = modules[conv_name], modules[norm_name]
        weight, bias = fuse_conv_bn_weights(
            conv.weight,
            conv.bias,
            norm.running_mean,
            norm.running_var,
            norm.eps,
            norm.weight,
            norm.bias,
        )
        conv.weight, conv.bias = weight, bias
        # timm's batch norms may bring the activation that follows them.
        setattr(*parents[norm_name], getattr(norm, "act", nn.Identity()))
    attempt = attempt.to(memory_format=torch.channels_last)
    same = all(
        torch.allclose(new, old, rtol=0, atol=_TOLERANCE * float(old.abs().max()))
        for new, old in zip(attempt(images), expected, strict=True)
    )
    return attempt if same else original


def _observed(backbone: Backbone, images: Tensor) -> tuple[Any, list[tuple[str, str]]]:
    """Feature maps of images, and the names of each convolution and the batch norm after it."""
    names = {module: name for name, module in backbone.named_modules()}
    made: dict[int, nn.Module] = {}  # which convolution made a tensor
    outputs: list[Tensor] = []  # kept, so that no other tensor gets the same id
    pairs: list[tuple[str, str]] = []

    def after_conv(conv: nn.Module, _: Any, output: Tensor) -> None:
        made[id(output)] = conv
        outputs.append(output)

    def before_norm(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if (conv := made.get(id(inputs[0]))) is not None:
            pairs.append((names[conv], names[norm]))

    hooks = [
        module.register_forward_hook(after_conv)
        if isinstance(module, nn.Conv2d)
        else module.register_forward_pre_hook(before_norm)
        for module in backbone.modules()
        if isinstance(module, nn.Conv2d) or _foldable(module)
    ]
    try:
        maps = backbone(images)
    finally:
        for hook in hooks:
            hook.remove()
    used = [name for pair in pairs for name in pair]
    return maps, [pair for pair in pairs if max(map(used.count, pair)) == 1]


def _foldable(module: nn.Module) -> bool:
    return isinstance(module, nn.BatchNorm2d) and module.running_mean is not None


def _parents(module: nn.Module) -> dict[str, tuple[nn.Module, str]]:
    """Where each submodule stands: its parent, and its name there."""
    return {
        f"{prefix}.{name}" if prefix else name: (parent, name)
        for prefix, parent in module.named_modules()
        for name, _ in parent.named_children()
    }
