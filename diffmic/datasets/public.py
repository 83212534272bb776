"""What the readers of public data sets return: images, labels, groups, splits, and their source."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..data.columns import check_lengths
from ..data.targets import TargetEncoding
from ..errors import InputError
from ..image_table import LabelledTable
from ..random import Seed, draw_seed
from .splitting import drawn_splits


@dataclass(frozen=True)
class Source:
    """Where a public data set comes from.

    Attributes
    ----------
    title : str
    url : str
        Where it is downloaded.
    licence : str
        Terms of the images.
    citation : str
        Whom to cite.
    layout : str
        Files and folders of the unpacked download.
    """

    title: str
    url: str
    licence: str
    citation: str
    layout: str

    def __str__(self) -> str:
        return f"{self.title}: {self.url}. Licence: {self.licence}. Cite: {self.citation}."


@dataclass(frozen=True, eq=False)
class PublicDataset(LabelledTable):
    """A public data set as it was read: images, labels, groups and splits, and their source.

    Printed, it is a short table with what is wrong.

    Attributes
    ----------
    images : list of Path, or ndarray of shape (n, H, W) or (n, H, W, 3)
        Files, or pixels.
    labels : ndarray of shape (n,) or (n, L)
        One label per image, or an indicator matrix.
    names : dict
        Name of each label, or of each column of the matrix by its number; ``fit`` takes the names
        along.
    splits : ndarray of shape (n,) or None
        Official split of each image: train, val or test. None: there is none; see :meth:`split`.
    groups : ndarray of shape (n,) or None
        Patient or lesion of each image. None: not published.
    source : Source
        Where the data set comes from, and under which licence.
    problems : tuple of str
        What was found wrong; a warning told each.
    """

    _by_image = ("images", "labels", "splits", "groups")
    images: list[Path] | NDArray[np.uint8]
    labels: NDArray[Any]
    names: dict[Any, str]
    splits: NDArray[np.str_] | None
    groups: NDArray[Any] | None
    source: Source
    problems: tuple[str, ...] = ()

    @property
    def class_names(self) -> list[str]:
        """Names of the classes in the order of their labels, or of the columns of the matrix."""
        return list(self.names.values())

    @property
    def label_names(self) -> list[str]:  # type: ignore[override]  # a field of other tables
        """The same as ``class_names``, by the name that other tables have for it."""
        return self.class_names

    def split(
        self,
        *,
        validation: float = 0.1,
        test: float | None = None,
        groups: Any = None,
        random_state: Seed = 0,
    ) -> Self:
        """Divide the images into train, val and test; an official test part is kept.

        Classes have about the same share in each part, and a group is never divided.

        Parameters
        ----------
        validation : float
            Fraction of the images for ``val``; they are not taken from an official test part.
        test : float or None
            Fraction of the images for ``test``. None: 0.2, or the official test part.
        groups : array-like of shape (n,) or None
            Images that must stay together, such as ``inspect(data).groups``, which has copies and
            near copies besides patients. None: the groups of the data set.
        random_state : int, RandomState or None
            The same number gives the same split; None gives another one each time.

        Returns
        -------
        PublicDataset
            The same images with other ``splits``.

        Raises
        ------
        InputError
            A fraction is not between 0 and 1; there is an official split that would be lost; or
            groups are too few.
        """
        official = set() if self.splits is None else set(self.splits.tolist())
        if "val" in official or (test is not None and "test" in official):
            raise InputError(
                f"The data set has an official split, {sorted(official)}, which would be lost. "
                + ("Use it: part('train')." if "val" in official else "Leave test= out.")
            )
        test = (0.0 if "test" in official else 0.2) if test is None else test
        for name, value in (("validation", validation), ("test", test)):
            wrong = not isinstance(value, int | float | np.number) or isinstance(value, bool)
            if wrong or not 0 <= value < 1 or (name == "validation" and value == 0):
                raise InputError(f"{name} is {value!r}; give a fraction between 0 and 1.")
        if validation + test >= 1:
            raise InputError(f"validation and test are {validation} and {test}: nothing is left.")
        check_lengths(len(self), groups=groups)
        groups = self.groups if groups is None else np.asarray(groups)
        encoding, targets = TargetEncoding.learn_and_encode(self.labels, "auto")
        splits = np.full(len(self), "train", dtype="<U5")
        free = np.arange(len(self))
        if "test" in official and self.splits is not None:
            splits[self.splits == "test"] = "test"
            free = np.flatnonzero(self.splits != "test")
            validation = validation * len(self) / len(free)
        splits[free] = drawn_splits(
            targets[free],
            None if groups is None else groups[free],
            encoding.task,
            np.random.RandomState(draw_seed(random_state)),
            validation=validation,
            test=test,
        )
        return replace(self, splits=splits)

    def __str__(self) -> str:
        lines = [str(self.source), f"{len(self)} images"]
        found = [] if self.splits is None else self.splits.tolist()
        parts = [part for part in ("train", "val", "test") if part in found] or [""]
        for part in parts:
            mine = self.labels if self.splits is None else self.labels[self.splits == part]
            counts = ", ".join(f"{name}: {count}" for name, count in self._counts(mine))
            lines.append(f"{part or 'labels'}: {len(mine)} ({counts})")
        if self.groups is not None:
            lines.append(f"{len(np.unique(self.groups))} groups (patients or lesions)")
        return "\n".join([*lines, *(f"- {problem}" for problem in self.problems)])

    def __repr__(self) -> str:
        return f"<{self.source.title}: {len(self)} images, {len(self.problems)} problem(s)>"

    def _counts(self, labels: NDArray[Any]) -> list[tuple[str, int]]:
        if labels.ndim == 2:
            return list(zip(self.class_names, (labels == 1).sum(axis=0).tolist(), strict=True))
        return [(name, int((labels == label).sum())) for label, name in self.names.items()]
