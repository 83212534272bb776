"""Running a network over images: encode each once, then sample."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..data import PreparedImages, PreparedStream, unit_range, views_of
from ..data.preprocessing import Augment
from ..model import Conditions, DiffMICNetwork
from .faster import for_encoding, for_sampling

_FLAGS = threading.RLock()  # cuDNN's belong to the process, not to a thread


def inference_dtype(precision: str) -> torch.dtype:
    """Type of the large layers when predicting; ``"auto"`` is float32."""
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)


@contextmanager
def evaluation_mode(network: DiffMICNetwork) -> Iterator[None]:
    """Inside, the network is in evaluation mode; walking over its modules costs a millisecond."""
    was_training = network.training
    if was_training:
        network.eval()
    try:
        yield
    finally:
        if was_training:
            network.train()


@contextmanager
def exact_convolutions(device: torch.device) -> Iterator[None]:
    """Inside, convolutions of float32 on a GPU are just that; torch lets cuDNN round to TF32.

    The prior's choice between two regions that are nearly alike turns on the last bits.
    """
    if device.type != "cuda":
        yield
        return
    # Not cudnn.flags: that fails where somebody has set one of the newer names.
    owner: Any = getattr(torch.backends.cudnn, "conv", torch.backends.cudnn)
    newer = owner is not torch.backends.cudnn  # since torch 2.9
    name, exact = ("fp32_precision", "ieee") if newer else ("allow_tf32", False)
    with _FLAGS:
        before = getattr(owner, name)
        setattr(owner, name, exact)
        try:
            yield
        finally:
            setattr(owner, name, before)


@torch.inference_mode()
def encode_images(
    network: DiffMICNetwork,
    images: PreparedImages | PreparedStream,
    *,
    batch_size: int,
    num_workers: int,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    n_views: int = 1,
    augment: Augment | None = None,
    seed: int = 0,
    progress: str | None = None,
) -> Iterator[tuple[Conditions, Tensor]]:
    """Conditions of each batch, on the device, and the sizes (B, 2) of its images as they came.

    Parameters
    ----------
    batch_size : int
        Rows that are encoded at once, but all views of an image are.
    dtype : torch.dtype
        Of the encoders' arithmetic, see :func:`for_encoding`.
    n_views, augment, seed
        As in :func:`~diffmic.data.views_of`: the views of an image are rows side by side.
    """
    loader = images.loader(
        max(1, batch_size // n_views),
        num_workers=num_workers,
        pin_memory=device.type == "cuda",
    )
    with evaluation_mode(network):
        with exact_convolutions(device):
            faster = for_encoding(network, dtype)
        for batch in tqdm(loader, desc=progress, disable=progress is None, leave=False):
            views = views_of(batch["image"], n_views, augment, seed)
            pixels = unit_range(views.to(device, non_blocking=True))
            with exact_convolutions(device):
                conditions = faster.encode(pixels.contiguous(memory_format=torch.channels_last))
            yield conditions, batch["size"]


def over_views(rows: Tensor, n_views: int) -> Tensor:
    """Mean over the views of each image, which are rows side by side: (n·V, …) → (n, …)."""
    return rows.view(-1, n_views, *rows.shape[1:]).mean(dim=1) if n_views > 1 else rows


@torch.inference_mode()
def sample_scores(
    network: DiffMICNetwork,
    conditions: Conditions,
    *,
    num_steps: int,
    n_samples: int,
    seed: int,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Scores of each draw, (B, S, C); the same seed gives every image the same start maps."""
    start = network.start(n_samples, torch.Generator().manual_seed(seed))
    with evaluation_mode(network):
        return for_sampling(network, dtype).sample(conditions, start, num_steps=num_steps)
