"""The diffusion process of DiffMIC-v2: pure functions and buffers.

The last dimension of label maps is the classes: (B, K, C) by distance, (B, K, K, C) in full.
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
    weighted_mse,
)
from .parameterization import PARAMETERIZATIONS, Denoised, Parameterization
from .process import LabelMapProcess, Process
from .samplers import SAMPLERS, ddim, dpm_solver_pp_2m
from .schedule import TIMESTEP_SPACINGS, NoiseSchedule, leading_timesteps, trailing_timesteps

__all__ = [
    "PARAMETERIZATIONS",
    "SAMPLERS",
    "TIMESTEP_SPACINGS",
    "Denoised",
    "LabelMapProcess",
    "NoiseSchedule",
    "Parameterization",
    "Process",
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
    "scores_by_distance",
    "trailing_timesteps",
    "weighted_mse",
]
