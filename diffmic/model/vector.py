"""The networks of DiffMIC (v1): context of the whole image, vector denoiser, and the network.

In the notation of the paper, ŷ is the prediction of the prior, in probabilities, y_t the noisy
label, and x the features of the image. A label is a single vector of class probabilities, no map.

References
----------
Yang et al., "DiffMIC: Dual-Guidance Diffusion Network for Medical Image Classification", MICCAI
2023.
"""

import torch
from torch import Tensor, nn

from ..diffusion import Denoised, DriftProcess
from ..tasks import Task
from .conditions import Conditions
from .denoiser import Denoiser
from .network import DiffMICNetwork, Watch
from .own import OwnDenoiser


class ImageContext(nn.Module):
    """Context x̄ = BN(projection of the pooled features of the image); regions have no part in it.

    Parameters
    ----------
    image_channels : int
        Number of channels of the image features.
    feature_dim : int
        F, the width of the context.
    dropout : float
        Dropout rate of the context in training.
    """

    def __init__(self, image_channels: int, feature_dim: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.image_projection = nn.Linear(image_channels, feature_dim)
        self.image_norm = nn.BatchNorm1d(feature_dim)
        self.image_projection.bias.requires_grad_(False)  # as in ContextFusion
        self.dropout = nn.Dropout(dropout)

    def forward(self, image_features: Tensor) -> Tensor:
        """Context (B, F) from image features (B, D)."""
        context: Tensor = self.dropout(self.image_norm(self.image_projection(image_features)))
        return context


class VectorDenoiser(Denoiser):
    """The denoiser of DiffMIC (v1), ε̂ = ε_θ(y_t, ŷ, x, t), on one vector per image.

    h = softplus(BN(γ₁(t) ⊙ L₁[y_t ; ŷ])) ⊙ x̄, then twice h = softplus(BN(γ(t) ⊙ L h)), then
    ε̂ = L₄ h. The layers are those of :class:`Denoiser`, whose two inputs come in the other order.
    """

    def inputs(self, guidance: Tensor, noisy: Tensor) -> Tensor:
        """Input of the first layer, [y_t ; ŷ]."""
        return torch.cat([noisy, guidance], dim=-1)


class VectorNetwork(DiffMICNetwork):
    """Network of DiffMIC (v1): prior, image encoder, vector denoiser and drift process.

    The prior is that of DiffMIC-v2, with a global and a local branch. Parameters are those of
    :class:`DiffMICNetwork`; there is no region encoder, and the process is a
    :class:`~diffmic.diffusion.DriftProcess`.
    """

    process: DriftProcess
    denoiser: VectorDenoiser | OwnDenoiser
    context: ImageContext

    def guidance(self, conditions: Conditions) -> Tensor:
        """Prediction of the prior ŷ = softmax(y_f), (B, C); multi-label: its sigmoid."""
        return self.task.probabilities(conditions.fused_logits)

    def branch_guidance(self, conditions: Conditions) -> tuple[Tensor, Tensor]:
        """Predictions ŷ_g and ŷ_l of the global and the local branch alone, each (B, C)."""
        global_logits, local_logits = conditions.global_logits, conditions.local_logits
        return self.task.probabilities(global_logits), self.task.probabilities(local_logits)

    def estimates(self, output: Tensor, noisy: Tensor, t: int, guidance: Tensor) -> Denoised:
        """Estimates ŷ₀ and ε̂ for noisy labels y_t (B, ..., C)."""
        return self.process.denoised(output, noisy, t, guidance)

    def sample(
        self,
        conditions: Conditions,
        noise: Tensor,
        *,
        num_steps: int,
        dense: bool = False,
        watch: Watch | None = None,
    ) -> Tensor:
        """Sample class scores (B, S, C) in 0–1, the :func:`label_scores` of the final vector.

        Parameters are those of :meth:`DiffMICNetwork.sample`, for noise (S, T + 1, C) and vectors
        (B, S, C). ``dense`` has no effect: there is one position.
        """
        guidance = self.guidance(conditions)[:, None].expand(-1, noise.shape[0], -1)
        context = self.context(conditions.image_features)
        last, _ = self._backward(guidance, noise, context, num_steps, watch)
        return label_scores(last, self.task)


def label_scores(label: Tensor, task: Task) -> Tensor:
    """Scores of a denoised label (..., C): its softmax, as in the authors' code.

    Multi-label: for each label the softmax of its two values, present ŷ₀ and absent 1 − ŷ₀, which
    is sigmoid(2 ŷ₀ − 1).
    """
    return task.probabilities(label if task.exclusive else 2 * label - 1)
