"""How the two stages learn: every number of the training recipe, in one place."""

from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, Literal

from ..errors import InputError
from ..model import DiffusionSettings

_LEAST = {"n_views": 0, "steps_per_epoch": 1, "batch_size": 2, "n_positions": 1}


@dataclass(frozen=True)
class Recipe:
    """A training recipe; the defaults are the one that the estimator uses.

    Attributes
    ----------
    diffusion : DiffusionSettings
        Parameterisation, guidance, start and grid.
    branch_losses : bool
        Stage one: each branch of the prior has its own loss, beside the fused prior's.
    label_smoothing : float
        Stage one.
    weight_decay : float
        Stage one; AdamW.
    schedule : {"one-cycle", "cosine"}
        Of the learning rates of both stages.
    head_factor, pretrained_factor : float
        Stage one: learning rate of the new heads, and of a pretrained backbone, as multiples of
        the estimator's ``learning_rate``.
    cached : bool
        Stage two learns on conditions that were encoded once; False: the encoders that are not
        the prior's learn, too, and every epoch encodes anew.
    n_views : int
        Augmented views of each image in the cache, beside the image itself.
    alpha, gamma : float
        Focal weights 1 + α (1 − p)^γ of images that the prior gets wrong.
    context_dropout, feature_noise : float
        Dropout on the context, and Gaussian noise on the cached features, in their standard
        deviations: the prior of a training image is too good, so conditions are blurred, and the
        guidance is what the prior says of the blurred ones.
    balance : float
        Classes are drawn in proportion to count^-balance beside their own share: 0 as they are,
        1 evenly. Multi-label images are drawn as they are.
    steps_per_epoch, batch_size, n_positions : int
        Stage two: steps for each of the estimator's ``max_epochs``, images a step, positions of
        the label map an image. Where there are few images, fewer steps: four passes over the
        cached views, or 20 steps if that is more.
    denoiser_learning_rate, denoiser_weight_decay : float
        Stage two; AdamW with a one-cycle schedule.
    stacked : bool
        The calibration of the diffusion stage weighs the prior's logits beside its scores.
    ema : float or None
        Horizon of the moving average of the denoiser's weights, as a share of all steps.
    half_weights : bool
        When a stage ends its weights are rounded to half precision, before anything is fitted on
        what they give: then a file of half the size holds the very same model.
    """

    diffusion: DiffusionSettings = field(default_factory=DiffusionSettings)
    branch_losses: bool = True
    label_smoothing: float = 0.05
    weight_decay: float = 0.05
    schedule: Literal["one-cycle", "cosine"] = "one-cycle"
    head_factor: float = 2.0
    pretrained_factor: float = 0.5
    cached: bool = True
    n_views: int = 4
    alpha: float = 0.0
    gamma: float = 1.0
    context_dropout: float = 0.5
    feature_noise: float = 4.0
    balance: float = 0.75
    steps_per_epoch: int = 60
    batch_size: int = 256
    n_positions: int = 8
    denoiser_learning_rate: float = 5e-3
    denoiser_weight_decay: float = 0.1
    stacked: bool = True
    ema: float | None = 0.1
    half_weights: bool = True

    def __post_init__(self) -> None:
        if self.schedule not in ("one-cycle", "cosine"):
            raise InputError(f"schedule is {self.schedule!r}; give 'one-cycle' or 'cosine'.")
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if not isinstance(value, Integral) or value < least:
                raise InputError(f"{name} is {value!r}; it must be an integer of at least {least}.")


PAPER = Recipe(
    diffusion=DiffusionSettings(
        parameterization="noise",
        guidance="logits",
        start="uniform",
        grid="leading",
        readout="last",
    ),
    branch_losses=False,
    label_smoothing=0.0,
    weight_decay=0.0,
    schedule="cosine",
    head_factor=1.0,
    pretrained_factor=1.0,
    cached=False,
    n_views=0,
    alpha=10.0,
    context_dropout=0.0,
    feature_noise=0.0,
    balance=0.0,
    batch_size=32,
    n_positions=36,
    denoiser_learning_rate=1e-3,
    denoiser_weight_decay=0.0,
    stacked=False,
    ema=None,
    half_weights=False,
)

RECIPES = {"default": Recipe(), "paper-v2": PAPER}


def resolve_recipe(recipe: Any) -> Recipe:
    """A recipe by name, or as it is.

    Raises
    ------
    InputError
        An unknown name.
    """
    if isinstance(recipe, Recipe):
        return recipe
    if not isinstance(recipe, str) or recipe not in RECIPES:
        raise InputError(f"recipe is {recipe!r}; give one of {sorted(RECIPES)} or a Recipe.")
    return RECIPES[recipe]
