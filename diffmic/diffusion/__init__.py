"""The diffusion processes of DiffMIC-v2 and DiffMIC (v1): pure functions and buffers.

The last dimension of label maps is the classes: (B, K, C) by distance, (B, K, K, C) in full.
"""

from .drift import DriftProcess, antithetic_timesteps, posterior
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
    mmd,
    weighted_mse,
)
from .parameterization import PARAMETERIZATIONS, Denoise, Denoised, Parameterization
from .process import LabelMapProcess, Process
from .samplers import SAMPLERS, ddim, dpm_solver_pp_2m
from .schedule import (
    TIMESTEP_SPACINGS,
    NoiseSchedule,
    last_timesteps,
    leading_timesteps,
    trailing_timesteps,
)

__all__ = [
    "PARAMETERIZATIONS",
    "SAMPLERS",
    "TIMESTEP_SPACINGS",
    "Denoise",
    "Denoised",
    "DriftProcess",
    "LabelMapProcess",
    "NoiseSchedule",
    "Parameterization",
    "Process",
    "antithetic_timesteps",
    "ddim",
    "dense_guidance_map",
    "distance_weights",
    "dpm_solver_pp_2m",
    "expand_distances",
    "focal_loss",
    "focal_weights",
    "guidance_by_distance",
    "last_timesteps",
    "leading_timesteps",
    "mmd",
    "position_distances",
    "posterior",
    "scores_by_distance",
    "trailing_timesteps",
    "weighted_mse",
]
