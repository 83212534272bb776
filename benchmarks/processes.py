"""Seconds and bytes of a step of stage one by several processes, over gloo.

torchrun --nproc-per-node 2 benchmarks/processes.py [--backbone NAME] [--size PIXELS]
"""

import argparse
import json
import os
import time

import numpy as np
import torch

from diffmic import DiffMICClassifier
from diffmic.callbacks import Callback
from diffmic.training.distributed import Several


def main() -> None:
    """Fit two epochs and print what the second one cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--batch", type=int, default=32)
    options = parser.parse_args()
    sent: list[tuple[int, float]] = []
    reduce = Several.reduce

    def counted(self: Several, tensor: torch.Tensor) -> torch.Tensor:
        started = time.perf_counter()
        found = reduce(self, tensor)
        sent.append((tensor.numel() * tensor.element_size(), time.perf_counter() - started))
        return found

    Several.reduce = counted  # type: ignore[method-assign]
    rng = np.random.RandomState(0)
    X = rng.randint(0, 256, (options.images, options.size, options.size), dtype=np.uint8)
    clf = DiffMICClassifier(
        backbone=options.backbone,
        pretrained=False,
        image_size=options.size,
        batch_size=options.batch,
        max_epochs=2,
        validation_fraction=None,
        precision="fp32",
        device="cpu",
        distributed=True,
        random_state=0,
        verbose=0,
    )
    counts: list[tuple[int, float]] = []

    class Watch(Callback):
        def on_epoch_end(self, moment: object) -> None:
            counts.append((len(sent), time.perf_counter()))
            if len(counts) == 2:
                raise KeyboardInterrupt  # the second epoch is over

    clf.set_params(callbacks=Watch())
    try:
        clf.fit(X, np.arange(options.images) % 3)
    except (KeyboardInterrupt, RuntimeError):
        if not counts:
            raise
    if counts:
        (first, began), (last, ended) = counts
        steps = options.images // options.batch
        part = sent[first:last]
        row = {
            "processes": int(os.environ.get("WORLD_SIZE", 1)),
            "seconds_per_step": round((ended - began) / steps, 3),
            "megabytes_per_step": round(sum(size for size, _ in part) / steps / 1e6, 2),
            "reductions_per_step": len(part) // steps,
            "seconds_in_reductions_per_step": round(sum(s for _, s in part) / steps, 3),
        }
        print(json.dumps(row))


if __name__ == "__main__":
    main()
