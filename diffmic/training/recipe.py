"""Training recipes: all hyperparameters of the two stages."""

import math
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from typing import Any, Literal

from ..errors import InputError
from ..inference.own_calibration import check_calibrator
from ..model import DiffusionSettings

_LEAST = {"n_cached_views": 0, "steps_per_epoch": 1, "batch_size": 2, "n_positions": 1}
_LEAST_OR_NONE = {"patience": 1, "denoiser_epochs": 1}


@dataclass(frozen=True)
class Recipe:
    """A training recipe; the defaults are the recipe ``"default"``.

    Attributes
    ----------
    diffusion : DiffusionSettings
        Settings of the diffusion: prediction type, guidance and sampling.
    branch_losses : bool
        Stage one: whether each branch of the prior has a loss in addition to that of the fused
        logits.
    label_smoothing : float
        Label smoothing of the losses of stage one.
    weight_decay : float
        Weight decay of AdamW in stage one.
    schedule : {"one-cycle", "cosine"}
        Learning-rate schedule of both stages.
    head_factor, pretrained_factor : float
        Learning rates of the new heads and of a pretrained backbone in stage one, as multiples of
        the estimator's ``learning_rate``.
    patience : int or None
        Early stopping: number of epochs without a better validation score after which a stage stops
        and its best epoch is restored; None: never. With a frozen prior, the denoiser is stopped
        early only if the recipe keeps no moving average of its weights (``ema`` is None).
    cached : bool
        Whether stage two is trained on conditions that are encoded once. False: the images are
        encoded in every epoch, and encoders that are not shared with the prior are trained, too.
    n_cached_views : int
        Cached views: number of augmented copies of each image in the cache, in addition to the
        image itself.
    alpha, gamma : float
        Parameters of the focal weights 1 + α (1 − p)^γ, where p is the probability that the prior
        gives to the truth.
    context_dropout, feature_noise : float
        Dropout rate of the context, and standard deviation of the feature noise in units of that of
        the features. The prior is over-confident on its training images; Gaussian noise is added to
        the cached features and the prior's logits are recomputed from them.
    balance : float
        Class-balanced sampling in stage two: an image of class c is drawn with probability
        ∝ count_c^(−balance); predictions are corrected for this. Images are drawn uniformly if they
        are multi-label or the estimator has a ``class_weight``.
    grade_weight : float
        Ordinal tasks: weight of the ranked probability score, which is added to the cross-entropy
        of the prior, and to that of the denoiser if it predicts probabilities.
    denoiser_epochs : int or None
        Maximum number of epochs of stage two; None: the estimator's ``max_epochs``.
    steps_per_epoch : int
        Number of steps per epoch of a cached stage two. With few images it is limited to four
        passes over the cached views or to 20 steps, whichever is more.
    batch_size, n_positions : int
        Mini-batch size of stage two, and number of positions of the label map sampled per image.
    denoiser_learning_rate, denoiser_weight_decay : float
        Learning rate and weight decay of AdamW in stage two.
    stacked : bool
        Whether the calibration of the diffusion adds the logits of the prior with a fitted weight.
    ema : float or None
        Horizon of the exponential moving average of the denoiser's weights, as a fraction of all
        steps; None: no average, unless ``ema_decay`` is given.
    ema_decay : float or None
        Decay of that average at each step, in place of ``ema``; it suits runs of many more than
        1 / (1 − decay) steps.
    joint : bool
        Whether stage two goes on training the prior, together with the denoiser and on images, as
        in DiffMIC (v1); its learning rates are those of stage one. False: the prior is frozen.
    half_weights : bool
        Whether weights are rounded to half precision at the end of each stage, before the
        calibration, so that a file of half the size stores the same model.
    prior_loss, denoiser_loss : callable or None
        Losses of your own for stage one and stage two, each a :class:`~diffmic.parts.Loss`; None:
        cross-entropy with ``label_smoothing`` in stage one; in stage two cross-entropy or, for
        other prediction types than "probability", the squared error.
    calibration : object or None
        Calibration of your own, a :class:`~diffmic.parts.Calibrator`, such as a classifier of
        scikit-learn; None: a temperature, and the weight of the prior.
    """

    diffusion: DiffusionSettings = field(default_factory=DiffusionSettings)
    branch_losses: bool = True
    label_smoothing: float = 0.05
    weight_decay: float = 0.05
    schedule: Literal["one-cycle", "cosine"] = "one-cycle"
    head_factor: float = 2.0
    pretrained_factor: float = 0.5
    patience: int | None = 10
    cached: bool = True
    n_cached_views: int = 4
    alpha: float = 0.0
    gamma: float = 1.0
    context_dropout: float = 0.5
    feature_noise: float = 4.0
    balance: float = 0.75
    grade_weight: float = 0.0
    denoiser_epochs: int | None = None
    steps_per_epoch: int = 60
    batch_size: int = 256
    n_positions: int = 8
    denoiser_learning_rate: float = 5e-3
    denoiser_weight_decay: float = 0.1
    stacked: bool = True
    ema: float | None = 0.1
    ema_decay: float | None = None
    joint: bool = False
    half_weights: bool = True
    prior_loss: Any = None
    denoiser_loss: Any = None
    calibration: Any = None

    def __post_init__(self) -> None:
        if not self.cached and (self.feature_noise or self.n_cached_views):
            raise InputError(
                f"feature_noise is {self.feature_noise!r} and n_cached_views is "
                f"{self.n_cached_views!r}, but cached is False: both are of cached features. Set "
                "feature_noise=0.0 and n_cached_views=0, or cached=True."
            )
        self._check_joint()
        self._check_average()
        if self.diffusion.process == "drift" and (self.alpha or self.n_positions != 1):
            raise InputError(
                f"alpha is {self.alpha!r} and n_positions is {self.n_positions!r}, but the process "
                "is 'drift', which has no focal weights and one position: set alpha=0.0 and "
                "n_positions=1."
            )
        if self.schedule not in ("one-cycle", "cosine"):
            raise InputError(f"schedule is {self.schedule!r}; give 'one-cycle' or 'cosine'.")
        for name in ("prior_loss", "denoiser_loss"):
            if (loss := getattr(self, name)) is not None and not callable(loss):
                raise InputError(f"{name} is {loss!r}; give None, or a function of output, target.")
        check_calibrator(self.calibration)
        if not isinstance(self.grade_weight, int | float) or not 0 <= self.grade_weight < math.inf:
            raise InputError(f"grade_weight is {self.grade_weight!r}; give a number of at least 0.")
        optional = {n: x for n, x in _LEAST_OR_NONE.items() if getattr(self, n) is not None}
        for name, least in (_LEAST | optional).items():
            value = getattr(self, name)
            if not isinstance(value, Integral) or value < least:
                raise InputError(f"{name} is {value!r}; it must be an integer of at least {least}.")

    def _check_joint(self) -> None:
        if not isinstance(self.joint, bool):
            raise InputError(f"joint is {self.joint!r}; give True or False.")
        if self.joint and (self.cached or self.balance):
            raise InputError(
                f"joint is True, cached is {self.cached!r} and balance is {self.balance!r}: the "
                "prior is trained on images, drawn as they are. Set cached=False, "
                "feature_noise=0.0, n_cached_views=0 and balance=0.0, or joint=False."
            )

    def _check_average(self) -> None:
        decay = self.ema_decay
        if decay is not None and (not isinstance(decay, Real) or not 0 <= float(decay) < 1):
            raise InputError(f"ema_decay is {decay!r}; it must be a number from 0 to below 1.")
        if decay is not None and self.ema is not None:
            raise InputError(
                f"ema is {self.ema!r} and ema_decay is {decay!r}: both set the same average. Set "
                "one of them to None."
            )


PAPER = Recipe(
    diffusion=DiffusionSettings(
        prediction_type="noise",
        guidance="logits",
        start="uniform",
        timestep_spacing="leading",
        readout="last",
    ),
    branch_losses=False,
    label_smoothing=0.0,
    weight_decay=0.0,
    schedule="cosine",
    head_factor=1.0,
    pretrained_factor=1.0,
    cached=False,
    n_cached_views=0,
    alpha=10.0,
    context_dropout=0.0,
    feature_noise=0.0,
    balance=0.0,
    patience=1000,  # all epochs are run, and the best one by validation score is kept
    denoiser_epochs=1000,
    batch_size=32,
    n_positions=36,
    denoiser_learning_rate=1e-3,
    denoiser_weight_decay=0.0,
    stacked=False,
    ema=None,
    half_weights=False,
)

# What differs from the recipe of DiffMIC-v2.
PAPER_V1 = replace(
    PAPER,
    diffusion=DiffusionSettings(
        process="drift",
        prediction_type="noise",
        guidance="probabilities",
        sampler="ancestral",
        readout="last",
    ),
    alpha=0.0,
    n_positions=1,
    ema_decay=0.9999,
    joint=True,
)

RECIPES = {"default": Recipe(), "paper-v2": PAPER, "paper-v1": PAPER_V1}


def resolve_recipe(recipe: Any) -> Recipe:
    """Recipe from its name; a :class:`Recipe` is returned unchanged.

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
