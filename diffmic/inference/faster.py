"""A network for predictions: the same answers for less work."""

import copy
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..model import DiffMICNetwork
from ..model.backbone import Backbone
from ..model.denoiser import TimeGain
from .digits import product_by_digits
from .folding import folded
from .onednn import packed_linear

AnyModule = TypeVar("AnyModule", bound=nn.Module)
Change = Callable[[nn.Module], nn.Module]

_WIDE = 2**20  # weights of a layer


def for_encoding(network: DiffMICNetwork, dtype: torch.dtype = torch.float32) -> DiffMICNetwork:
    """The network with batch norms folded into the convolutions of its backbones.

    In evaluation mode batch norm is an affine map, which the convolution before it can do itself.

    Parameters
    ----------
    network : DiffMICNetwork
        In evaluation mode. All but its backbones is shared; these are made once, and again when
        they have changed.
    dtype : torch.dtype
        Of the weights of encoders that serve the context alone and have no batch norm (in bf16
        those that have moved probabilities by more than 0.01); what they return stays float32.
        The prior is always of float32: it chooses the regions, and a choice between two that are
        nearly alike turns on the last bits.
    """
    exact = set(network.prior.modules())

    def change(module: nn.Module) -> nn.Module:
        if not isinstance(module, Backbone) or any(map(_n_hooks, module.modules())):
            return module  # with hooks somebody wants to see what passes
        of_float32 = module in exact or any(isinstance(m, _BatchNorm) for m in module.modules())
        return _remembered(module, torch.float32 if of_float32 else dtype, folded)

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


class WideTimeGain(nn.Module):
    """A :class:`TimeGain` whose weights are too many for the cache: reading them is what costs.

    They are kept in a smaller type, in digits, or in the order in which oneDNN reads them.
    """

    def __init__(self, original: TimeGain, dtype: torch.dtype) -> None:
        super().__init__()
        self.linear, self.gain = original.linear, original.gain
        weight = original.linear.weight.detach()
        if dtype == torch.float32 and weight.device.type == "cpu":
            self._times_weight = product_by_digits(weight) or packed_linear(weight)
        else:
            weight = weight.to(dtype)
            self._times_weight = lambda features: F.linear(features.to(dtype), weight)

    def product(self, features: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """As :meth:`TimeGain.product`."""
        return torch.addcmul(shift, self._times_weight(features).to(features), scale)
