"""Peak memory of a prediction, each in a process of its own.

``python -m speed_bench.memory '{"model": …}'`` is such a process; it prints megabytes as JSON.
"""

import json
import resource
import sys
from typing import Any

import torch

from .models import Settings, pictures, plain_pass, prediction
from .processes import STATUS, in_a_process, own_megabytes


def memory_of(settings: Settings) -> list[dict[str, Any]]:
    """Peaks of several configurations above that of importing, in MB."""
    jobs = [{"model": "default", "what": "encoder", "images": settings.batch}]
    jobs += [{"model": "default", "what": "auto", "images": n} for n in settings.batches[::2]]
    jobs += [
        {"model": "paper-v2", "what": precision, "images": n}
        for precision in ("fp32", "bf16")
        for n in settings.paper_batches[::2]
    ]
    return [job | in_a_process("memory", job, settings) for job in jobs]


def peak_memory() -> float:
    """The most memory that this process has held so far, in MB.

    Linux hands ``ru_maxrss`` on to a process from the one that started it, so that a small child
    of a large parent reads the parent's; the status file starts anew.
    """
    if STATUS.is_file():
        return own_megabytes("VmHWM")
    unit = 1024**2 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def main(task: dict[str, Any]) -> None:
    """Build what the task names, run it twice, print the peaks."""
    settings, n_images, what = Settings(**task["settings"]), task["images"], task["what"]
    torch.set_num_threads(task["threads"])
    importing = peak_memory()
    if what == "encoder":
        run = plain_pass(settings.encoder(task["model"]), n_images, settings)
    else:
        clf = settings.estimator(task["model"], precision=what)
        run = prediction(clf, pictures(n_images, settings.image_size))
    for _ in range(2):
        run()
    print(json.dumps({"importing_mb": importing, "above_importing_mb": peak_memory() - importing}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
