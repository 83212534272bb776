"""Evidence: uncalibrated predictions, from which calibration and metrics are computed."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Literal

import torch
from torch import Tensor

from ..data import PreparedImages, PreparedStream, unit_range
from ..data.augmentation import Augment
from ..errors import BackboneError, InputError
from ..model import Conditions
from ..tasks import Task
from .engine import Engine

Stage = Literal["diffusion", "prior", "diffusion_alone"]  # the last: without the prior's logits
STAGES: tuple[Stage, Stage] = ("diffusion", "prior")  # that are trained

# More would help nobody, and a file of a model could ask for work without end.
LARGEST = {"n_draws": 10_000, "n_views": 1_000}
SCORE_FLOOR = 1e-4  # denoised scores are clipped to [floor, 1 − floor] as probabilities


@dataclass(frozen=True)
class SamplingOptions:
    """Sampling options of predictions.

    Attributes
    ----------
    num_steps : int
        Number of sampler steps.
    n_draws : int
        Number of draws per image, at most 10,000.
    n_views : int
        Number of test-time views per image, at most 1,000: the image itself and augmented copies.

    Raises
    ------
    InputError
        An option is no integer, below 1, or larger than that.
    """

    num_steps: int = 10
    n_draws: int = 4
    n_views: int = 1

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
                raise InputError(f"{name} is {value!r}; it must be an integer of at least 1.")
            if int(value) > LARGEST.get(name, int(value)):
                raise InputError(f"{name} is {value}; it must be at most {LARGEST[name]}.")


@dataclass(frozen=True)
class Evidence:
    """Uncalibrated predictions of a network for n images.

    Attributes
    ----------
    prior_logits : Tensor of shape (n, C)
        Fused logits of the prior, averaged over test-time views.
    draws : Tensor of shape (n, S, C) or None
        Scores of the S draws of the diffusion, averaged over test-time views; None: only the prior
        was evaluated.
    drawing_ratio : Tensor of shape (C,) or None
        Ratio of the sampling frequency of each class in training to its actual frequency, up to a
        common factor; None: all equal.
    embeddings : Tensor of shape (n, D) or None
        Pooled features of the image encoder, of the images themselves without other views; None:
        they were not asked for.
    """

    prior_logits: Tensor
    draws: Tensor | None = None
    drawing_ratio: Tensor | None = None
    embeddings: Tensor | None = None

    def __len__(self) -> int:
        return len(self.prior_logits)

    def __getitem__(self, index: Tensor | slice) -> "Evidence":
        draws = None if self.draws is None else self.draws[index]
        embeddings = None if self.embeddings is None else self.embeddings[index]
        return Evidence(self.prior_logits[index], draws, self.drawing_ratio, embeddings)

    @property
    def scores(self) -> Tensor:
        """Mean scores of the draws, corrected for class-balanced sampling, (n, C), float64."""
        assert self.draws is not None  # computed for this stage
        scores = self.draws.mean(dim=1).double()
        if self.drawing_ratio is None:
            return scores
        return of_training_population(scores, self.drawing_ratio)

    def logits(self, stage: Stage, task: Task) -> Tensor:
        """Uncalibrated logits of a stage, (n, C), float64.

        Those of the diffusion are the logits of the mean score of the draws, clipped away from 0
        and 1.
        """
        if stage == "prior":
            return self.prior_logits.double()
        return task.logits(self.scores.clamp(SCORE_FLOOR, 1 - SCORE_FLOOR))

    @staticmethod
    def cat(parts: Sequence["Evidence"]) -> "Evidence":
        """Concatenate batches."""
        draws = [part.draws for part in parts if part.draws is not None]
        embeddings = [part.embeddings for part in parts if part.embeddings is not None]
        return Evidence(
            torch.cat([part.prior_logits for part in parts]),
            torch.cat(draws) if draws else None,
            parts[0].drawing_ratio,
            torch.cat(embeddings) if embeddings else None,
        )


def encode_images(
    engine: Engine,
    images: PreparedImages | PreparedStream,
    *,
    batch_size: int,
    num_workers: int = 0,
    n_views: int = 1,
    augment: Augment | None = None,
    seed: int = 0,
    only: Sequence[int] | None = None,
) -> Iterator[tuple[Conditions, Tensor]]:
    """Conditions of each batch, on the engine's device, and original image sizes (B, 2) in pixels.

    Parameters
    ----------
    engine : Engine
    images : PreparedImages or PreparedStream
    batch_size : int
        Number of rows encoded at once; at least all test-time views of an image.
    num_workers : int
        Number of worker processes that load images.
    n_views, augment, seed
        Test-time views, as in :func:`~diffmic.data.views_of`, in adjacent rows. The seed is also
        that of :meth:`Engine.encode`.
    only : sequence of int or None
        Indices of some of the images, which must not be a stream; None: all of them.
    """
    device = engine.device
    batches = images.batches(
        max(1, batch_size // n_views),
        num_workers=num_workers,
        pin_memory=device.type == "cuda",
        only=only,
    )
    for batch in batches:
        views, originals = images.views(batch, n_views, augment, seed)
        pixels = unit_range(views.to(device, non_blocking=True))
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        if originals is not None:
            originals = [original.to(device, non_blocking=True) for original in originals]
        yield engine.encode(pixels, originals, seed=seed), batch["size"]


def evidence_of(
    engine: Engine,
    conditions: Iterable[Conditions],
    stage: Stage,
    options: SamplingOptions,
    *,
    seed: int,
    drawing_ratio: Tensor | None = None,
    embeddings: bool = False,
) -> Evidence:
    """Evidence from batches of conditions, with the test-time views of an image in adjacent rows.

    Parameters
    ----------
    engine : Engine
    conditions : iterable of Conditions
    stage : {"diffusion", "prior"}
        ``"prior"``: nothing is sampled; ``"diffusion_alone"`` has the evidence of the diffusion.
    options : SamplingOptions
    seed : int
        Seed of the noise, which is the same for every image.
    drawing_ratio : Tensor of shape (C,) or None
        As in :class:`Evidence`.
    embeddings : bool
        Whether the evidence holds the embeddings, too.

    Raises
    ------
    BackboneError
        The output of the network for an image is not finite.
    """
    found = []
    n_before = 0
    for batch in conditions:
        prior_logits = over_views(batch.fused_logits, options.n_views).cpu()
        draws = None
        if stage != "prior":
            noise = engine.network.noise(options.n_draws, torch.Generator().manual_seed(seed))
            draws = engine.sample(batch, noise, num_steps=options.num_steps)
            draws = over_views(draws, options.n_views).cpu()
        features = batch.image_features[:: options.n_views].cpu() if embeddings else None
        found.append(Evidence(prior_logits, draws, drawing_ratio, features))
        _check_finite(found[-1], n_before)
        n_before += len(prior_logits)
    return Evidence.cat(found)


def of_training_population(scores: Tensor, drawing_ratio: Tensor) -> Tensor:
    """Scores (..., C) corrected for class-balanced sampling in training: p(c) ∝ s_c / r_c.

    ``drawing_ratio``, r_c, is how many times as often as it occurs each class was sampled, (C,), up
    to a common factor.

    References
    ----------
    Saerens, Latinne and Decaestecker, "Adjusting the outputs of a classifier to new a priori
    probabilities", Neural Computation, 2002, equation 4.
    """
    weighted = scores.clamp(min=0) / drawing_ratio.to(scores)
    return weighted / weighted.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(scores.dtype).tiny)


def over_views(rows: Tensor, n_views: int) -> Tensor:
    """Mean over the test-time views of each image, which are adjacent rows: (n·V, …) → (n, …)."""
    return rows.view(-1, n_views, *rows.shape[1:]).mean(dim=1) if n_views > 1 else rows


def _check_finite(evidence: Evidence, n_before: int) -> None:
    rows = evidence.prior_logits
    if evidence.draws is not None:
        rows = torch.cat([rows, evidence.draws.flatten(1)], dim=1)
    finite = rows.isfinite().all(dim=1)
    if not finite.all():
        index = int((~finite).nonzero()[0])
        first = n_before + index
        if evidence.prior_logits[index].isfinite().all():
            raise BackboneError(
                f"The sampler gives NaN or infinity for image {first}, whose prior is finite: its "
                "label map has grown beyond all numbers, as with the papers' losses in many steps. "
                "Use a smaller num_steps; if few steps fail, too, the weights may be damaged."
            )
        raise BackboneError(
            f"The network gives NaN or infinity for image {first}. Its weights may be damaged, or "
            "its backbone overflows on images in 0–1; try precision='fp32', or another backbone."
        )
