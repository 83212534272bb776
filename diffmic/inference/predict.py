"""Running a network over images: encode each once, then sample."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..data import PreparedImages, unit_range
from ..model import Conditions, DiffMICNetwork
from .faster import for_encoding, for_sampling


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


@torch.inference_mode()
def encode_images(
    network: DiffMICNetwork,
    images: PreparedImages,
    *,
    batch_size: int,
    num_workers: int,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    progress: str | None = None,
) -> Iterator[tuple[Conditions, Tensor]]:
    """Conditions of each batch, on the device, and the sizes (B, 2) of its images as they came.

    ``dtype`` is that of the encoders' arithmetic, see :func:`for_encoding`.
    """
    loader = images.loader(batch_size, num_workers=num_workers, pin_memory=device.type == "cuda")
    with evaluation_mode(network):
        faster = for_encoding(network, dtype)
        for batch in tqdm(loader, desc=progress, disable=progress is None, leave=False):
            pixels = unit_range(batch["image"].to(device, non_blocking=True))
            yield (
                faster.encode(pixels.contiguous(memory_format=torch.channels_last)),
                batch["size"],
            )


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
