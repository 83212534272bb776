"""The networks: backbone, prior, denoiser, and the network that composes them."""

from .backbone import Backbone, FeatureMaps, build_backbone, default_image_size
from .build import Architecture, architecture_from, build_network, carry_over
from .conditions import Conditions
from .denoiser import ContextFusion, Denoiser
from .network import DiffMICNetwork, DiffusionSettings
from .prior import DualGranularityPrior, GatedAttention, top_mean

__all__ = [
    "Architecture",
    "Backbone",
    "Conditions",
    "ContextFusion",
    "Denoiser",
    "DiffMICNetwork",
    "DiffusionSettings",
    "DualGranularityPrior",
    "FeatureMaps",
    "GatedAttention",
    "architecture_from",
    "build_backbone",
    "build_network",
    "carry_over",
    "default_image_size",
    "top_mean",
]
