"""Trackers of experiments (TensorBoard, MLflow, Weights & Biases, ...) as a callback."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError, warn_user
from .callbacks import Callback, Moment


class Trackers(Callback):
    """Sends the metrics of each epoch to trackers of experiments, through Accelerate.

    Names are ``prior/validation_nll`` and so on, the step is the number of epochs of both stages;
    at the end follow the cross-fitted ``final/diffusion_auc`` and so on. A tracker that fails in
    the middle of a fit is left out from there on, with a warning. Needs ``pip install
    'diffmic[accelerate]'`` and the package of the tracker.

    Parameters
    ----------
    log_with : str, accelerate.tracking.GeneralTracker, or list of these
        Trackers: ``"tensorboard"``, ``"mlflow"``, ``"wandb"``, ``"comet_ml"``, ``"aim"``, ... or
        one of your own.
    folder : str, Path or None
        Folder for what they write; TensorBoard needs one.
    project : str, default="diffmic"
        Name of the project or experiment.
    config : mapping or None
        Values to record with the run, such as ``clf.get_params()``. What is no number, text or
        truth value is recorded as text.
    init_kwargs : mapping or None
        Further arguments by the name of the tracker, as in ``Accelerator.init_trackers``:
        ``{"wandb": {"entity": "my-team"}}``.
    """

    def __init__(
        self,
        log_with: Any,
        folder: str | Path | None = None,
        *,
        project: str = "diffmic",
        config: Mapping[str, Any] | None = None,
        init_kwargs: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.log_with = log_with
        self.folder = folder
        self.project = project
        self.config = config
        self.init_kwargs = init_kwargs
        self._open: list[Any] = []

    def on_fit_start(self, moment: Moment) -> None:
        """Start the trackers.

        Raises
        ------
        InputError
            A tracker is unknown, not installed, or has no folder; or other processes of torchrun
            would be waited for.
        """
        self._open = []
        accelerator = self._accelerator()
        asked = self.log_with if isinstance(self.log_with, (list, tuple)) else [self.log_with]
        config = None if self.config is None else {k: _plain(v) for k, v in self.config.items()}
        options = {name: dict(given) for name, given in (self.init_kwargs or {}).items()}
        accelerator.init_trackers(self.project, config, options)
        self._open = list(accelerator.trackers)
        names = {tracker.name for tracker in self._open}
        missing = [a for a in asked if isinstance(a, str) and a not in names and a != "all"]
        if missing or not self._open:
            self._close()
            raise InputError(
                f"Trackers: the package of {', '.join(map(repr, missing)) or 'a tracker'} is not "
                "installed; install it with pip, under the name that its tracker has."
            )

    def on_epoch_end(self, moment: Moment) -> None:
        """Send the metrics of an epoch."""
        values = {f"{moment.stage}/{name}": value for name, value in moment.metrics.items()}
        self._log(values, len(moment.history))

    def on_fit_end(self, moment: Moment) -> None:
        """Send the final metrics, and close the trackers."""
        if moment.metrics:
            values = {f"final/{name}": value for name, value in moment.metrics.items()}
            self._log(values, len(moment.history))
        self._close()

    def _accelerator(self) -> Any:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not (
            torch.distributed.is_available() and torch.distributed.is_initialized()
        ):
            raise InputError(
                "Trackers: this is one of several processes of torchrun, which Accelerate would "
                "wait for. Fit with distributed=True, or remove WORLD_SIZE from the environment."
            )
        try:
            from accelerate import Accelerator
        except ImportError as reason:
            raise InputError(
                "Trackers need accelerate, which is not installed: pip install "
                "'diffmic[accelerate]'"
            ) from reason
        folder = None if self.folder is None else Path(self.folder).expanduser()
        try:
            return Accelerator(log_with=self.log_with, project_dir=folder)
        except ValueError as reason:  # of an unknown name, or without the folder it needs
            raise InputError(
                f"Trackers: log_with is {self.log_with!r}, folder is {self.folder!r}: {reason}"
            ) from reason

    def _log(self, values: dict[str, float], step: int) -> None:
        for tracker in [*self._open]:
            self._tried(tracker, tracker.log, values, step)

    def _close(self) -> None:
        for tracker in [*self._open]:  # end_training() would also end the process group
            self._tried(tracker, tracker.finish)
        self._open = []

    def _tried(self, tracker: Any, action: Callable[..., Any], *given: Any) -> None:
        try:
            action(*given)
        except Exception as reason:  # of a server far away: no reason to lose hours of training
            self._open.remove(tracker)
            warn_user(
                f"The tracker {tracker.name!r} failed, and gets nothing more of this fit: "
                f"{type(reason).__name__}: {reason}"
            )


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)
