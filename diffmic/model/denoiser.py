"""The denoiser: a small network applied to each position of the label map independently."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..diffusion.schedule import over_positions

_SMALL = 2**18  # number of weights up to which a layer has a copy for every timestep


def _batch_norm(norm: nn.BatchNorm1d, features: Tensor) -> Tensor:
    """Batch norm over all leading dimensions of (..., F)."""
    normed: Tensor = norm(features.flatten(0, -2))
    return normed.view_as(features)


def _softplus(features: Tensor) -> Tensor:
    """Softplus log(1 + eˣ) with an error below 1e-6, on a CPU four times as fast as torch's."""
    plain = features.device.type != "cpu" or features.dtype != torch.float32
    if plain or torch.is_grad_enabled():
        return F.softplus(features)
    activated = features.clamp(max=80).exp_().add_(1).log_()
    return torch.maximum(features, activated, out=activated)  # above 80, softplus(x) is x


class ContextFusion(nn.Module):
    """Context x̄ of an image: a learned mixture of the features of the image and its regions.

    x_0 = BN(projection of the image features), x_k = BN(projection of region k), and per channel
    x̄ = Σ_m softmax(ω)_m ⊙ x_m. One batch norm serves all regions.

    Parameters
    ----------
    image_channels, region_channels : int
        Numbers of channels of image features and of region features.
    n_regions : int
        K, the number of regions.
    feature_dim : int
        F, the width of the context.
    dropout : float
        Dropout rate of the context in training.
    """

    def __init__(
        self,
        image_channels: int,
        region_channels: int,
        n_regions: int,
        feature_dim: int,
        *,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.image_projection = nn.Linear(image_channels, feature_dim)
        self.region_projection = nn.Linear(region_channels, feature_dim)
        self.image_norm = nn.BatchNorm1d(feature_dim)
        self.region_norm = nn.BatchNorm1d(feature_dim)
        for projection in (self.image_projection, self.region_projection):
            # Batch norm takes a bias away again: its gradient is nothing but rounding errors,
            # along which the optimizer would move it, at random and at full speed.
            projection.bias.requires_grad_(False)
        self.fusion_logits = nn.Parameter(torch.zeros(feature_dim, n_regions + 1))
        self.dropout = nn.Dropout(dropout)

    def forward(self, image_features: Tensor, region_features: Tensor) -> Tensor:
        """Context (B, F) from image features (B, D) and region features (B, K, D')."""
        image = _batch_norm(self.image_norm, self.image_projection(image_features))
        regions = _batch_norm(self.region_norm, self.region_projection(region_features))
        sources = torch.cat([image[:, None], regions], dim=1)  # (B, K + 1, F)
        shares = self.fusion_logits.softmax(dim=1).T  # (K + 1, F)
        context = (sources * shares).sum(dim=1)  # einsum would compute F tiny products
        dropped: Tensor = self.dropout(context)
        return dropped


class TimeGain(nn.Module):
    """Linear layer with a learned gain per timestep, γ(t) ⊙ (L h + b); gains start as U(0, 1)."""

    def __init__(self, in_features: int, out_features: int, num_train_timesteps: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)
        self.gain = nn.Parameter(torch.rand(num_train_timesteps, out_features))

    @property
    def bias(self) -> Tensor:
        """Bias of the linear map, (F,)."""
        return self.linear.bias

    def forward(self, features: Tensor, timesteps: Tensor | int) -> Tensor:
        """Apply the layer; ``timesteps`` is one timestep for all, or (B, ...), one per position."""
        # The gradient of an embedding is far cheaper than that of indexing.
        gain = (
            self.gain[timesteps]
            if isinstance(timesteps, int)
            else F.embedding(timesteps, self.gain)
        )
        scaled: Tensor = gain * self.linear(features)
        return scaled

    def product(self, features: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """scale ⊙ (L h) + shift, for a scale and a shift of shape (F,)."""
        weight = self.linear.weight
        # In an exported graph the scaled weights are constants, of which large ones need memory.
        exporting = torch.compiler.is_exporting()
        if weight.numel() < _SMALL if exporting else features.numel() > weight.numel():
            return F.linear(features, scale[:, None] * weight, shift)
        return torch.addcmul(shift, F.linear(features, weight), scale)  # fewer rows than columns


class Denoiser(nn.Module):
    """The denoiser of DiffMIC-v2, position by position.

    h = softplus(BN(γ₁(t) ⊙ L₁[G ; y_t])) ⊙ x̄, then twice h = softplus(BN(γ(t) ⊙ L h)), then L₄ h.

    Parameters
    ----------
    num_classes : int
        C, the number of classes.
    feature_dim : int
        F, the width of the hidden layers.
    num_train_timesteps : int
        T, the number of timesteps, each with its own gains.
    """

    def __init__(self, num_classes: int, feature_dim: int, num_train_timesteps: int = 1000) -> None:
        super().__init__()
        widths = [2 * num_classes, feature_dim, feature_dim]
        self.layers = nn.ModuleList(
            TimeGain(width, feature_dim, num_train_timesteps) for width in widths
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(feature_dim) for _ in widths)
        self.out = nn.Linear(feature_dim, num_classes)

    mixes_positions = False  # each position stands for itself

    @property
    def num_classes(self) -> int:
        """C, the number of classes."""
        return self.out.out_features

    def forward(
        self, guidance: Tensor, noisy: Tensor, timesteps: Tensor | int, context: Tensor
    ) -> Tensor:
        """Prediction of the denoiser: noise, v, label or logits, by the parameterisation.

        Parameters
        ----------
        guidance, noisy : Tensor of shape (B, ..., C)
            Guidance map and noisy label map.
        timesteps : Tensor of shape (B, ...) or int
            Timestep of each position, or one for all.
        context : Tensor of shape (B, F)
            Context of each image.

        Returns
        -------
        Tensor of shape (B, ..., C)
        """
        h = self.inputs(guidance, noisy)
        for number, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            h = F.softplus(_batch_norm(norm, layer(h, timesteps)))  # type: ignore[arg-type]
            if number == 0:
                h = h * over_positions(context, h)
        output: Tensor = self.out(h)
        return output

    def inputs(self, guidance: Tensor, noisy: Tensor) -> Tensor:
        """Input of the first layer, [G ; y_t]."""
        return torch.cat([guidance, noisy], dim=-1)

    def folded(self, timesteps: Sequence[int]) -> "FoldedDenoiser":
        """Faster equivalent at the given timesteps, with batch norm in evaluation mode."""
        return FoldedDenoiser(self, timesteps)


class FoldedDenoiser:
    """Denoiser at fixed timesteps, with bias, gain and batch norm folded into one affine map.

    BN(γ(t) ⊙ (L h + b)) = s(t) ⊙ (L h) + c(t), with s(t) = γ(t) ⊙ g/σ and
    c(t) = (γ(t) ⊙ b − μ) ⊙ g/σ + β.

    Parameters
    ----------
    denoiser : Denoiser
        Trained denoiser.
    timesteps : sequence of int
        Timesteps at which it can be called; no others are allowed.
    """

    def __init__(self, denoiser: Denoiser, timesteps: Sequence[int]) -> None:
        self.inputs = denoiser.inputs
        self.layers = list(denoiser.layers)
        self.out = denoiser.out
        self.rows = {t: row for row, t in enumerate(timesteps)}
        index = torch.as_tensor(list(timesteps), device=denoiser.out.weight.device)
        self.scales, self.shifts = [], []  # (n, F) for each layer
        layer: Any
        norm: Any
        for layer, norm in zip(denoiser.layers, denoiser.norms, strict=True):
            factor = norm.weight / (norm.running_var + norm.eps).sqrt()
            gain = layer.gain[index]
            self.scales.append(gain * factor)
            self.shifts.append((gain * layer.bias - norm.running_mean) * factor + norm.bias)

    def __call__(self, guidance: Tensor, noisy: Tensor, t: int, context: Tensor) -> Tensor:
        """Output as of :meth:`Denoiser.forward`, for one of the fixed timesteps."""
        row = self.rows[t]
        h = self.inputs(guidance, noisy)
        for number, layer in enumerate(self.layers):
            scale, shift = self.scales[number][row], self.shifts[number][row]
            h = _softplus(layer.product(h, scale, shift))  # type: ignore[operator]
            if number == 0:
                h = h * over_positions(context, h)
        output: Tensor = self.out(h)
        return output
