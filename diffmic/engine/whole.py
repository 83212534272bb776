"""A fitted model as one module, from images to probabilities, and its export by torch."""

import copy
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..inference import Evidence, FittedModel, OwnCalibration, SamplingOptions
from ..model.part_checks import part_name

FORMAT = 1  # of the metadata
METADATA_KEY = "diffmic"
OUTPUTS = ("probabilities", "prior_probabilities")
BATCH = torch.export.Dim("batch")
REASONS = (
    "A backbone or a part of your own must not branch on the values of tensors, or on the number "
    "of images."
)


class WholeModel(nn.Module):
    """A fitted model as one module: images (B, 3, S, S) → calibrated probabilities.

    Images are uint8, or float in 0–1 if the model has a range of pixel values. A zoom also takes
    the originals (B, 3, Z, Z), of which the images are the small ones. The outputs are the
    probabilities (B, C) of the diffusion, or of the prior if that is all there is, and of the
    prior.
    """

    noise: Tensor

    def __init__(self, model: FittedModel, options: SamplingOptions) -> None:
        super().__init__()
        self.network, self.num_steps = model.network, options.num_steps
        self.task, self.calibrations = model.task, model.calibrations
        self.register_buffer("noise", model.noise(options.n_draws))
        ratio = model.drawing_ratio
        self.drawing_ratio = None if ratio is None else torch.from_numpy(ratio)

    def forward(self, images: Tensor, originals: Tensor | None = None) -> tuple[Tensor, ...]:
        pixels = images if images.is_floating_point() else images.float() / 255
        conditions = self.network.encode(pixels, originals)
        draws = None
        if "diffusion" in self.calibrations:
            draws = self.network.sample(conditions, self.noise, num_steps=self.num_steps)
        evidence = Evidence(conditions.fused_logits, draws, self.drawing_ratio)
        prior = evidence.prior_logits.double()
        found = [
            self.task.probabilities(
                calibration.logits(evidence.logits(stage, self.task), prior)
            ).float()
            for stage, calibration in sorted(self.calibrations.items())  # the diffusion first
        ]
        return found[0], found[-1].clone()


def whole_model(model: FittedModel, options: SamplingOptions) -> WholeModel:
    """A copy of a fitted model as one module, on a CPU, after a check that it can be exported.

    Raises
    ------
    InputError
        Views are asked for, or the calibration is of one's own.
    """
    if options.n_views > 1:
        raise InputError(
            f"n_views is {options.n_views}: the augmentation of views cannot be part of an "
            "exported model. Set n_views=1."
        )
    if own := [c for c in model.calibrations.values() if isinstance(c, OwnCalibration)]:
        raise InputError(
            f"The calibration of your own, {part_name(own[0].part)}, cannot be part of an exported "
            "model. Fit with Recipe(calibration=None), or apply it to what the model gives."
        )
    return copy.deepcopy(WholeModel(model, options)).cpu().eval().requires_grad_(False)


def inputs_of(model: FittedModel) -> dict[str, Tensor]:
    """Two images as the whole model takes them, by the names of its inputs."""
    sides = {"images": model.image_size}
    if model.zoom_size is not None:
        sides["originals"] = model.zoom_size
    floats = model.value_range is not None
    return {name: noise_images(side, floats=floats) for name, side in sides.items()}


def noise_images(side: int, *, floats: bool) -> Tensor:
    """Two images, from which the types in a graph follow; their number is left open."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (2, 3, side, side), generator=generator, dtype=torch.uint8)
    return pixels.float() / 255 if floats else pixels


def metadata(model: FittedModel, options: SamplingOptions) -> dict[str, Any]:
    """What a program that runs the model needs to know: classes, preprocessing, decision."""
    classes = model.classes.tolist()
    values = model.value_range
    return {
        "format": FORMAT,
        "diffmic": version("diffmic"),
        "task": model.task.name,
        "classes": classes,
        "class_names": list(model.class_names or map(str, classes)),
        "channels": model.channels,
        "image_size": model.image_size,
        "zoom_size": model.zoom_size,
        "crop": model.crop,
        "value_range": None if values is None else [values.low, values.high],
        "value_range_given": values is not None and values.given,
        "thresholds": {stage: list(map(float, of)) for stage, of in model.thresholds.items()},
        "stages": sorted(model.calibrations),
        "num_steps": options.num_steps,
        "n_draws": options.n_draws,
        "precision": "float32",
    }


def export_torch(model: FittedModel, path: Path, options: SamplingOptions) -> None:
    """Write a fitted model as a program of ``torch.export``: images in, probabilities out.

    Parameters
    ----------
    model : FittedModel
    path : Path
        File to write; one that exists is replaced.
    options : SamplingOptions
        Sampling options that become part of the program, with the noise of the model's seed.

    Raises
    ------
    InputError
        Views or a calibration of one's own are asked for, or the network cannot be exported.
    """
    module, inputs = whole_model(model, options), inputs_of(model)
    shapes = tuple({0: BATCH} for _ in inputs)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's own
            program = torch.export.export(module, tuple(inputs.values()), dynamic_shapes=shapes)
    except Exception as reason:  # the exporter has many kinds of exceptions
        said = (str(reason).strip() or type(reason).__name__).splitlines()[0]
        raise InputError(f"The network cannot be exported by torch: {said} {REASONS}") from reason
    extra = {f"{METADATA_KEY}.json": json.dumps(metadata(model, options))}
    with (
        replacing(path) as unfinished,
        unfinished.open("wb") as file,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # about tensors that share memory
        torch.export.save(program, file, extra_files=extra)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Place of a file while it is written; it gets its name when it is complete."""
    unfinished = path.with_name(path.name + ".unfinished")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
