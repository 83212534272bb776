"""Files and folders here and on object storage, by fsspec: named, read ahead, written whole."""

import glob
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .errors import InputError
from .named_files import files_of, utf8


def listed(files: Any) -> dict[str, bytes]:
    """Path or URI of each file, as bytes, by the name under which it is told.

    Raises
    ------
    InputError
        No file is there, a folder has no image, or a pattern fits none.
    """
    given = [files] if isinstance(files, (str, os.PathLike)) else files
    if not isinstance(given, Iterable):
        raise InputError(f"files is a {type(files).__name__}; give paths, patterns or URIs.")
    named: dict[str, bytes] = {}
    missing = ""
    for number, each in enumerate(given):
        path = os.fspath(each) if isinstance(each, (str, os.PathLike)) else None
        if not isinstance(path, str) or not path.strip():
            raise InputError(f"Entry {number} of files is {each!r}; give a path, pattern or URI.")
        if "://" in path:
            named |= {uri: uri.encode() for uri in _remote(path)}
            continue
        for name, fault in files_of(path):
            if fault and (os.path.isdir(name) or glob.has_magic(name)):
                raise InputError(f"{name!r}: {fault}")
            missing = missing or (name if fault else "")
            named[utf8(name)] = os.fsencode(os.path.abspath(name))
    if not named:
        raise InputError("There are no files to predict.")
    if missing and not any("://" in name or os.path.exists(p) for name, p in named.items()):
        raise InputError(f"None of the files exists, such as {missing!r}.")
    return named


def _remote(uri: str) -> list[str]:
    """Files that an URI names: itself, those that fit it as a pattern, or images in a folder."""
    from .datasets.image_files import image_suffixes, is_hidden

    system, path = _url_to_fs(uri)
    is_pattern = glob.has_magic(path)
    if not is_pattern and Path(path).suffix.lower() in image_suffixes():
        return [uri]  # of many, not each is looked at
    try:
        if is_pattern:
            found = system.glob(path)
        elif system.isdir(path):
            found = [
                each
                for each in system.find(path)
                if Path(each).suffix.lower() in image_suffixes()
                and not any(map(is_hidden, Path(each).relative_to(path).parts))
            ]
        else:
            return [uri]
    except Exception as reason:  # whatever the client of a storage raises
        raise InputError(f"{uri!r} cannot be listed: {type(reason).__name__}: {reason}") from reason
    if not found:
        raise InputError(f"{uri!r} names no image.")
    outer = uri.partition("::")[1:]  # of an archive in a file
    return sorted(system.unstrip_protocol(each) + "".join(outer) for each in found)


def _url_to_fs(uri: str) -> tuple[Any, str]:
    """File system of fsspec and path in it."""
    from fsspec.core import url_to_fs

    try:
        system, path = url_to_fs(uri)
    except (ImportError, ValueError) as reason:  # an unknown kind, or its package is missing
        raise InputError(f"{uri!r} cannot be opened: {reason}") from reason
    return system, path


class Unread(str):
    """Why the content of a file could not be had."""


def read_ahead(paths: list[str], size: int) -> Iterator[list[Any]]:
    """Batches of images; contents of remote files are read while the batch before is predicted."""
    chunks = [paths[start : start + size] for start in range(0, len(paths), size)]
    with ThreadPoolExecutor(16) as pool:
        coming = [pool.submit(_content, path) for path in chunks[0]]
        for chunk in [*chunks[1:], []]:
            images = [future.result() for future in coming]
            coming = [pool.submit(_content, path) for path in chunk]
            yield images


def _content(path: str) -> Any:
    """A local path, or the content of a remote file, or why it could not be had."""
    if "://" not in path:
        return path
    try:
        system, name = _url_to_fs(path)
        return system.cat_file(name)
    except Exception as reason:  # whatever the client of a storage raises
        return Unread(" ".join(f"{type(reason).__name__}: {reason}".split()))


class Folder:
    """A new or empty folder, here or on object storage, whose files appear whole."""

    def __init__(self, out: str | Path) -> None:
        if not isinstance(out, (str, os.PathLike)) or not os.fspath(out):
            raise InputError(f"out is {out!r}; give a folder, or the URI of one.")
        self.name = os.fspath(out).rstrip("/") or "/"
        self.is_local = "://" not in self.name
        if self.is_local:
            self.name = os.path.abspath(os.path.expanduser(self.name))
        self._system, self._path = _url_to_fs(self.name)
        if self._system.isfile(self._path):
            raise InputError(f"out is {self.name!r}, a file; give a folder.")
        if self.files():
            raise InputError(
                f"The folder {self.name!r} is not empty. Give a new one as out, or empty it: "
                "predictions of two runs are not mixed."
            )
        self._system.makedirs(self._path, exist_ok=True)

    def files(self) -> set[str]:
        """Names of what is in it now."""
        self._system.invalidate_cache()
        if not self._system.exists(self._path):
            return set()
        found = {each.rstrip("/") for each in self._system.ls(self._path, detail=False)}
        # Object storages may list a folder in itself.
        return {each.rpartition("/")[2] for each in found - {self._path.rstrip("/")}}

    def write(self, name: str, content: bytes) -> None:
        """Write a file; until it is whole it has another, hidden name. Objects appear whole."""
        if not self.is_local:
            self._system.pipe_file(f"{self._path}/{name}", content)
            return
        part = Path(self.name, f".{name}.part")
        part.write_bytes(content)
        os.replace(part, Path(self.name, name))

    def read(self, name: str) -> bytes | None:
        """Content of a file; None: there is none."""
        try:
            content: bytes = self._system.cat_file(f"{self._path}/{name}")
        except FileNotFoundError:
            return None
        return content

    def remove(self, name: str) -> None:
        """Remove a file."""
        self._system.rm_file(f"{self._path}/{name}")
