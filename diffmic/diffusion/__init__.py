"""The mathematics of DiffMIC-v2: pure functions and tables on tensors.

Label maps carry their classes last: (B, K, C) by distance, (B, K, K, C) in full.
"""

from .guidance import (
    dense_guidance_map,
    distance_weights,
    expand_distances,
    guidance_by_distance,
    position_distances,
    scores_by_distance,
)
from .losses import (
    focal_loss,
    focal_weights,
    prior_confidence,
    weighted_cross_entropy,
    weighted_mse,
)
from .parameterization import PARAMETERIZATIONS, Denoised, Parameterization
from .samplers import SAMPLERS, ddim, dpm_solver_pp_2m
from .schedule import TIMESTEP_GRIDS, NoiseSchedule, leading_timesteps, trailing_timesteps

__all__ = [
    "PARAMETERIZATIONS",
    "SAMPLERS",
    "TIMESTEP_GRIDS",
    "Denoised",
    "NoiseSchedule",
    "Parameterization",
    "ddim",
    "dense_guidance_map",
    "distance_weights",
    "dpm_solver_pp_2m",
    "expand_distances",
    "focal_loss",
    "focal_weights",
    "guidance_by_distance",
    "leading_timesteps",
    "position_distances",
    "prior_confidence",
    "scores_by_distance",
    "trailing_timesteps",
    "weighted_cross_entropy",
    "weighted_mse",
]
