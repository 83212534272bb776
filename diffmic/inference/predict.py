"""Running a network over images: encode each once, then sample."""

from collections.abc import Iterator

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..data import PreparedImages, unit_range
from ..model import Conditions, DiffMICNetwork


@torch.inference_mode()
def encode_images(
    network: DiffMICNetwork,
    images: PreparedImages,
    *,
    batch_size: int,
    num_workers: int,
    device: torch.device,
    progress: str | None = None,
) -> Iterator[tuple[Conditions, Tensor]]:
    """Conditions of each batch, on the device, and the sizes (B, 2) of its images as they came.

    The network is in evaluation mode meanwhile.
    """
    loader = images.loader(batch_size, num_workers=num_workers, pin_memory=device.type == "cuda")
    was_training = network.training
    network.eval()
    try:
        for batch in tqdm(loader, desc=progress, disable=progress is None, leave=False):
            pixels = unit_range(batch["image"].to(device, non_blocking=True))
            yield (
                network.encode(pixels.contiguous(memory_format=torch.channels_last)),
                batch["size"],
            )
    finally:
        network.train(was_training)


@torch.inference_mode()
def sample_scores(
    network: DiffMICNetwork, conditions: Conditions, *, num_steps: int, n_samples: int, seed: int
) -> Tensor:
    """Scores of each draw, (B, S, C); the same seed gives every image the same start maps."""
    start = network.start(n_samples, torch.Generator().manual_seed(seed))
    was_training = network.training
    network.eval()
    try:
        return network.sample(conditions, start, num_steps=num_steps)
    finally:
        network.train(was_training)
