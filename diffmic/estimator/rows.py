"""Rows of predictions, one for each image, and images that cannot be read told beside them."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    from ..classifier import DiffMICClassifier


def rows_or_faults(
    clf: "DiffMICClassifier", names: Sequence[str], images: Sequence[Any], stage: Any
) -> list[dict[str, Any] | str]:
    """Row of each image, or in its place why it cannot be read.

    An image that cannot be read is found by halving: probabilities do not depend on the other
    images of a batch.

    Parameters
    ----------
    clf : DiffMICClassifier
    names : sequence of str
        Names of the images, for the rows.
    images : sequence
        Paths, contents of files, or arrays.
    stage : {"diffusion", "prior", "diffusion_alone"}
    """
    if not names:
        return []
    try:
        proba = clf.predict_proba(list(images), stage=stage)
    except (InputError, OSError) as reason:
        if len(names) == 1:
            return [_without(names[0], str(reason))]
        middle = len(names) // 2
        return [
            *rows_or_faults(clf, names[:middle], images[:middle], stage),
            *rows_or_faults(clf, names[middle:], images[middle:], stage),
        ]
    return list(rows_of(clf, names, proba, stage))


def rows_of(
    clf: "DiffMICClassifier", names: Sequence[str], proba: Any, stage: Any
) -> Iterator[dict[str, Any]]:
    """Row of each image: its name, what is predicted, and the probability of each class."""
    classes, model = clf.class_names_, clf.model_
    decided = model.decisions(proba, stage)
    known = model.classes.tolist()
    for name, p, decision in zip(names, proba.tolist(), decided.tolist(), strict=True):
        if model.task.exclusive:
            label: Any = classes[known.index(decision)]
        else:
            label = [c for c, present in zip(classes, decision, strict=True) if present]
        row = {"file": name, "predicted": label}
        yield row | {f"p_{c}": v for c, v in zip(classes, p, strict=True)}


def _without(name: str, fault: str) -> str:
    """A message in one line, without the name of the file that it begins with."""
    told = " ".join(fault.split())
    return told.removeprefix(f"{name!r}").removeprefix(name).lstrip(": ") or told
