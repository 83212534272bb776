"""From arguments to image files: files, folders, patterns, and a list on standard input."""

import glob
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple


class Named(NamedTuple):
    """An image file, or something that names none.

    Attributes
    ----------
    name : str
        Path as it was given, or as it was found in a folder.
    fault : str
        Why there is no image; empty if there may be one.
    """

    name: str
    fault: str = ""


def image_files(arguments: Iterable[str]) -> Iterator[Named]:
    """Image files that the arguments name, in their order; those of a folder are sorted.

    ``-`` is a list of paths on standard input, one a line, or with a null byte after each.
    """
    for argument in arguments:
        if argument == "-":
            for name in _listed(sys.stdin.buffer):
                yield from _one(name)
        else:
            yield from _one(argument)


def _one(argument: str) -> Iterator[Named]:
    """Files of a path or pattern."""
    path = os.path.expanduser(argument)
    if os.path.isdir(path):
        yield from _inside(path)
    elif os.path.exists(path) or not glob.has_magic(path):
        yield Named(path, "" if os.path.exists(path) else "There is no such file.")
    else:
        found = sorted(glob.glob(path, recursive=True))
        if not found:
            yield Named(path, "No file fits this pattern.")
        for name in found:
            if os.path.isdir(name):
                if not path.rstrip("/").endswith("**"):  # which names what is in it, too
                    yield from _inside(name)
            else:
                yield Named(name)


def _inside(folder: str) -> Iterator[Named]:
    """Images in a folder and in those below; hidden ones are passed over."""
    from ..datasets.image_files import is_hidden, is_image_file, is_system_file

    faults: list[Named] = []
    count = 0
    walk = os.walk(folder, onerror=lambda reason: faults.append(Named(folder, str(reason))))
    for where, folders, names in walk:
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        for name in sorted(names):
            file = Path(where, name)
            if is_hidden(name) or is_system_file(name) or not is_image_file(file):
                continue
            count += 1
            yield Named(str(file))
    if not count and not faults:
        faults.append(Named(folder, "There is no image in this folder."))
    yield from faults


def _listed(stream: BinaryIO) -> Iterator[str]:
    """Paths on a stream of bytes; names that are no UTF-8 are kept as they are."""
    first = stream.readline()
    if b"\0" in first:
        entries: Iterable[bytes] = (first + stream.read()).split(b"\0")
    else:
        entries = (line.rstrip(b"\r\n") for line in _lines(first, stream))
    yield from (os.fsdecode(entry) for entry in entries if entry)


def _lines(first: bytes, stream: BinaryIO) -> Iterator[bytes]:
    yield first
    yield from stream
