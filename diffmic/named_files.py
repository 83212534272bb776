"""Image files by name: a file, a folder with those below it, or a pattern. Imports no torch."""

import glob
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


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


def files_of(argument: str) -> Iterator[Named]:
    """Image files of a path or pattern; those of a folder are sorted."""
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


def utf8(name: str) -> str:
    """A name as text that can be encoded: bytes that are no UTF-8 are written out."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _inside(folder: str) -> Iterator[Named]:
    """Images in a folder and in those below; hidden ones are passed over."""
    from .datasets.image_files import is_hidden, is_image_file, is_system_file

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
