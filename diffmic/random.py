"""Chance that can be repeated, and that leaves the global random state as it was."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from .errors import InputError

Seed = int | np.random.RandomState | None


def draw_seed(random_state: Seed) -> int:
    """One seed from what scikit-learn calls ``random_state``; None gives a fresh one.

    Raises
    ------
    InputError
        Something else.
    """
    if random_state is None:
        # Not numpy's global generator, as scikit-learn would: nobody's chance is used up.
        return int(np.random.default_rng().integers(2**31))
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31 - 1))
    if isinstance(random_state, (int, np.integer)) and 0 <= random_state < 2**32:
        return int(random_state)
    raise InputError(
        f"random_state is {random_state!r}; give None, an integer from 0 to 2**32 - 1 or a "
        "numpy.random.RandomState."
    )


@contextmanager
def seeded_rng(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Inside, torch's global generators start from ``seed``; afterwards they are as before.

    Parameters
    ----------
    seed : int
    device : torch.device or None
        The generator of this device, too, where it has one of its own.
    """
    cuda = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed % 2**63)
        if cuda:
            torch.cuda.manual_seed(seed % 2**63)
        yield
