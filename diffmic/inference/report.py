"""Evaluation report: metrics of every stage with bootstrap intervals, overall and per class."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..tasks import CLASS_METRICS, CLASS_WORDS, METRIC_WORDS, Task, class_metrics
from .tables import data_frame, markdown_table

Floats = NDArray[np.float64]
Table = tuple[list[str], list[list[str]]]  # heading and rows
LEVEL = 0.95  # of the intervals
_SEED = 0  # the same resamples for every stage and report, so that differences are paired
ORDER = ("prior", "diffusion", "diffusion_alone")


class Measured(NamedTuple):
    """A metric, and the ends of its 95 % bootstrap interval; NaN without an interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "–"
        if math.isnan(self.low):
            return f"{self.value:.3f}"
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True, eq=False, repr=False)
class EvaluationReport(Mapping[str, Mapping[str, float]]):
    """Metrics of prior, diffusion, and diffusion without the prior's logits, with intervals.

    A mapping from the stage (``"prior"``, ``"diffusion"``, ``"diffusion_alone"``) to its metrics:
    ``report["diffusion"]["auc"]``. Returned by :meth:`DiffMICClassifier.evaluate`.

    Intervals are percentiles of ``n_bootstrap`` resamples of the images, or of whole groups. They
    are computed when they are first asked for, which takes some seconds. All stages are measured on
    the same resamples.

    Attributes
    ----------
    truth : ndarray of shape (n,) or (n, L)
        Labels of the images; NaN in an indicator matrix is an unknown label.
    proba : dict of str to ndarray of shape (n, C)
        Probabilities of each stage.
    thresholds : dict of str to ndarray
        Decision thresholds of each stage, if there are some.
    classes : ndarray of shape (C,)
        Labels of the columns.
    class_names : tuple of str
        Display names of the classes.
    task : Task
    groups : ndarray of shape (n,) or None
        Number of the group of each image, such as its patient; groups are resampled as a whole.
    n_bootstrap : int
        Number of resamples; 0: there are no intervals.
    decided : dict of str to ndarray of shape (n,) or (n, L)
        Decisions of each stage that were not made by the thresholds, but by cost.
    """

    truth: NDArray[Any]
    proba: Mapping[str, Floats]
    thresholds: Mapping[str, Floats]
    classes: NDArray[Any]
    class_names: tuple[str, ...]
    task: Task
    groups: NDArray[np.int64] | None = None
    n_bootstrap: int = 1000
    decided: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __getitem__(self, stage: str) -> dict[str, float]:
        return self._metrics[stage]

    def __iter__(self) -> Iterator[str]:
        return iter(self._metrics)

    def __len__(self) -> int:
        return len(self._metrics)

    def __repr__(self) -> str:
        stages = ", ".join(f"{stage}: accuracy {self[stage]['accuracy']:.3f}" for stage in self)
        return f"<EvaluationReport of {self.n_images} images; {stages}>"

    @property
    def n_images(self) -> int:
        """Number of images."""
        return len(self.truth)

    def measured(self, stage: str, metric: str, label: Any = None) -> Measured:
        """A metric of a stage with its interval.

        Parameters
        ----------
        stage : {"prior", "diffusion", "diffusion_alone"}
        metric : str
            Name of a metric, as in ``report[stage]``; with a label, one of a single class:
            ``"sensitivity"``, ``"specificity"``, ``"precision"``, ``"f1"``, ``"auc"``.
        label : label of a class, or None
            Class, as in ``classes``; None: all together.

        Raises
        ------
        InputError
            There is no such stage, metric or class.
        """
        return self._interval(self._place(stage, metric, label), (stage,))

    def difference(
        self, metric: str, ours: str = "diffusion", theirs: str = "prior", label: Any = None
    ) -> Measured:
        """Paired difference of two stages in a metric, ours minus theirs, with its interval."""
        place = self._place(ours, metric, label)
        self._place(theirs, metric, label)
        return self._interval(place, (ours, theirs))

    def rows(self) -> list[dict[str, Any]]:
        """One dict for each stage, class and metric; the class is None where it is of all.

        Keys: ``stage``, ``class``, ``n_positive`` (images known to be of the class; None where it
        is of all), ``metric``, ``value``, ``low``, ``high``.
        """
        places: list[tuple[Any, int | None]] = [(None, None)]
        places += list(zip(self.classes.tolist(), self._n_positive.tolist(), strict=True))
        return [
            {"stage": stage, "class": label, "n_positive": count, "metric": metric}
            | self.measured(stage, metric, label)._asdict()
            for stage in self
            for label, count in places
            for metric in (self[stage] if label is None else CLASS_METRICS)
        ]

    def to_frame(self) -> Any:
        """The :meth:`rows` as a pandas data frame.

        Raises
        ------
        ImportError
            pandas is not installed.
        """
        return data_frame(self.rows())

    def to_markdown(self) -> str:
        """Tables in Markdown: all metrics, then those of each class, for every stage.

        It is the block of results of a model card: ``ModelCard(test_scores=report)``.
        """
        blocks = [markdown_table(*self.overall_table())]
        for stage in self:
            blocks += [
                f"Each class against all others, {stage.replace('_', ' ')}:",
                markdown_table(*self.class_table(stage)),
            ]
        return "\n\n".join([*blocks, *self._notes()])

    def overall_table(self) -> Table:
        """Heading and rows of all metrics, with a column for each stage, as texts."""
        rows = [
            [METRIC_WORDS.get(metric, metric), *(str(self.measured(s, metric)) for s in self)]
            for metric in self[next(iter(self))]
        ]
        return ["", *(stage.replace("_", " ") for stage in self)], rows

    def class_table(self, stage: str) -> Table:
        """Heading and rows of the metrics of each class, as texts."""
        labels, counts = self.classes.tolist(), self._n_positive.tolist()
        rows = [
            [name, str(count), *(str(self.measured(stage, m, label)) for m in CLASS_METRICS)]
            for name, label, count in zip(self.class_names, labels, counts, strict=True)
        ]
        return ["class", "images", *(CLASS_WORDS.get(m, m) for m in CLASS_METRICS)], rows

    def _notes(self) -> Iterator[str]:
        if self.n_bootstrap:
            units = "images"
            if self.groups is not None:
                units = f"{len(np.unique(self.groups))} groups of images"
            yield f"In brackets: 95 % intervals over {self.n_bootstrap} resamples of the {units}."
        if "diffusion_alone" in self:
            yield "Diffusion alone: without the prior's logits in its calibration."

    def _place(self, stage: str, metric: str, label: Any) -> int:
        """Number of a metric in :meth:`_all`."""
        if stage not in self:
            raise InputError(f"stage is {stage!r}; the report has {list(self)}.")
        names = list(self[stage])
        if label is None:
            if metric not in names:
                raise InputError(f"metric is {metric!r}; the report has {names}.")
            return names.index(metric)
        known = self.classes.tolist()
        if metric not in CLASS_METRICS:
            raise InputError(f"metric is {metric!r}; of a class there are {list(CLASS_METRICS)}.")
        if label not in known:
            raise InputError(f"label is {label!r}; the classes are {known}.")
        number: int = known.index(label)
        return len(names) + CLASS_METRICS.index(metric) * len(known) + number

    def _interval(self, place: int, stages: tuple[str, ...]) -> Measured:
        """A metric, or the difference of two stages in it, with its interval."""
        value = float(self._whole[stages[0]][place])
        if len(stages) > 1:
            value -= float(self._whole[stages[1]][place])
        if not self.n_bootstrap:
            return Measured(value, math.nan, math.nan)
        resampled = self._resampled[stages[0]][:, place]
        if len(stages) > 1:
            resampled = resampled - self._resampled[stages[1]][:, place]
        found = resampled[~np.isnan(resampled)]
        if not len(found) or math.isnan(value):
            return Measured(value, math.nan, math.nan)
        tail = (1 - LEVEL) / 2
        low, high = np.quantile(found, [tail, 1 - tail])
        return Measured(value, float(low), float(high))

    @cached_property
    def _metrics(self) -> dict[str, dict[str, float]]:
        return {stage: self._of(stage) for stage in ORDER if stage in self.proba}

    def _of(self, stage: str, rows: Any = slice(None)) -> dict[str, float]:
        numbers = np.arange(len(self.classes))  # comparing numbers is faster than strings
        predicted = self._decisions[stage][rows]
        return self.task.metrics(
            self._numbered[rows], self.proba[stage][rows], numbers, predicted=predicted
        )

    @cached_property
    def _decisions(self) -> dict[str, NDArray[Any]]:
        """Decisions of each stage, as numbers of the classes (n,) or indicator rows (n, L)."""
        numbers = np.arange(len(self.classes))
        found = {
            stage: self.task.decide(proba, numbers, self.thresholds.get(stage))
            for stage, proba in self.proba.items()
        }
        for stage, decided in self.decided.items():
            if self.task.exclusive:
                decided = (decided[:, None] == self.classes[None]).argmax(axis=1)
            found[stage] = decided
        return found

    @cached_property
    def _numbered(self) -> NDArray[Any]:
        """Truth with the numbers of the classes for their labels."""
        return self.task.labels(self._indicator, np.arange(len(self.classes)))

    @cached_property
    def _indicator(self) -> NDArray[Any]:
        """Truth as one-hot or indicator rows, (n, C)."""
        truth = self.truth
        return (truth[:, None] == self.classes[None]).astype(int) if truth.ndim == 1 else truth

    @cached_property
    def _n_positive(self) -> NDArray[np.int64]:
        counts: NDArray[np.int64] = (self._indicator == 1).sum(axis=0)
        return counts

    def _all(self, stage: str, rows: Any = slice(None)) -> Floats:
        """All metrics of a stage for some images, then those of each class, as one row."""
        try:
            overall = list(self._of(stage, rows).values())
        except InputError:  # no label is known in this resample
            overall = [math.nan] * len(self[stage])
        proba = self.proba[stage][rows]
        predicted = self._decisions[stage][rows]
        if predicted.ndim == 1:
            predicted = predicted[:, None] == np.arange(len(self.classes))
        each = class_metrics(self._indicator[rows], proba, predicted)
        return np.concatenate([overall, *(each[name] for name in CLASS_METRICS)])

    @cached_property
    def _whole(self) -> dict[str, Floats]:
        return {stage: self._all(stage) for stage in self}

    @cached_property
    def _resampled(self) -> dict[str, Floats]:
        """Metrics of each stage on each resample, (n_bootstrap, number of metrics)."""
        rng = np.random.default_rng(_SEED)
        units = np.arange(self.n_images) if self.groups is None else self.groups
        n_units = int(units.max()) + 1
        found: dict[str, list[Floats]] = {stage: [] for stage in self}
        for _ in range(self.n_bootstrap):
            counts = np.bincount(rng.integers(n_units, size=n_units), minlength=n_units)
            rows = np.repeat(np.arange(self.n_images), counts[units])
            for stage, each in found.items():
                each.append(self._all(stage, rows))
        return {stage: np.stack(each) for stage, each in found.items()}
