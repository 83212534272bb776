"""Exported files with weights of 32, 16 and 8 bits: size, time, and how far probabilities move."""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from diffmic import DiffMICClassifier
from diffmic.datasets import ImageTable
from diffmic.engine.reduced import PRECISIONS
from diffmic.runtime import OnnxClassifier

BATCH = 32


def precisions(model: str, table: ImageTable, n_calibration: int) -> list[dict[str, Any]]:
    """A record of each precision, over the part "val"; int8 is calibrated on the part "train"."""
    clf = DiffMICClassifier.from_pretrained(model, device="cpu")
    train, shown = table.part("train").paths, table.part("val").paths
    some = train[:: max(1, len(train) // n_calibration)][:n_calibration]
    records: list[dict[str, Any]] = []
    whole = None
    with tempfile.TemporaryDirectory() as folder:
        for precision in PRECISIONS:
            how = {} if precision == "float32" else {"images": some, "tolerance": 1.0}  # any
            file = clf.export_onnx(Path(folder) / "model.onnx", precision=precision, **how)
            runtime = OnnxClassifier(file, num_threads=1)
            images = [runtime.prepare(path) for path in shown]
            record = {"precision": precision, "MB": file.stat().st_size / 1e6, "images": len(shown)}
            for size in (1, BATCH):
                batches = [images[i : i + size] for i in range(0, len(images), size)]
                seconds, found = [], []
                for batch in batches:
                    started = time.process_time()
                    found.append(runtime.run(batch))
                    seconds.append((time.process_time() - started) / len(batch))
                record[f"ms_{size}"] = 1000 * statistics.median(seconds)
            proba = np.concatenate(found)
            whole = proba if whole is None else whole
            moved = np.abs(proba - whole).max(axis=1)
            record |= {"largest": float(moved.max()), "median": float(np.median(moved))}
            record["above_0.02"] = float((moved > 0.02).mean())
            record["other_class"] = float((proba.argmax(axis=1) != whole.argmax(axis=1)).mean())
            records.append(record)
    return records
