"""Named presets of constructor parameters of DiffMICClassifier."""

import difflib
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import InputError
from ..training.recipe import PAPER_V1 as PAPER_V1_RECIPE


@dataclass(frozen=True)
class Preset:
    """A named set of constructor parameters, where they differ from the defaults."""

    summary: str
    parameters: dict[str, Any] = field(default_factory=dict)

    def on(self, summary: str, **parameters: Any) -> "Preset":
        """A preset with these parameters besides, or in place of its own."""
        return Preset(summary, self.parameters | parameters)


# Architecture, recipe and preprocessing of Yang et al., 2025; docs/presets.md says of every number
# whether the paper's description states it.
_PAPER_V2 = Preset(
    "DiffMIC-v2 as published: four networks, six crops of 32 pixels, width 6144, 1000 epochs.",
    {
        "backbone": "vit_small_patch16_224",
        "architecture": "paper-v2",
        "image_size": 224,
        "augment": "paper",
        "num_steps": 10,
        "n_draws": 1,
        "recipe": "paper-v2",
        "max_epochs": 15,
    },
)

# Architecture, recipe and preprocessing of Yang et al., 2023.
_PAPER_V1 = _PAPER_V2.on(
    "DiffMIC (v1) as published: drift to the prior, all 1000 steps, width 6144, 1000 epochs.",
    backbone="resnet18",
    architecture="paper-v1",
    num_steps=1000,
    recipe="paper-v1",
)

# At test its authors run only the last steps of the schedule of 1000, as it is.
_LAST_STEPS = replace(
    PAPER_V1_RECIPE, diffusion=replace(PAPER_V1_RECIPE.diffusion, timestep_spacing="last")
)

PRESETS: dict[str, Preset] = {
    "default": Preset("One shared backbone, a narrow denoiser, 20 epochs: minutes on a GPU."),
    "paper-v2": _PAPER_V2,
    "paper-v2-aptos": _PAPER_V2.on(
        "DiffMIC-v2 on APTOS 2019: grades of retinopathy in fundus photographs, 5 ordered classes.",
        task="ordinal",
        augment="paper-fundus",
    ),
    "paper-v2-ham10000": _PAPER_V2.on(
        "DiffMIC-v2 on HAM10000: skin lesions in dermatoscopy, 7 classes.",
        task="multiclass",
    ),
    "paper-v2-chestxray14": _PAPER_V2.on(
        "DiffMIC-v2 on ChestX-ray14: 14 findings and 'no finding' in chest X-rays, multi-label.",
        task="multilabel",
        augment="paper-chest",
    ),
    "paper-v2-pmg2000": _PAPER_V2.on(
        "DiffMIC-v2 on PMG2000, which is not public: placental ultrasound, 4 classes.",
        task="multiclass",
    ),
    "paper-v1": _PAPER_V1,
    "paper-v1-aptos": _PAPER_V1.on(
        "DiffMIC (v1) on APTOS 2019: 5 ordered classes, the last 60 of 1000 steps.",
        task="ordinal",
        augment="paper-fundus",
        recipe=_LAST_STEPS,
        num_steps=60,
    ),
    "paper-v1-isic2018": _PAPER_V1.on(
        "DiffMIC (v1) on ISIC 2018 task 3: skin lesions, 7 classes, the last 250 of 1000 steps.",
        task="multiclass",
        recipe=_LAST_STEPS,
        num_steps=250,
    ),
}


def list_presets() -> dict[str, str]:
    """Names of the presets that ``DiffMICClassifier.from_preset`` knows.

    Returns
    -------
    dict of str to str
        For each name, what the preset is, in one line.
    """
    return {name: preset.summary for name, preset in PRESETS.items()}


def preset_parameters(name: str) -> dict[str, Any]:
    """Constructor parameters of a preset, after a check that it is known."""
    if name not in [*PRESETS]:  # also what cannot be hashed
        close = difflib.get_close_matches(str(name), PRESETS, n=1)
        raise InputError(
            f"There is no preset {name!r}; "
            + (f"did you mean {close[0]!r}? " if close else "")
            + f"There are: {', '.join(PRESETS)}."
        )
    return dict(PRESETS[name].parameters)
