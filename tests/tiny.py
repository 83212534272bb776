"""Networks, recipes and images so small that a fit takes part of a second."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from diffmic.inference import SamplingOptions
from diffmic.model import Architecture
from diffmic.training import Recipe, TrainingOptions

RECIPE = Recipe(
    n_cached_views=1,
    context_dropout=0.0,
    feature_noise=0.0,
    steps_per_epoch=10,
    batch_size=32,
    n_positions=4,
    denoiser_learning_rate=3e-2,
)

TRAINING = TrainingOptions(
    recipe=RECIPE,
    image_size=32,
    max_epochs=2,
    batch_size=16,
    learning_rate=1e-2,
    pretrained=False,
    augment=None,
    num_workers=0,
    sampling=SamplingOptions(num_steps=3, n_draws=2),
    precision="fp32",
    device=torch.device("cpu"),
    seed=0,
)


class TinyBackbone(nn.Module):
    """Two convolutions: images of 32 pixels become 4 × 4 cells. Always the same weights."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            self.layers = nn.Sequential(
                nn.Conv2d(3, channels, 5, stride=4, padding=2, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
                nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(2 * channels),
                nn.ReLU(),
            )

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.layers(images)
        return features


class DenseBackbone(nn.Module):
    """Images of 8 pixels become 2 × 2 cells, each of which sees every pixel."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            self.layers = nn.Sequential(
                nn.Flatten(),
                nn.Linear(3 * 8 * 8, 4 * channels, bias=False),
                nn.BatchNorm1d(4 * channels),
                nn.ReLU(),
                nn.Unflatten(1, (channels, 2, 2)),
            )

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.layers(images)
        return features


def learnt(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Parameters by name, without biases that a batch norm takes away again."""
    named = module.named_parameters()
    return [(name, weight) for name, weight in named if not name.endswith("_projection.bias")]


def stripes(
    n_samples: int = 60, *, n_classes: int = 3, size: int | Sequence[int] = 32, seed: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Gray images (n, H, W): horizontal stripes, vertical stripes, or none."""
    height, width = (size, size) if isinstance(size, int) else size
    rng = np.random.RandomState(seed)
    y = rng.permutation(np.arange(n_samples) % n_classes)
    rows, columns = np.mgrid[:height, :width]
    patterns = np.stack([rows // 2 % 2, columns // 2 % 2, np.full_like(rows, 0.5, float)])
    shades = 0.3 + 0.4 * patterns[y] + 0.1 * rng.randn(n_samples, height, width)
    return (shades.clip(0, 1) * 255).astype(np.uint8), y


def small(**parameters: Any) -> dict[str, Any]:
    """Constructor parameters of a tiny classifier; those of its architecture can be given, too."""
    names = {field.name for field in fields(Architecture)}
    own = {name: parameters.pop(name) for name in names & set(parameters)}
    # Else what is learnt depends on whether the CPU has instructions for bf16.
    precision = "fp32" if parameters.get("device", "cpu") == "cpu" else "auto"
    return {
        "backbone": TinyBackbone(),
        "architecture": Architecture(**{"feature_dim": 16, "num_train_timesteps": 50, **own}),
        "recipe": RECIPE,
        "num_steps": 3,
        "n_draws": 2,
        "max_epochs": 3,
        "learning_rate": 1e-2,
        "validation_fraction": 0.25,
        "random_state": 0,
        "device": "cpu",
        "precision": precision,
        "verbose": 0,
    } | parameters
