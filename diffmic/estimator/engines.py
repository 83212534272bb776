"""Prediction engine, device and precision of the estimator."""

import copy
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from ..engine import prediction_engine, usual_engine
from ..errors import InputError
from ..inference import Engine, FittedModel
from ..settings import undisturbed
from ..training import resolve_device
from ..training.precision import to_device
from .attributes import FittedAttributes
from .parameters import check_precision, sampling_options


class Engines(FittedAttributes):
    """Methods of the estimator that set its prediction engine, device and precision."""

    device: str
    precision: str
    num_steps: int
    get_params: Any  # of BaseEstimator

    @undisturbed
    def compile(self, engine: str = "auto") -> Self:
        """Rebuild the prediction engine, e.g. after weights of ``network_`` were changed by hand.

        Parameters
        ----------
        engine : {"auto", "plain", "onnxruntime"}, default="auto"
            Engine to build. Auto: a copy of the network, rewritten for faster predictions that
            agree up to rounding. Plain: the network itself, nothing rewritten; with the environment
            variable ``DIFFMIC_ENGINE=plain`` this is what fits and loading build, too.
            ``"onnxruntime"``: the network exported and run by ONNX Runtime on a CPU (``pip install
            "diffmic[onnx]"``), which takes about 20 seconds to build; it is built for the present
            ``num_steps``. A pickled or copied estimator, and the next fit, go back to "auto".

        Returns
        -------
        DiffMICClassifier
            The estimator itself.

        Raises
        ------
        NotFittedError
            There is no fitted model.
        InputError
            Unknown engine, or ONNX Runtime is missing or cannot run the network.
        """
        while True:
            model = self._fitted()
            made = self._compiled(model, engine)
            if self._replaced(model, model.with_engine(made)):
                return self

    @undisturbed
    def export_onnx(
        self, path: str | Path, *, num_steps: int | None = None, n_draws: int | None = None
    ) -> Path:
        """Export the model as one ONNX file, from uint8 images to calibrated probabilities.

        The graph takes ``images``, uint8 of shape (n, 3, S, S), resized to ``image_size_`` (floats
        in 0–1 for a model with a ``value_range``), and gives ``probabilities`` and
        ``prior_probabilities``, each (n, C), for any n. The start noise is part of it. Classes,
        thresholds and preprocessing are in its metadata, under the key ``diffmic``.
        :class:`diffmic.runtime.OnnxClassifier` predicts files and arrays with it, without torch.

        Parameters
        ----------
        path : str or Path
            File to write, such as ``"model.onnx"``; one that exists is replaced.
        num_steps, n_draws : int or None, default=None
            Numbers of sampler steps and draws of the graph; None: those of the estimator.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        NotFittedError
            There is no fitted model.
        InputError
            The packages for ONNX are missing (``pip install "diffmic[onnx]"``), an option is
            invalid, or the network cannot be exported.
        """
        from ..engine.onnx import export_onnx

        model, file = self._fitted(), Path(path).expanduser()
        if not file.parent.is_dir():
            raise InputError(f"There is no folder {str(file.parent)!r} to write {file.name!r} to.")
        if file.is_dir():
            raise InputError(f"{str(path)!r} is a folder; give a file, such as 'model.onnx'.")
        asked = {"num_steps": num_steps, "n_draws": n_draws}
        n_timesteps = model.plan.architecture.num_train_timesteps
        export_onnx(model, file, sampling_options(self.get_params(deep=False), asked, n_timesteps))
        return file

    def to(self, device: str) -> Self:
        """Move the model to a device, which predictions and further fits will use."""
        return self.set_params(device=device)

    @undisturbed
    def set_params(self, **params: Any) -> Self:
        """Set parameters; a new device or precision applies to a fitted model immediately.

        If the model cannot be run so, nothing is set.
        """
        model: FittedModel | None = vars(self).get("model_")
        if model is None or not {"device", "precision"} & set(params):
            super().set_params(**params)  # type: ignore[misc]
            return self
        new = self._run_by(
            model, params.get("device", self.device), params.get("precision", self.precision)
        )
        super().set_params(**params)  # type: ignore[misc]
        while not self._replaced(model, new):  # a fit has ended meanwhile
            model = self._fitted()
            new = self._run_by(model, self.device, self.precision)
        return self

    def _compiled(self, model: FittedModel, kind: str) -> Engine:
        if kind != "onnxruntime":
            return prediction_engine(model.network, kind, precision=self.precision)
        from ..engine.onnx import onnx_engine  # the exporter takes seconds to import

        return onnx_engine(model.network, model.input_size, [self.num_steps])

    def _run_by(self, model: FittedModel, device: str, precision: str) -> FittedModel:
        """The model on a device and in a precision; the old one stays as it is, where it is."""
        check_precision(precision)
        target, network = resolve_device(device), model.network
        if target.type != model.device.type or target.index not in (None, model.device.index):
            network = copy.deepcopy(network)
            to_device(network, target)
        kind = _kept(model.engine.kind)
        engine = prediction_engine(network, kind, precision=precision)
        return replace(model, network=network, engine=engine)

    def _replaced(self, old: FittedModel, new: FittedModel) -> bool:
        """Put a model in the place of another, unless a fit has put a third one there."""
        with _REPLACING:
            if vars(self).get("model_") is not old:
                return False
            self.model_ = new
            return True

    def _engine_kind(self) -> str:
        """Engine of the present model, which the next fit keeps, or else the usual one."""
        model: FittedModel | None = vars(self).get("model_")
        return usual_engine() if model is None else _kept(model.engine.kind)


def _kept(kind: str) -> str:
    """Kind of the engine of a model that was changed; one of ONNX Runtime is asked for anew."""
    return "plain" if kind == "plain" else "auto"


_REPLACING = threading.Lock()
