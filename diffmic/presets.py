"""Named arrangements: constructor parameters of DiffMICClassifier."""

import difflib
from typing import Any

from .errors import InputError

PRESETS: dict[str, dict[str, Any]] = {
    # One backbone for everything, regions as windows of its features, a narrow denoiser.
    "default": {},
    # Four networks, crops of pixels, a wide denoiser that predicts noise (Yang et al., 2025).
    "paper-v2": {
        "backbone": "vit_small_patch16_224",
        "prior_backbone": "resnet18",
        "region_backbone": "resnet18",
        "image_size": 224,
        "n_regions": 6,
        "region_size": 32,
        "feature_dim": 6144,
        "num_train_timesteps": 1000,
        "num_steps": 10,
        "n_samples": 1,
        "recipe": "paper-v2",
        "max_epochs": 15,
    },
}


def preset_parameters(name: str) -> dict[str, Any]:
    """Constructor parameters of a preset.

    Raises
    ------
    InputError
        There is none of that name.
    """
    if name not in PRESETS:
        close = difflib.get_close_matches(str(name), PRESETS, n=1)
        raise InputError(
            f"There is no preset {name!r}; "
            + (f"did you mean {close[0]!r}? " if close else "")
            + f"There are: {', '.join(PRESETS)}."
        )
    return dict(PRESETS[name])
