"""What an inspection of images found: a table, and a short verdict."""

import html
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Sets = Sequence[tuple[int, ...]]  # of image numbers


@dataclass(frozen=True, eq=False)
class Inspection:
    """Findings about images and labels; printed, it is a table and a verdict.

    Images are known by their number: those of X first, then those of ``validation_data``.

    Attributes
    ----------
    names : list of str
        Name of each image: its file, or its position.
    splits : ndarray of shape (n,)
        Split of each image.
    counts : dict of str to dict of str to int
        For each split the number of images of each class, or with each label.
    known : dict of str to dict of str to int
        For multi-label: for each split the number of images of which each label is known, whether
        present or absent; empty for one label per image.
    unknown : dict of str to int
        For multi-label: number of images of which a label is not known.
    sizes : dict of (int, int) to int
        Number of images of each height and width.
    pixels : dict of str to (int, float, float)
        For each kind of image, such as "gray, 8 bits", the number, and the smallest and largest
        value.
    damaged : dict of int to str
        Images that cannot be used, and why.
    blank : list of int
        Images of a single shade.
    duplicates : list of tuple of int
        Sets of images with the same pixels.
    near_duplicates : list of tuple of int, or None
        Sets of images that look alike, beyond ``duplicates``; None: not looked for.
    conflicts : list of tuple of int
        Sets of copies with different labels.
    leaks : list of tuple of int
        Sets of copies in different splits.
    shared_groups : list of str
        Groups, such as patients, with images in different splits.
    groups : ndarray of shape (m,)
        Number of the group of each image of X: images of one group, and copies of each
        other, have one number. ``fit(X, y, groups=inspection.groups)`` keeps them together.
    problems : list of str
        What is wrong, most serious first, and what to do; empty if nothing is.
    """

    names: list[str]
    splits: NDArray[np.str_]
    counts: Mapping[str, Mapping[str, int]]
    known: Mapping[str, Mapping[str, int]]
    unknown: Mapping[str, int]
    sizes: Mapping[tuple[int, int], int]
    pixels: Mapping[str, tuple[int, float, float]]
    damaged: Mapping[int, str]
    blank: list[int]
    duplicates: Sets
    near_duplicates: Sets | None
    conflicts: Sets
    leaks: Sets
    shared_groups: list[str]
    groups: NDArray[np.intp]
    problems: list[str]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def verdict(self) -> str:
        """The problems in a few lines, or that there are none."""
        if not self.problems:
            return f"No problem was found in {len(self)} images."
        return f"{len(self.problems)} problem(s):\n" + "\n".join(f"- {p}" for p in self.problems)

    def rows(self) -> list[tuple[str, str]]:
        """The table: a name and a text in each row."""
        rows = [("images", f"{len(self)}")]
        for split, counts in self.counts.items():
            known = self.known.get(split, {}) if any(self.unknown.values()) else {}
            of = {name: f" of {n} known" for name, n in known.items()}
            listed = ", ".join(
                f"{name}: {count}{of.get(name, '')}" for name, count in counts.items()
            )
            listed = listed or "none"
            size = int((self.splits == split).sum())
            alone = len(self.counts) == 1
            rows.append(("labels" if alone else split, listed if alone else f"{size} ({listed})"))
        if any(self.unknown.values()):
            unknown = [f"{name}: {count}" for name, count in self.unknown.items() if count]
            rows.append(("unknown labels", ", ".join(unknown)))
        rows.append(("height × width", _sizes(self.sizes)))
        for kind, (count, low, high) in self.pixels.items():
            rows.append((kind, f"{count}, pixels from {low:.5g} to {high:.5g}"))
        near = self.near_duplicates
        rows += [
            ("damaged", _count(self.damaged)),
            ("blank", _count(self.blank)),
            ("copies", _copies(self.duplicates)),
            ("look alike", "not looked for" if near is None else _copies(near)),
        ]
        return rows

    def __str__(self) -> str:
        rows = self.rows()
        width = max(len(name) for name, _ in rows)
        table = "\n".join(f"{name:<{width}}  {text}" for name, text in rows)
        return f"{table}\n\n{self.verdict}"

    def __repr__(self) -> str:
        return f"<Inspection of {len(self)} images: {len(self.problems)} problem(s)>"

    def _repr_html_(self) -> str:
        cells = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
            f"<td style='text-align:left'>{html.escape(text)}</td></tr>"
            for name, text in self.rows()
        )
        first, *listed = self.verdict.split("\n")
        points = "".join(f"<li>{html.escape(line.removeprefix('- '))}</li>" for line in listed)
        return f"<table>{cells}</table><p>{html.escape(first)}</p><ul>{points}</ul>"


def _sizes(sizes: Mapping[tuple[int, int], int]) -> str:
    if not sizes:
        return "no image could be read"
    (height, width), _ = Counter(sizes).most_common(1)[0]
    if len(sizes) == 1:
        return f"{height} × {width}"
    low, high = np.min(list(sizes), axis=0), np.max(list(sizes), axis=0)
    return (
        f"{low[0]}–{high[0]} × {low[1]}–{high[1]}, {len(sizes)} sizes, most often "
        f"{height} × {width}"
    )


def _count(found: Any) -> str:
    return str(len(found)) if len(found) else "none"


def _copies(sets: Sets) -> str:
    return f"{sum(map(len, sets))} images in {len(sets)} set(s)" if sets else "none"
