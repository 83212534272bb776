"""What a model finds in one image, and its probabilities for other class shares."""

import io
import threading
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import DiffMICWarning
from ..estimator.doubt import N_DRAWS
from ..estimator.parameters import sampling_options
from ..estimator.prediction import conditions_for, evidence_for
from ..inference import STAGES, Evidence, Explanation, Uncertainty, explain, uncertainty_of
from ..plots.images import shown_pixels
from ..settings import undisturbed

if TYPE_CHECKING:
    from ..classifier import DiffMICClassifier
    from ..inference import FittedModel

Floats = NDArray[np.float64]
_SIDE = 640  # most pixels of a side of the image that is shown
_WARNINGS = threading.Lock()  # Python's list of warning filters is one for all threads


@dataclass(frozen=True, eq=False)
class Finding:
    """What a model finds in one image.

    Attributes
    ----------
    evidence : Evidence
        Scores of the draws and the prior's logits, from which probabilities are computed.
    explanation : Explanation
    uncertainty : Uncertainty or None
        None: the model has no diffusion stage.
    picture : bytes
        The image as a JPEG of at most 640 pixels.
    notes : tuple of str
        Warnings, for example of values outside the range that the model knows.
    """

    evidence: Evidence
    explanation: Explanation
    uncertainty: Uncertainty | None
    picture: bytes
    notes: tuple[str, ...] = ()


@undisturbed
def examine(clf: "DiffMICClassifier", file: Any) -> Finding:
    """Predict one image, its doubt and its explanation, from one pass of the network.

    Probabilities, doubt and explanation are those of ``predict_proba``, ``predict_uncertainty`` and
    ``explain``. Of a model with test-time views, the doubt and the explanation are without them.

    Raises
    ------
    InputError
        The file is not an image that can be read.
    """
    model, parameters, stage = clf.model_, clf.get_params(deep=False), clf.model_.main_stage
    options = sampling_options(model, parameters, {})
    with _WARNINGS, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DiffMICWarning)
        [(conditions, sizes)] = conditions_for(model, parameters, [file])
    plain = replace(options, n_views=1)
    if options.n_views > 1:
        evidence = evidence_for(model, parameters, [file], stage)
    else:
        evidence = model.evidence_from([conditions], stage, plain)
    uncertainty = noisy = clean = None
    if stage == "diffusion":
        more = replace(plain, n_draws=N_DRAWS)
        many = model.evidence_from([conditions], stage, more, embeddings=True)
        uncertainty, noise = uncertainty_of(model, many), model.noise(options.n_draws)
        noisy, clean = model.engine.path(conditions, noise, num_steps=options.num_steps)
    explanation = explain(conditions, sizes, model.task, model.crop, noisy=noisy, clean=clean)
    told = [str(w.message) for w in caught if issubclass(w.category, DiffMICWarning)]
    return Finding(evidence, explanation, uncertainty, _jpeg(file), tuple(dict.fromkeys(told)))


def probabilities(
    model: "FittedModel", evidence: Evidence, shares: Floats | None = None
) -> dict[str, Floats]:
    """Calibrated probabilities (C,) of the diffusion and of the prior, those that were trained."""
    trained = [stage for stage in STAGES if stage in model.calibrations]
    return {str(s): model.probabilities(evidence, s, shares)[0] for s in trained}


def decided(model: "FittedModel", proba: Floats, shares: Floats | None = None) -> list[int]:
    """Indices of the classes that are predicted: one, or any number of labels."""
    found = model.decisions(proba[None], model.main_stage, shares)[0]
    if model.task.exclusive:
        return [model.classes.tolist().index(found)]
    return [int(i) for i in np.flatnonzero(found == 1)]


def adjustable(model: "FittedModel") -> list[int]:
    """Indices of the classes whose share in a population can be told."""
    if model.shares is None:  # saved by an earlier version
        return []
    return [int(i) for i in np.flatnonzero((model.shares > 0) & (model.shares < 1))]


def shares_with(model: "FittedModel", index: int, share: float) -> Floats:
    """Class shares (C,) in which a class has another share; the others keep their proportions."""
    assert model.shares is not None  # as adjustable says
    shares = model.shares.copy()
    if model.task.exclusive:
        shares *= (1 - share) / (1 - shares[index])
    shares[index] = share
    return shares


def plain_message(reason: Exception, file: str) -> str:
    """An error in a line, without the folder in which the server keeps the upload."""
    told = " ".join(str(reason).split())
    path = Path(file)
    return told.replace(file, path.name).replace(str(path.parent), "…")


def _jpeg(file: Any) -> bytes:
    """An image as it is shown, made small."""
    pixels = shown_pixels(file, _SIDE // 2)[0]
    image = Image.fromarray(np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8))
    image.thumbnail((_SIDE, _SIDE))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=88)
    return stream.getvalue()
