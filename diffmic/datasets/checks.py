"""Checks of a public data set: counts, missing and damaged files, copies, groups."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..conventions import some
from ..data.files import check_image_file, read_image
from ..errors import InputError
from .image_files import image_suffixes, is_hidden, without_suffix

if TYPE_CHECKING:
    from .download import Download, Listed

_TAIL = 4096  # bytes at the end of a file that hold the end of its image
_ENDS = {".jpg": b"\xff\xd9", ".jpeg": b"\xff\xd9", ".png": b"IEND"}


def each_once(download: "Download", listed: Iterable["Listed"]) -> list["Listed"]:
    """Images that are listed, each once; refuse those that are listed with different labels."""
    known: dict[tuple[str, str], Listed] = {}
    twice = []
    for row in listed:
        first = known.setdefault((row.place, _stem(row.name)), row)
        if first is row:
            continue
        if (first.label, first.split, first.group) != (row.label, row.split, row.group):
            raise InputError(
                f"{download.source.title} lists the image {row.name!r} twice, with different "
                f"labels, splits or groups: {first.label!r}, {row.label!r}. Download the tables "
                "again."
            )
        twice.append(row.name)
    if twice:
        download.told(f"{len(twice)} image(s) are listed twice ({some(twice)}), and read once.")
    return list(known.values())


def check_counts(
    download: "Download",
    rows: Sequence["Listed"],
    class_names: Sequence[str],
    official: Mapping[str, Mapping[Any, int]],
) -> None:
    """Compare the numbers of images of each class with the official ones."""
    differing: list[str] = []
    for split, expected in official.items():
        mine = [row.label for row in rows if not split or row.split == split]
        multilabel = bool(mine) and isinstance(mine[0], tuple)
        if multilabel:
            columns = zip(class_names, zip(*mine, strict=True), strict=True)
            found = Counter({name: sum(column) for name, column in columns})
        else:
            found = Counter(mine)
        other = [
            f"{name}: {found[name]:,} of {number:,}"
            for name, number in expected.items()
            if name is not None and found[name] != number
        ]
        total = expected.get(None, None if multilabel else sum(expected.values()))
        if total is not None and len(mine) != total:
            other.insert(0, f"{len(mine):,} of {total:,} images")
        differing += [f"{split}: {some(other, 8)}" if split else some(other, 8)] if other else []
    if differing:
        download.told(
            f"the numbers are not the official ones ({'; '.join(differing)}). It may be a part of "
            "the download, or another edition."
        )


def image_files_in(folders: Sequence[Path], ignored: str) -> dict[str, list[Path]]:
    """Image files in folders and below, by their name without suffix."""
    found: dict[str, list[Path]] = defaultdict(list)
    for folder in folders:
        for place, inner, names in os.walk(folder, followlinks=True):
            inner[:] = sorted(name for name in inner if not is_hidden(name))
            for name in sorted(names):
                suffix = os.path.splitext(name)[1].lower()
                if suffix in image_suffixes() and not (is_hidden(name) or fnmatch(name, ignored)):
                    file = Path(place, name)
                    if file not in found[_stem(name)]:
                        found[_stem(name)].append(file)
    return found


def _stem(name: str) -> str:
    return without_suffix(name).casefold()


def matched(
    download: "Download", rows: list["Listed"], files: Mapping[str, dict[str, list[Path]]]
) -> tuple[list["Listed"], list[Path]]:
    """Rows whose image is there, and its path."""
    missing, kept, paths = [], [], []
    for row in rows:
        found = files[row.place].pop(_stem(row.name), [])
        if not found:
            missing.append(row.name)
            continue
        kept.append(row)
        paths.append(found[0])
        if found[1:]:
            files[row.place][_stem(row.name)] = found[1:]  # copies
    if not kept:
        raise download.missing(f"image that is listed, such as {missing[0]!r},")
    download.unusable(missing, f"of {len(rows)} are missing", "Unpack all archives.")
    extra = [
        str(p.relative_to(download.root)) for f in files.values() for x in f.values() for p in x
    ]
    if extra:
        download.told(f"{len(extra)} image(s) are not listed ({some(extra)}), and are left out.")
    return kept, paths


def fault_of(path: Path) -> str:
    """Why an image file cannot be used; empty if it can, as far as its two ends tell."""
    try:
        check_image_file(path)
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL))
            tail = file.read()
        # A file without the end of its image may be whole nevertheless: then it is decoded.
        if _ENDS.get(path.suffix.lower(), b"\0 never") not in tail:
            read_image(path)
    except (InputError, OSError) as reason:
        return str(reason)
    return ""


def check_copies(download: "Download", rows: Sequence["Listed"], paths: Sequence[Path]) -> None:
    """Report files with the same content that have different labels, or lie in different splits."""
    sizes: dict[int, list[int]] = defaultdict(list)
    for number, path in enumerate(paths):
        sizes[path.stat().st_size].append(number)
    contents: dict[bytes, list[int]] = defaultdict(list)
    for numbers in sizes.values():
        if len(numbers) > 1:  # files of different sizes are no copies
            for number in numbers:
                with paths[number].open("rb") as file:
                    content = hashlib.file_digest(file, "blake2b").digest()
                contents[content].append(number)
    copies = [numbers for numbers in contents.values() if len(numbers) > 1]

    def report(sets: list[list[int]], what: str) -> None:
        if sets:
            shown = some([" = ".join(paths[n].name for n in numbers[:3]) for numbers in sets])
            download.told(f"{len(sets)} set(s) of equal files {what} ({shown}).")

    report([c for c in copies if len({rows[n].label for n in c}) > 1], "have different labels")
    report([c for c in copies if len({rows[n].split for n in c}) > 1], "lie in different splits")


def check_groups(download: "Download", rows: Sequence["Listed"]) -> None:
    """Report groups with images in several splits."""
    splits: dict[str, set[str | None]] = defaultdict(set)
    for row in rows:
        if row.group is not None:
            splits[row.group].add(row.split)
    shared = [group for group, found in splits.items() if len(found) > 1]
    if shared:
        download.told(f"{len(shared)} group(s) have images in several splits ({some(shared)}).")
