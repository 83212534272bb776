"""Models as a service uses them: one image is prepared, and many are answered together."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

if TYPE_CHECKING:
    from ..data import Item
    from ..inference import Stage

Floats = NDArray[np.float64]


class OnnxModel:
    """An exported model, run by ONNX Runtime; its methods are those of :class:`TorchModel`."""

    def __init__(self, path: str | Path) -> None:
        from ..runtime import OnnxClassifier

        self.classifier = OnnxClassifier(path)
        file = Path(path).expanduser()
        self.name, self.version = file.stem, _checksum(file)
        self.classes: list[Any] = self.classifier.classes_.tolist()
        self.class_names = self.classifier.class_names_
        self.task = self.classifier.task_
        self.stages: list[str] = sorted(self.classifier.metadata_["stages"])

    def shares(self, prevalence: Any) -> Floats:
        """Refused: an exported model does not know the class shares that it was trained with."""
        raise InputError(
            "This model was exported as .onnx, and such a file does not take other class shares. "
            "Leave prevalence out, or serve the folder of the saved model."
        )

    def prepare(self, content: bytes, name: str) -> tuple[Any, list[str]]:
        """Pixels as the graph takes them, and no notes."""
        return self.classifier.prepare(content, name), []

    def answer(
        self, images: Sequence[Any], stage: str, shares: Floats | None
    ) -> tuple[Floats, NDArray[Any]]:
        """Probabilities and decisions."""
        chosen = cast(Literal["diffusion", "prior"], stage)
        proba = self.classifier.run(images, chosen)
        return proba, self.classifier.decisions(proba, chosen)


class TorchModel:
    """A saved estimator.

    Attributes
    ----------
    name, version : str
        What the model is called, and a checksum that changes whenever its files change.
    classes, class_names : list
        Class labels, and their names.
    task : str
        "multiclass", "multilabel" or "ordinal".
    stages : list of str
        "diffusion" first, if there is one, and "prior".
    """

    def __init__(self, model: str | Path, device: str) -> None:
        from ..classifier import DiffMICClassifier
        from ..hub.names import locate, origin_of

        self.classifier: DiffMICClassifier = DiffMICClassifier.from_pretrained(model, device=device)
        self.classifier.set_params(verbose=0, num_workers=0)
        self.name = origin_of(model)[0]
        self.version = _checksum(locate(model)[0] / "config.json")  # which has that of the weights
        fitted = self.classifier.model_
        self.classes: list[Any] = fitted.classes.tolist()
        self.class_names = self.classifier.class_names_
        self.task = fitted.task.name
        self.stages: list[str] = sorted(fitted.calibrations)

    def shares(self, prevalence: Any) -> Floats | None:
        """Class shares (C,) by class, or in their order; InputError if they cannot be used."""
        from ..estimator.populations import prevalence_of

        return prevalence_of(self.classifier.model_, prevalence, self.class_names)

    def prepare(self, content: bytes, name: str) -> tuple["Item", list[str]]:
        """Image for the network, and what was noticed; InputError if the file cannot be used."""
        from ..data import noticed
        from ..estimator.prediction import prepared_alone

        item = prepared_alone(self.classifier.model_, content, name)
        return item, noticed(item, self.classifier.model_.value_range)

    def answer(
        self, images: Sequence["Item"], stage: str, shares: Floats | None
    ) -> tuple[Floats, NDArray[Any]]:
        """Probabilities (n, C) of prepared images, and decisions: (n,), or indicators (n, L)."""
        from ..estimator.prediction import evidence_together

        fitted, chosen = self.classifier.model_, cast("Stage", stage)
        parameters = self.classifier.get_params(deep=False)
        proba = fitted.probabilities(
            evidence_together(fitted, parameters, images, chosen), chosen, shares
        )
        return proba, fitted.decisions(proba, chosen, shares)


Served = OnnxModel | TorchModel


def load(model: str | Path, device: str = "auto") -> Served:
    """Model of a folder, by name, or of an ``.onnx`` file, for which torch is not imported.

    Parameters
    ----------
    model : str or Path
        File of ``DiffMICClassifier.export_onnx``, or what ``from_pretrained`` takes.
    device : str
        PyTorch device; an ``.onnx`` file is run on the CPU.

    Raises
    ------
    ModelFileError, HubError, InputError
        The model cannot be loaded.
    """
    if os.fspath(model).lower().endswith(".onnx") and not os.path.isdir(model):
        if device not in ("auto", "cpu"):
            raise InputError(f"device is {device!r}; an .onnx file is run on the CPU.")
        return OnnxModel(model)
    return TorchModel(model, device)


def _checksum(file: Path) -> str:
    with file.open("rb") as stream:
        return f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()[:16]}"
