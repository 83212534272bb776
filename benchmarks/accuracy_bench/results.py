"""Rows of results on disk, and what they add up to."""

import csv
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

METRICS = (
    "accuracy",
    "label_accuracy",
    "balanced_accuracy",
    "macro_f1",
    "auc",
    "kappa",
    "nll",
    "brier",
    "ece",
    "aurc",
    "aurc_spread",
    "set_nll",
    "set_nll_draws",
)
COLUMNS = (
    *("set", "seed", "method", "part", "n_images", *METRICS, "absent_labels", "seconds"),
    *(
        "image_size",
        "max_epochs",
        "backbone",
        "wrong_labels",
        "settings",
        "versions",
        "processor",
        "threads",
        "date",
    ),
)
N_RESAMPLES = 2000
POOLED = "pooled"  # over the sets, each of which counts the same

Floats = NDArray[np.float64]
Differences = dict[tuple[str, str], "Difference"]  # by opponent and set


def read(file: Path) -> list[dict[str, str]]:
    """Rows of a CSV file; none, if it is not there yet."""
    if not file.is_file():
        return []
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


class Results:
    """A CSV file of runs that grows row by row, and the test probabilities beside it.

    Parameters
    ----------
    file : Path
        Probabilities on the test part are kept in the folder of the same name, as float16.
    processor : str
        Runs whose processor has this in its name; ``""``: all.
    """

    def __init__(self, file: Path, processor: str = "") -> None:
        self.file = file
        self.processor = processor
        self.folder = file.with_suffix("")

    def rows(self) -> list[dict[str, str]]:
        """All runs so far."""
        rows = map(_of_today, read(self.file))
        return [row for row in rows if self.processor in row.get("processor", "")]

    def has(self, name: str, seed: int, method: str, part: str, **settings: float) -> bool:
        """Whether a run has been recorded, with values of some columns if they are given."""
        wanted = {"set": name, "seed": str(seed), "method": method, "part": part}
        wanted |= {column: str(value) for column, value in settings.items()}
        return any(wanted.items() <= row.items() for row in self.rows())

    def check_columns(self) -> None:
        """Make sure that runs can be added: files of earlier versions are only read.

        Raises
        ------
        ValueError
        """
        if self.file.is_file():
            with self.file.open(newline="") as stream:
                if tuple(next(csv.reader(stream))) != COLUMNS:
                    raise ValueError(f"{self.file} has other columns: write to another file.")

    def add(self, row: dict[str, Any]) -> None:
        """Append a run."""
        self.check_columns()
        self.file.parent.mkdir(parents=True, exist_ok=True)
        new = not self.file.is_file()
        with self.file.open("a", newline="") as stream:
            writer = csv.DictWriter(stream, COLUMNS, restval="", lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow(row)

    def keep(self, name: str, seed: int, method: str, answers: "Answers") -> None:
        """Keep what a method answered on the test part."""
        self.folder.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(
            self._answers_file(name, seed, method),
            targets=answers.targets.astype(np.uint8),
            proba=answers.proba.astype(np.float16),
            thresholds=answers.thresholds,
            groups=answers.groups,
        )

    def answers(self, name: str, seed: int, method: str) -> "Answers | None":
        """What a method answered on the test part, if it has been kept."""
        file = self._answers_file(name, seed, method)
        if not file.is_file():
            return None
        with np.load(file) as kept:
            proba = kept["proba"].astype(np.float64)
            return Answers(kept["targets"], proba, kept["thresholds"], kept["groups"])

    def _answers_file(self, name: str, seed: int, method: str) -> Path:
        # Colons are in names of methods, and not allowed in names of files everywhere.
        return self.folder / f"{name}-{seed}-{method.replace(': ', ', ')}.npz"


def _of_today(row: dict[str, str]) -> dict[str, str]:
    """A row as it is written today.

    Once ``accuracy`` of multi-label sets was that of labels, and there was but one backbone.
    """
    row = {"backbone": "tf_efficientnet_lite0"} | row
    if "label_accuracy" in row or "accuracy" not in row:
        return row
    multilabel = bool(row.get("set_nll"))
    accuracy = ("", row["accuracy"]) if multilabel else (row["accuracy"], "")
    return row | dict(zip(("accuracy", "label_accuracy"), accuracy, strict=True))


@dataclass(frozen=True)
class Answers:
    """What a method answered on a test part.

    Attributes
    ----------
    targets, proba : ndarray of shape (n, C)
    thresholds : ndarray of shape (C,), (C − 1,) or (0,)
        Of labels; cut points between grades; empty for other exclusive classes, and for grades of
        which the most probable one was decided.
    groups : ndarray of shape (n,)
        Number of each image's patient, lesion or set of near-duplicates; else of the image itself.
        The same in every split of a data set.
    """

    targets: NDArray[Any]
    proba: Floats
    thresholds: Floats
    groups: NDArray[np.int64]

    @property
    def predicted(self) -> NDArray[np.int64]:
        """Indicator of the answers, (n, C)."""
        if self.multilabel:
            return (self.proba >= self.thresholds).astype(int)
        decided = self.proba.argmax(axis=1)
        if self.thresholds.size:
            expected = self.proba @ np.arange(self.proba.shape[1])
            decided = (expected[:, None] >= self.thresholds).sum(axis=1)
        return np.eye(self.proba.shape[1], dtype=int)[decided]

    @property
    def multilabel(self) -> bool:
        """Whether labels do not exclude each other."""
        return len(self.thresholds) == self.proba.shape[1]

    def losses(self) -> Floats:
        """Negative log-likelihood of each image, (n,), no probability counting as less than 1e-4.

        Rounded to half precision it may be 0.
        """
        p = self.proba.clip(1e-4, 1 - 1e-4)
        if self.multilabel:
            return -np.where(self.targets == 1, np.log(p), np.log1p(-p)).mean(axis=1)
        p = self.proba.clip(1e-4)
        p = p / p.sum(axis=1, keepdims=True)
        return -np.log((p * self.targets).sum(axis=1))


@dataclass(frozen=True)
class Difference:
    """Mean differences of two methods over runs; ours is better above zero.

    Attributes
    ----------
    macro_f1, nll : ndarray of shape (1 + N_RESAMPLES,)
        The first entry is of the images and the runs as they are.
    runs_ahead : tuple of int
        In how many runs ours is ahead in macro F1, and in likelihood.
    n_runs : int
    """

    macro_f1: Floats
    nll: Floats
    runs_ahead: tuple[int, int]
    n_runs: int

    @classmethod
    def pooled(cls, of_sets: Iterable["Difference"]) -> "Difference":
        """Over sets, each of which counts the same."""
        sets = list(of_sets)
        return cls(
            np.mean([d.macro_f1 for d in sets], axis=0),
            np.mean([d.nll for d in sets], axis=0),
            (sum(d.runs_ahead[0] for d in sets), sum(d.runs_ahead[1] for d in sets)),
            sum(d.n_runs for d in sets),
        )


def differences(
    kept: Results,
    method: str,
    opponents: Iterable[str],
    runs: Iterable[tuple[str, int]] | None = None,
    of_opponents: Results | None = None,
) -> Differences:
    """Paired differences of a method from others, by opponent and set, and pooled over the sets.

    Parameters
    ----------
    runs : iterable of (set, seed), optional
        Those to compare. Default: all.
    of_opponents : Results, optional
        Another file, which has the opponents' runs on the same splits.

    Raises
    ------
    ValueError
        The test images of a run are not the same in both files.
    """
    if runs is None:
        runs = {(r["set"], int(r["seed"])) for r in kept.rows() if r["part"] == "test"}
    runs = sorted(runs)
    others = kept if of_opponents is None else of_opponents
    found: Differences = {}
    for opponent in opponents:
        of_sets = {}
        for name in dict.fromkeys(name for name, _ in runs):
            pairs = [
                (ours, theirs)
                for of, seed in runs
                if of == name
                and (ours := kept.answers(name, seed, method)) is not None
                and (theirs := others.answers(name, seed, opponent)) is not None
            ]
            for a, b in pairs:
                if not (
                    np.array_equal(a.targets, b.targets) and np.array_equal(a.groups, b.groups)
                ):
                    raise ValueError(f"{kept.file} and {others.file} have other images of {name}.")
            if pairs:
                ours, theirs = (list(side) for side in zip(*pairs, strict=True))
                # The same draws for every opponent.
                of_sets[opponent, name] = paired_differences(ours, theirs, np.random.default_rng(0))
        if of_sets:
            found |= of_sets
            found[opponent, POOLED] = Difference.pooled(of_sets.values())
    return found


def paired_differences(
    ours: list[Answers], theirs: list[Answers], rng: np.random.Generator
) -> Difference:
    """Bootstrap over the groups of the test images, and over the runs, of mean differences.

    Groups are drawn once for all runs, both methods alike: splits of one data set overlap, and
    images of a patient resemble each other. Runs are drawn because each has networks of its own:
    of one run the interval is of the images alone, of two or three it is too narrow.

    Parameters
    ----------
    ours, theirs : list of Answers
        Of two methods, one entry per seed.
    """
    every = np.unique(np.concatenate([a.groups for a in ours]))
    drawn = rng.multinomial(len(every), np.full(len(every), 1 / len(every)), size=N_RESAMPLES)
    of_groups = np.concatenate([np.ones((1, len(every))), drawn])
    f1, nll = [], []
    for a, b in zip(ours, theirs, strict=True):
        counts = of_groups[:, np.searchsorted(every, a.groups)]
        f1.append(macro_f1(a, counts) - macro_f1(b, counts))
        nll.append(counts @ (b.losses() - a.losses()) / counts.sum(axis=1))
    ahead = tuple(sum(bool(values[0] > 0) for values in of) for of in (f1, nll))
    n_runs = len(ours)
    of_runs = rng.multinomial(n_runs, np.full(n_runs, 1 / n_runs), size=N_RESAMPLES)
    shares = np.concatenate([np.ones((1, n_runs)), of_runs]).T / n_runs
    means = [(shares * np.stack(of)).sum(axis=0) for of in (f1, nll)]
    return Difference(*means, (ahead[0], ahead[1]), n_runs)


def macro_f1(answers: Answers, counts: Floats) -> Floats:
    """Macro F1 of each resample, (R,), over the labels that occur in the test part."""
    present = answers.targets.any(axis=0)
    truth, predicted = answers.targets[:, present], answers.predicted[:, present]
    hits = counts @ (truth * predicted)
    named = counts @ truth + counts @ predicted
    f1: Floats = (2 * hits / np.maximum(named, 1)).mean(axis=1)
    return f1


def summary(rows: Iterable[dict[str, str]], part: str) -> Iterator[tuple[str, str, int, Any]]:
    """Set, method, number of runs, and (mean, standard deviation) of each metric.

    The deviation is that of a sample; not a number where there is one run.

    Raises
    ------
    ValueError
        A seed has several runs, of other sizes or epochs: their mean would be of no method.
    """
    groups: dict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        if row["part"] == part:
            groups[row["set"], row["method"]].append(row)
    for (name, method), runs in groups.items():
        if len({run["seed"] for run in runs}) < len(runs):
            sizes = sorted(
                {f"{run['image_size']} pixels, {run['max_epochs']} epochs" for run in runs}
            )
            raise ValueError(f"{method} on {name} has several runs of a seed: {'; '.join(sizes)}.")
        metrics = {}
        for metric in METRICS:
            values = [float(run[metric]) for run in runs if run[metric] not in ("", "nan")]
            if values:
                metrics[metric] = float(np.mean(values)), _deviation(values)
        yield name, method, len(runs), metrics


def _deviation(values: list[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
