"""Rows of predictions, one for each image, and images that cannot be read told beside them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..inference import Stage
from .doubt import with_abstention

if TYPE_CHECKING:
    from ..classifier import DiffMICClassifier


@dataclass(frozen=True)
class Asked:
    """What is asked for each image beside the probabilities of a stage."""

    stage: Stage
    shares: Any = None  # (C,), of the classes in the population
    abstain: float | None = None  # share of the images without a decision
    coverage: float | None = None  # of sets of classes

    def columns(self, clf: "DiffMICClassifier") -> list[str]:
        """Columns beside those that are always there."""
        undecided = self.abstain is not None and not clf.model_.task.exclusive
        return [*(["undecided"] if undecided else []), *(["set"] if self.coverage else [])]


def rows_or_faults(
    clf: "DiffMICClassifier", names: Sequence[str], images: Sequence[Any], asked: Asked
) -> list[dict[str, Any] | str]:
    """Row of each image (path, content of a file, or array), or why it cannot be read.

    An image that cannot be read is found by halving: probabilities do not depend on the other
    images of a batch.
    """
    if not names:
        return []
    try:
        proba = clf.predict_proba(list(images), stage=asked.stage, prevalence=asked.shares)
        sets = None
        if asked.coverage is not None:
            sets = clf.predict_set(list(images), asked.coverage, stage=asked.stage).included
    except (InputError, OSError) as reason:
        if len(names) == 1:
            return [_without(names[0], str(reason))]
        middle = len(names) // 2
        return [
            *rows_or_faults(clf, names[:middle], images[:middle], asked),
            *rows_or_faults(clf, names[middle:], images[middle:], asked),
        ]
    return list(rows_of(clf, names, proba, asked, sets))


def rows_of(
    clf: "DiffMICClassifier", names: Sequence[str], proba: Any, asked: Asked, sets: Any = None
) -> Iterator[dict[str, Any]]:
    """Row of each image: its name, what is predicted, and the probability of each class.

    ``sets`` (n, C) says which classes are in the set of each image.
    """
    classes, model, stage = clf.class_names_, clf.model_, asked.stage
    decided = model.decisions(proba, stage, asked.shares)
    if asked.abstain is not None:
        limits = model.thresholds_of(stage, asked.shares)
        decided = with_abstention(model, proba, decided, stage, asked.abstain, limits)
    known = model.classes.tolist()
    for i, (name, p, decision) in enumerate(
        zip(names, proba.tolist(), decided.tolist(), strict=True)
    ):
        row: dict[str, Any] = {"file": name}
        if model.task.exclusive:
            row["predicted"] = None if decision is None else classes[known.index(decision)]
        else:
            row["predicted"] = _those(classes, [value == 1 for value in decision])
            if asked.abstain is not None:
                row["undecided"] = _those(classes, [value != value for value in decision])  # NaN
        if sets is not None:
            row["set"] = _those(classes, sets[i])
        yield row | {f"p_{c}": v for c, v in zip(classes, p, strict=True)}


def _those(classes: Sequence[str], included: Iterable[Any]) -> list[str]:
    return [name for name, there in zip(classes, included, strict=True) if there]


def _without(name: str, fault: str) -> str:
    """A message in one line, without the name of the file that it begins with."""
    told = " ".join(fault.split())
    return told.removeprefix(f"{name!r}").removeprefix(name).lstrip(": ") or told
