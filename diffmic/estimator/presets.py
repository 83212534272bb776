"""Named presets of constructor parameters of DiffMICClassifier."""

import difflib
from typing import Any

from ..errors import InputError

PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    # Architecture and recipe of Yang et al., 2025; docs/method.md lists the differences.
    "paper-v2": {
        "backbone": "vit_small_patch16_224",
        "architecture": "paper-v2",
        "image_size": 224,
        "num_steps": 10,
        "n_draws": 1,
        "recipe": "paper-v2",
        "max_epochs": 15,
    },
}


def preset_parameters(name: str) -> dict[str, Any]:
    """Constructor parameters of a preset.

    Raises
    ------
    InputError
        Unknown preset.
    """
    if name not in PRESETS:
        close = difflib.get_close_matches(str(name), PRESETS, n=1)
        raise InputError(
            f"There is no preset {name!r}; "
            + (f"did you mean {close[0]!r}? " if close else "")
            + f"There are: {', '.join(PRESETS)}."
        )
    return dict(PRESETS[name])
