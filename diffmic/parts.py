"""Parts that can be swapped: what each takes and gives, as protocols.

================= ============================== ===================== ================
part              field                          protocol              needed to load
================= ============================== ===================== ================
prior             ``Architecture.prior``         :class:`Prior`        yes
region finder     ``Architecture.region_finder`` :class:`RegionFinder` yes
denoiser          ``Architecture.denoiser``      :class:`DenoiserPart` yes
process           ``DiffusionSettings.process``  :class:`Process`      yes
sampler           ``DiffusionSettings.sampler``  :class:`Sampler`      yes
loss of stage one ``Recipe.prior_loss``          :class:`Loss`         for further fits
loss of stage two ``Recipe.denoiser_loss``       :class:`Loss`         for further fits
calibration       ``Recipe.calibration``         :class:`Calibrator`   yes
================= ============================== ===================== ================

A field takes an object; prior, denoiser and process also a class or function that makes one from
the :class:`~diffmic.model.NetworkPlan`, which knows the numbers of classes and timesteps. A module
is copied, so that training does not change the original. What a part gives is checked: a
:class:`~diffmic.PartError` names the part, what it gave, and what was expected. ``save_pretrained``
saves the weights and the names of the parts; ``from_pretrained(path, parts={...})`` takes the parts
again.
"""

from .diffusion import Denoised, LabelMapProcess, NoiseSchedule, Process
from .errors import PartError
from .inference.own_calibration import Calibrator
from .model import Conditions, DiffusionSettings, NetworkPlan
from .model.own import DenoiserPart, Prior, RegionFinder
from .model.own_process import Sampler
from .training.own_loss import Loss

__all__ = [
    "Calibrator",
    "Conditions",
    "Denoised",
    "DenoiserPart",
    "DiffusionSettings",
    "LabelMapProcess",
    "Loss",
    "NetworkPlan",
    "NoiseSchedule",
    "PartError",
    "Prior",
    "Process",
    "RegionFinder",
    "Sampler",
]
