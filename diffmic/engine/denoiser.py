"""A frozen denoiser: per-timestep quantities computed once, and weights of wide layers packed."""

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..model import Denoiser
from ..model.denoiser import FoldedDenoiser, TimeGain
from .onednn import packed_linear

_WIDE = 2**20  # number of weights from which a layer is wide
_SPACINGS = 4  # number of timestep sequences whose affine maps are cached


class PreparedDenoiser(nn.Module):
    """Denoiser for predictions.

    Parameters
    ----------
    denoiser : Denoiser
        Trained denoiser, whose wide layers are replaced in place.
    dtype : torch.dtype
        Data type of the weights of wide layers.
    """

    def __init__(self, denoiser: Denoiser, dtype: torch.dtype) -> None:
        super().__init__()
        for number, layer in enumerate(denoiser.layers):
            if isinstance(layer, TimeGain) and layer.linear.weight.numel() >= _WIDE:
                denoiser.layers[number] = WideTimeGain(layer, dtype)
        self.layers, self.out = denoiser.layers, denoiser.out
        self.num_classes = denoiser.num_classes
        self._folded = lru_cache(maxsize=_SPACINGS)(lambda t: FoldedDenoiser(denoiser, t))

    def folded(self, timesteps: Sequence[int]) -> FoldedDenoiser:
        """Denoiser restricted to the given timesteps."""
        return self._folded(tuple(timesteps))


class WideTimeGain(nn.Module):
    """A :class:`TimeGain` whose weights exceed the processor cache, so that reading them dominates.

    The weights are stored in a smaller data type, or in the memory layout of oneDNN.
    """

    def __init__(self, original: TimeGain, dtype: torch.dtype) -> None:
        super().__init__()
        weight = original.linear.weight.detach()
        self.gain = original.gain
        self.bias = original.linear.bias
        if dtype == torch.float32 and weight.device.type == "cpu":
            self._times_weight = packed_linear(weight)
        else:
            weight = weight.to(dtype)
            self._times_weight = lambda features: F.linear(features.to(dtype), weight)

    def product(self, features: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """As :meth:`TimeGain.product`."""
        return torch.addcmul(shift, self._times_weight(features).to(features), scale)
