"""Prediction engine, device and precision of the estimator."""

import copy
import threading
from dataclasses import replace
from typing import Any, Self

from ..engine import prediction_engine, usual_engine
from ..inference import Engine, FittedModel
from ..settings import undisturbed
from ..training import resolve_device
from ..training.precision import to_device
from .attributes import FittedAttributes
from .parameters import check_precision


class Engines(FittedAttributes):
    """Methods of the estimator that set its prediction engine, device and precision."""

    device: str
    precision: str
    num_steps: int

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
        engine = prediction_engine(network, kept(model.engine.kind), precision=precision)
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
        return usual_engine() if model is None else kept(model.engine.kind)


def kept(kind: str) -> str:
    """Kind of the engine of a model that was changed; one of ONNX Runtime is asked for anew."""
    return "plain" if kind == "plain" else "auto"


_REPLACING = threading.Lock()
