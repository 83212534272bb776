"""Predictions of millions of images: Ray Data around the estimator, parquet out.

``pip install "diffmic[ray]"``.
"""

import copy
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .classifier import DiffMICClassifier
from .errors import DiffMICError, InputError
from .estimator.parameters import check_prediction, check_whole
from .estimator.rows import Asked, rows_or_faults
from .inference import Stage
from .storage import Folder, Unread, listed, read_ahead

__all__ = ["Predictor", "Summary", "predict"]

_TOLD = 1000  # unreadable files that are kept to be named; all are in the parquet files
_STARTS, _DEATHS = 3, 2  # of a share as a whole, then of a file alone: what is taken for chance
_SUMMARY = "_summary.json"  # readers of parquet folders pass over names with this beginning


@dataclass(frozen=True)
class Summary:
    """What :func:`predict` did.

    Attributes
    ----------
    out : str
        Folder with the parquet files.
    n_images, n_errors : int
        Number of images, and how many of them could not be read.
    errors : dict of str to str
        Why an image could not be read, by file; the first thousand.
    """

    out: str
    n_images: int
    n_errors: int
    errors: Mapping[str, str]


class Predictor:
    """Class for ``ray.data.Dataset.map_batches``: batches of images become predictions.

    Columns of a batch besides that of the images are kept. ``predicted`` (a list for multi-label),
    ``p_CLASS`` for each class, and ``error`` are added; of ``error`` and the others one is null.

    Parameters
    ----------
    model : str, Path or DiffMICClassifier
        A fitted estimator, or the folder or name of a saved one, which each worker loads.
    stage : {"diffusion", "prior", "diffusion_alone"}
        Stage that gives the probabilities.
    device : str, default="auto"
        PyTorch device of the worker.

    Raises
    ------
    InputError
        ``model``, ``stage`` or ``device`` cannot be used.

    Examples
    --------
    >>> import ray
    >>> from diffmic.scale import Predictor
    >>> images = ray.data.read_binary_files("s3://bucket/scans", include_paths=True)
    ... # doctest: +SKIP
    >>> images.map_batches(
    ...     Predictor,
    ...     fn_constructor_args=["my-model"],
    ...     batch_size=64,
    ...     compute=ray.data.ActorPoolStrategy(size=8),
    ... ).write_parquet("s3://bucket/predictions")  # doctest: +SKIP
    """

    def __init__(self, model: Any, *, stage: Stage = "diffusion", device: str = "auto") -> None:
        self.stage = stage
        self.classifier = _classifier(model, stage, device)
        self.classifier.set_params(device=device, num_workers=0, verbose=0)

    def __call__(self, batch: Mapping[str, Any]) -> Any:
        """Predict a batch.

        Parameters
        ----------
        batch : mapping of str to ndarray
            With a column ``bytes``, contents of files, as ``ray.data.read_binary_files`` gives, or
            ``image``, arrays (H, W, C), as ``ray.data.read_images`` does.

        Returns
        -------
        pyarrow.Table
            A row for each image, in their order.

        Raises
        ------
        InputError
            The batch has no such column.
        """
        column = next((name for name in ("bytes", "image") if name in batch), None)
        if column is None:
            raise InputError(
                f"The batch has the columns {list(batch)}; one of them must be 'bytes' (contents "
                "of files, of ray.data.read_binary_files) or 'image' (arrays, of "
                "ray.data.read_images)."
            )
        images = list(batch[column])
        rows = rows_or_faults(self.classifier, ["image 0"] * len(images), images, Asked(self.stage))
        kept = {name: list(values) for name, values in batch.items() if name != column}
        return self.table(kept, rows)

    def table(self, kept: Mapping[str, list[Any]], rows: list[dict[str, Any] | str]) -> Any:
        """Table of the columns that are kept, and of rows of predictions or of what is wrong."""
        import pyarrow as pa

        found: list[dict[str, Any]] = [{} if isinstance(row, str) else row for row in rows]
        exclusive = self.classifier.task_.exclusive
        columns = {name: pa.array(values) for name, values in kept.items()}
        columns["predicted"] = pa.array(
            [row.get("predicted") for row in found],
            pa.string() if exclusive else pa.list_(pa.string()),
        )
        for name in (f"p_{name}" for name in self.classifier.class_names_):
            columns[name] = pa.array([row.get(name) for row in found], pa.float64())
        columns["error"] = pa.array(
            [row if isinstance(row, str) else None for row in rows], pa.string()
        )
        return pa.table(columns)


def predict(
    files: Any,
    model: Any,
    out: str | Path,
    *,
    stage: Stage = "diffusion",
    batch_size: int | None = None,
    concurrency: int | None = None,
    device: str = "auto",
    **ray_options: Any,
) -> Summary:
    """Predict any number of image files by workers of Ray, into a folder of parquet files.

    The files are divided into shares; each becomes a parquet file with a row for each image: file,
    predicted, ``p_CLASS`` for each class, and error, which is null unless the image could not be
    read. The probabilities are those of ``predict_proba``. The share of a worker that dies is done
    again by another, and a file that ends its process again and again has an error.
    ``_summary.json`` in the folder is written last: without it a run is not
    complete.

    A cluster to which this process is connected, or that the environment names (``RAY_ADDRESS``),
    is used and left running. Without one, Ray is started on this machine until all is done, without
    its usage statistics.

    Parameters
    ----------
    files : str, Path or iterable of them
        Files, folders and patterns, such as ``"scans/**/*.dcm"``; URIs such as
        ``"s3://bucket/scans/"`` are read by fsspec (``pip install s3fs``, ``gcsfs``, ...). A file
        that is named twice is predicted once.
    model : str, Path or DiffMICClassifier
        A fitted estimator, or the folder or name of a saved one; it is sent to the workers.
    out : str or Path
        Folder, or URI of one, that does not exist or is empty. All machines of a cluster must see
        the same.
    stage : {"diffusion", "prior", "diffusion_alone"}
        Stage that gives the probabilities.
    batch_size : int or None
        Images in a batch; None: the estimator's.
    concurrency : int or None
        Number of workers; None: as many as the cluster has CPUs, or GPUs if ``num_gpus`` is given.
    device : str, default="auto"
        PyTorch device of the workers.
    **ray_options
        Of ``ray.data.Dataset.map_batches``: ``num_cpus`` of a worker (1 unless given, also its
        number of threads), ``num_gpus``, ``memory``, ``resources``, ``runtime_env``.

    Returns
    -------
    Summary
        Numbers of images and of errors, and the first errors.

    Raises
    ------
    InputError
        There are no files, ``out`` is not empty, or a parameter cannot be used; nothing was done.
    DiffMICError
        Ray is missing, or not all shares arrived in ``out``.
    """
    ray = _ray()
    classifier = _classifier(model, stage, "cpu")
    if batch_size is not None:
        classifier.set_params(batch_size=batch_size)
    check_prediction(classifier.get_params(deep=False))
    if concurrency is not None:
        check_whole("concurrency", concurrency)
    named = listed(files)
    folder = Folder(out)
    options = {"num_cpus": 1} | ray_options
    try:
        with _connected(ray):
            found = _done(ray, classifier, named, folder, (stage, device), concurrency, options)
    except BaseException as reason:
        reason.add_note(f"What was done until then is in {folder.name!r}; it is not complete.")
        raise
    errors = {name: fault for share in sorted(found) for name, fault in found[share].items()}
    summary = Summary(folder.name, len(named), len(errors), dict(list(errors.items())[:_TOLD]))
    told = {"n_images": summary.n_images, "n_errors": summary.n_errors, "stage": stage}
    folder.write(_SUMMARY, json.dumps(told, indent=1).encode())
    return summary


def _done(
    ray: Any,
    classifier: DiffMICClassifier,
    named: dict[str, bytes],
    folder: "Folder",
    how: tuple[Stage, str],
    concurrency: int | None,
    options: Mapping[str, Any],
) -> dict[int, dict[str, str]]:
    """Errors of each share, after all were written."""
    import pyarrow as pa

    n_workers = concurrency or _n_workers(ray, options)
    size = share_size(len(named), n_workers, classifier.batch_size)
    names = list(named)
    shares = [
        pa.table(
            {
                "share": [start // size] * len(names[start : start + size]),
                "file": names[start : start + size],
                "path": [named[name] for name in names[start : start + size]],
            }
        )
        for start in range(0, len(names), size)
    ]
    done = ray.data.from_arrow(shares).map_batches(
        _Shares,
        fn_constructor_args=[ray.put(classifier), folder, *how],
        batch_size=None,
        compute=ray.data.ActorPoolStrategy(size=min(n_workers, len(shares))),
        **options,
    )
    found = {int(row["share"]): json.loads(row["errors"]) for row in done.iter_rows()}
    expected = {_part(share) for share in range(len(shares))}
    lacking = expected - folder.files()
    if lacking or len(found) != len(shares):
        raise DiffMICError(
            f"{len(lacking)} of {len(shares)} shares are not in {folder.name!r}. Workers on other "
            "machines must see the same folder: give one that they share, or an URI."
        )
    return found


class _Shares(Predictor):
    """Worker that predicts a share of the files and writes it; a repetition writes the same."""

    def __init__(self, model: Any, folder: "Folder", stage: Stage, device: str) -> None:
        super().__init__(_ray().get(model), stage=stage, device=device)
        self.folder = folder

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Write the share; its number and errors are returned."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        share, names = int(batch["share"][0]), [str(name) for name in batch["file"]]
        paths = [os.fsdecode(path) for path in batch["path"]]
        rows = list(self._rows(paths, marker := f".{_part(share)}.begun"))
        content = pa.BufferOutputStream()
        pq.write_table(self.table({"file": names}, rows), content)
        self.folder.write(_part(share), content.getvalue().to_pybytes())
        self.folder.remove(marker)
        errors = {n: row for n, row in zip(names, rows, strict=True) if isinstance(row, str)}
        return {"share": np.array([share]), "errors": np.array([json.dumps(errors)], dtype=object)}

    def _rows(self, paths: list[str], marker: str) -> Iterator[dict[str, Any] | str]:
        """Rows of the files; after several deaths one by one, without those that are deadly.

        Ray repeats a share for ever. A file that ends the process of whoever reads it is found by
        the marker, which says how often the share was begun, and which file was begun then.
        """
        begun = json.loads(self.folder.read(marker) or b'{"starts": 0, "files": {}}')
        begun["starts"] += 1
        self.folder.write(marker, json.dumps(begun).encode())
        if begun["starts"] <= _STARTS:
            for images in read_ahead(paths, self.classifier.batch_size):
                yield from self._predicted(images)
            return
        for number, path in enumerate(paths):
            deaths = begun["files"].get(str(number), 0)
            if deaths == _DEATHS:
                yield f"The process that predicted this file ended each of {_DEATHS} times."
                continue
            begun["files"][str(number)] = deaths + 1
            self.folder.write(marker, json.dumps(begun).encode())
            yield from self._predicted(next(read_ahead([path], 1)))
            del begun["files"][str(number)]

    def _predicted(self, images: list[Any]) -> list[dict[str, Any] | str]:
        good = [image for image in images if not isinstance(image, Unread)]
        found = iter(
            rows_or_faults(self.classifier, ["image 0"] * len(good), good, Asked(self.stage))
        )
        return [str(image) if isinstance(image, Unread) else next(found) for image in images]


def share_size(n_files: int, n_workers: int, batch_size: int) -> int:
    """Number of files in a share: some for each worker, of whole batches, at most 2,000 shares."""
    wanted = max(8 * batch_size, -(-n_files // 2000))
    return max(1, min(wanted, -(-n_files // (2 * n_workers))))


def _part(share: int) -> str:
    return f"part-{share:06}.parquet"


def _classifier(model: Any, stage: Stage, device: str) -> DiffMICClassifier:
    """A copy of a fitted estimator, or a loaded one, that has the stage."""
    if isinstance(model, DiffMICClassifier):
        classifier = copy.copy(model)
    else:
        classifier = DiffMICClassifier.from_pretrained(model, device=device)
    classifier._trained(stage)
    return classifier


def _ray() -> Any:
    """Ray, with its part Data.

    Raises
    ------
    DiffMICError
        It is not installed.
    """
    try:
        import ray
        import ray.data
    except ImportError as reason:
        raise DiffMICError('Ray Data is needed: pip install "diffmic[ray]".') from reason
    return ray


@contextmanager
def _connected(ray: Any) -> Iterator[None]:
    """Ray as it is, or until the end of the context, if this process has no connection."""
    if ray.is_initialized():
        yield
        return
    name = "RAY_USAGE_STATS_ENABLED"
    asked = os.environ.get(name)
    os.environ.setdefault(name, "0")
    try:
        ray.init()
    finally:
        if asked is None:
            os.environ.pop(name, None)
    try:
        yield
    finally:
        ray.shutdown()  # a cluster that was there before goes on


def _n_workers(ray: Any, options: Mapping[str, Any]) -> int:
    """How many workers the cluster has room for now, at least one."""
    there = ray.cluster_resources()
    rooms = [
        there.get(what, 0) / options[name]
        for what, name in (("CPU", "num_cpus"), ("GPU", "num_gpus"))
        if options.get(name)
    ]
    return max(1, int(min(rooms, default=1)))
