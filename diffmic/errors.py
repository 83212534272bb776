"""Exceptions and warnings of diffmic; each message says what to do."""

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class DiffMICError(Exception):
    """Base class of all errors that diffmic raises deliberately."""


class InputError(DiffMICError, ValueError):
    """Images, targets or parameters cannot be used; the message says why and what to do."""


class BackboneError(InputError):
    """A backbone does not exist, returns no feature map, or does not fit the image size."""


class PartError(InputError):
    """A part of one's own gives what cannot be used; the message names it and what was expected."""


class PretrainedWeightsError(DiffMICError, OSError):
    """Pretrained weights were requested and could not be loaded."""


class ModelFileError(DiffMICError, ValueError):
    """A saved model is missing, damaged or does not match what it is loaded for."""


class CheckpointError(DiffMICError, ValueError):
    """A checkpoint is damaged, of another version, or of other data or parameters."""


class HubError(DiffMICError, OSError):
    """The Hugging Face Hub cannot be reached or refuses the request."""


class TrainingDivergedError(DiffMICError, RuntimeError):
    """The loss or a weight became NaN or infinite; the estimator keeps the last good state."""


class ProcessesError(DiffMICError, RuntimeError):
    """Another process of the same fit failed or no longer answers, so this one cannot go on."""


class DiffMICWarning(UserWarning):
    """A result may not be as expected, e.g. a weak diffusion stage or a missing calibration."""


_QUIET = ContextVar("quiet", default=False)


@contextmanager
def quiet() -> Iterator[None]:
    """Context in which :func:`warn_user` says nothing, as another process does."""
    before = _QUIET.set(True)
    try:
        yield
    finally:
        _QUIET.reset(before)


_SKIPPED = ("diffmic.", "sklearn.")  # the latter calls the estimator, and wraps its transform


def warn_user(message: str) -> None:
    """Issue a warning that points at the line of user code that called into diffmic."""
    if _QUIET.get():
        return
    level, frame = 1, inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").startswith(_SKIPPED):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, DiffMICWarning, stacklevel=level)
