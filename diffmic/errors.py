"""The errors that diffmic raises: one small hierarchy, each message with its way out."""


class DiffMICError(Exception):
    """Base class of every error that diffmic raises on purpose."""


class InputError(DiffMICError, ValueError):
    """Images, targets or parameters cannot be used; the message says why and what to do."""


class BackboneError(InputError):
    """A backbone does not exist, returns no feature map, or does not fit the image size."""


class PretrainedWeightsError(DiffMICError, OSError):
    """Pretrained weights were asked for and could not be had."""


class ModelFileError(DiffMICError, ValueError):
    """A saved model is missing, damaged or made for something else."""


class HubError(DiffMICError, OSError):
    """The Hugging Face Hub cannot be reached, or does not allow what was asked."""


class TrainingDivergedError(DiffMICError, RuntimeError):
    """The loss stopped being a finite number; the estimator keeps the last good state."""


class DiffMICWarning(UserWarning):
    """Something works, but perhaps not as hoped: a weak diffusion stage, a missing calibration."""
