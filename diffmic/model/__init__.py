"""Networks: backbone, prior, denoiser, and the network composed of them."""

from .architecture import (
    ARCHITECTURES,
    Architecture,
    DiffusionSettings,
    NetworkPlan,
    resolve_architecture,
)
from .backbone import Backbone, FeatureMaps, build_backbone, default_image_size
from .build import build_network, carry_over, resolved, same_regions, zoom_size
from .conditions import Conditions
from .denoiser import ContextFusion, Denoiser
from .network import DiffMICNetwork
from .prior import DualGranularityPrior, GatedAttention, top_mean
from .vector import ImageContext, VectorDenoiser, VectorNetwork

__all__ = [
    "ARCHITECTURES",
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
    "ImageContext",
    "NetworkPlan",
    "VectorDenoiser",
    "VectorNetwork",
    "build_backbone",
    "build_network",
    "carry_over",
    "default_image_size",
    "resolve_architecture",
    "resolved",
    "same_regions",
    "top_mean",
    "zoom_size",
]
