"""From arguments to image files: files, folders, patterns, and a list on standard input."""

import os
import sys
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from ..named_files import Named, files_of


def image_files(arguments: Iterable[str]) -> Iterator[Named]:
    """Image files that the arguments name, in their order; those of a folder are sorted.

    ``-`` is a list of paths on standard input, one a line, or with a null byte after each.
    """
    for argument in arguments:
        if argument == "-":
            for name in _listed(sys.stdin.buffer):
                yield from files_of(name)
        else:
            yield from files_of(argument)


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
