"""Export of the estimator's model to files that other programs run."""

import os
from pathlib import Path
from typing import Any

from ..conventions import is_number
from ..errors import InputError
from ..inference import SamplingOptions
from ..settings import undisturbed
from .attributes import FittedAttributes
from .parameters import sampling_options
from .prediction import prepared


class Exporting(FittedAttributes):
    """Methods of the estimator that export its model."""

    @undisturbed
    def export_onnx(
        self,
        path: str | Path,
        *,
        num_steps: int | None = None,
        n_draws: int | None = None,
        precision: str = "float32",
        images: Any = None,
        tolerance: float = 0.02,
    ) -> Path:
        """Export the model as one ONNX file, from uint8 images to calibrated probabilities.

        The graph takes ``images``, uint8 of shape (n, 3, S, S), resized to ``image_size_`` (floats
        in 0–1 for a model with a ``value_range``), and gives ``probabilities`` and
        ``prior_probabilities``, each (n, C), for any n. That of a zoom also takes ``originals``,
        (n, 3, Z, Z), resized to ``zoom_size`` of the metadata. The start noise is part of it.
        Classes, thresholds and preprocessing are in its metadata, under the key ``diffmic``.
        :class:`diffmic.runtime.OnnxClassifier` predicts files and arrays with it, without torch.

        Parameters
        ----------
        path : str or Path
            File to write, such as ``"model.onnx"``; one that exists is replaced.
        num_steps, n_draws : int or None, default=None
            Numbers of sampler steps and draws of the graph; None: those of the estimator.
        precision : {"float32", "float16", "int8"}, default="float32"
            Precision of the weights. ``"float16"``: stored in half precision, computed with in
            float32, so that the file is half as large; weights that a fit trained are so already,
            and stay exact. ``"int8"``: static quantization of the
            convolutions, whose activations are calibrated on ``images``. Both are compared with
            float32 on ``images``.
        images : like X of ``predict_proba``, default=None
            Some hundred images of the kind that the model is for; needed for ``"float16"`` and
            ``"int8"``. They are kept in memory, at the size that the graph takes.
        tolerance : float, default=0.02
            Largest difference of a probability of any of these images from that in float32. If it
            is larger, nothing is written.

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
            invalid, the network cannot be exported, or its probabilities differ by more than the
            tolerance.
        """
        from ..engine.onnx import export_onnx
        from ..engine.reduced import PRECISIONS, feeds
        from ..engine.whole import inputs_of

        model, file = self._fitted(), _target(path)
        if precision not in PRECISIONS:
            raise InputError(f"precision is {precision!r}; give one of {list(PRECISIONS)}.")
        if (images is None) != (precision == "float32"):
            raise InputError(
                "images are for precision 'float16' or 'int8' alone: float32 is what these are "
                "compared with."
                if precision == "float32"
                else f"precision is {precision!r}: pass images=..., some hundred of the kind that "
                "the model is for, on which it is compared with float32."
            )
        if not is_number(tolerance) or not tolerance > 0:
            raise InputError(f"tolerance is {tolerance!r}; it must be a number above 0.")
        options, batches = self._sampling(num_steps, n_draws), []
        if images is not None:
            loaded, _ = prepared(model, self._parameters, images)
            batches = feeds(loaded, [*inputs_of(model)], floats=model.value_range is not None)
        how: dict[str, Any] = {"images": batches, "tolerance": float(tolerance)}
        export_onnx(model, file, options, precision=precision, **how)
        return file

    @undisturbed
    def export_torch(
        self, path: str | Path, *, num_steps: int | None = None, n_draws: int | None = None
    ) -> Path:
        """Export the model as one program of ``torch.export``, which needs torch but not diffmic.

        The program takes and gives what the graph of :meth:`export_onnx` does. Read and run it by
        ``torch.export.load(path).module()(images)``, which gives two tensors, the probabilities
        and those of the prior. The metadata are the extra file ``diffmic.json``.

        Parameters
        ----------
        path : str or Path
            File to write, such as ``"model.pt2"``; one that exists is replaced.
        num_steps, n_draws : int or None, default=None
            Numbers of sampler steps and draws of the program; None: those of the estimator.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        NotFittedError
            There is no fitted model.
        InputError
            An option is invalid, or the network cannot be exported.
        """
        from ..engine.whole import export_torch

        model, file = self._fitted(), _target(path)
        export_torch(model, file, self._sampling(num_steps, n_draws))
        return file

    def _sampling(self, num_steps: int | None, n_draws: int | None) -> SamplingOptions:
        asked = {"num_steps": num_steps, "n_draws": n_draws}
        return sampling_options(self._fitted(), self._parameters, asked)


def _target(path: str | Path) -> Path:
    """File to write, after a check that its folder is there."""
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(f"path is {path!r}; give a file, such as 'model.onnx'.")
    file = Path(path).expanduser()
    if not file.parent.is_dir():
        raise InputError(f"There is no folder {str(file.parent)!r} to write {file.name!r} to.")
    if file.is_dir():
        raise InputError(f"{str(path)!r} is a folder; give a file, such as 'model.onnx'.")
    return file
