"""Writers of predictions, one row at a time: CSV, JSON lines, parquet."""

import csv
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, TextIO

from ..errors import DiffMICError, InputError
from ..named_files import utf8

Row = Mapping[str, Any]
FORMATS = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}


class Writer(Protocol):
    """Takes rows."""

    def write(self, rows: Sequence[Row]) -> None:
        """Write some rows."""


def format_of(out: Path | None, asked: str | None) -> str:
    """Format that was asked for, or else that of the file's suffix; CSV on standard output.

    Raises
    ------
    InputError
        There is no such format, or the suffix says none.
    """
    if asked is not None:
        if asked not in FORMATS.values():
            raise InputError(f"--format is {asked!r}; give csv, jsonl or parquet.")
        found = asked
    elif out is None:
        found = "csv"
    else:
        known = FORMATS.get(out.suffix.lower())
        if known is None:
            raise InputError(
                f"The format of {str(out)!r} is unknown: end it in {', '.join(FORMATS)}, or give "
                "--format."
            )
        found = known
    if found == "parquet":
        if out is None:
            raise InputError("parquet is written to a file alone: give --out predictions.parquet.")
        _pyarrow()
    return found


@contextmanager
def writer(out: Path | None, kind: str, columns: Sequence[str]) -> Iterator[Writer]:
    """Writer to a file, or to standard output.

    A file has the suffix ``.part`` until all is written, so that a part is not taken for the whole.
    """
    if out is None:
        stream = sys.stdout
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="surrogateescape", newline="")
        yield _text(stream, kind, columns)
        stream.flush()
        return
    out = out.expanduser()
    if not out.parent.is_dir():
        raise InputError(f"There is no folder {str(out.parent)!r} to write {out.name!r} to.")
    if out.is_dir():
        raise InputError(f"{str(out)!r} is a folder; give a file, such as 'predictions.csv'.")
    special = out.exists() and not out.is_file()  # a device or a pipe
    file = out if special else out.with_name(out.name + ".part")
    try:
        if kind == "parquet":
            made = _Parquet(file, columns)
            try:
                yield made
            finally:
                made.close()
        else:
            how: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape"}
            with open(file, "w", newline="", **how) as stream:
                yield _text(stream, kind, columns)
    except BaseException as reason:
        if not special and file.exists():
            reason.add_note(f"What was done until then is in {str(file)!r}.")
        raise
    if not special:
        os.replace(file, out)


def _text(stream: TextIO, kind: str, columns: Sequence[str]) -> Writer:
    return _Lines(stream) if kind == "jsonl" else _Table(stream, columns)


class _Table:
    """CSV; several labels of an image are joined by semicolons."""

    def __init__(self, stream: TextIO, columns: Sequence[str]) -> None:
        self._writer = csv.writer(stream, lineterminator="\n")
        self._writer.writerow(columns)
        self._stream = stream

    def write(self, rows: Sequence[Row]) -> None:
        for row in rows:
            cells = (";".join(c) if isinstance(c, list) else c for c in row.values())
            self._writer.writerow(cells)
        self._stream.flush()


class _Lines:
    """JSON lines."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._stream.write(json.dumps(row) + "\n")
        self._stream.flush()


class _Parquet:
    """Parquet, a row group for each batch."""

    def __init__(self, file: Path, columns: Sequence[str]) -> None:
        self._file, self._columns = file, columns
        self._writer: Any = None

    def write(self, rows: Sequence[Row]) -> None:
        pa, pq = _pyarrow()
        # Names that are no UTF-8 cannot be kept in parquet: their bytes are written out.
        plain = [{**row, "file": utf8(str(row["file"]))} for row in rows]
        table = pa.Table.from_pylist(plain) if plain else None
        if table is None:
            return
        if self._writer is None:
            self._writer = pq.ParquetWriter(str(self._file), _schema(pa, table.schema))
        self._writer.write_table(table.cast(self._writer.schema))

    def close(self) -> None:
        """End the file; without any row it has columns of nothing."""
        pa, pq = _pyarrow()
        if self._writer is None:
            empty = pa.table({name: pa.array([], pa.null()) for name in self._columns})
            pq.write_table(empty, str(self._file))
        else:
            with suppress(OSError):
                self._writer.close()


def _schema(pa: Any, found: Any) -> Any:
    """Schema of all rows, of which those seen may all lack a decision, or have empty lists."""
    text, texts = pa.string(), pa.list_(pa.string())
    types = {pa.null(): text, pa.list_(pa.null()): texts}
    return pa.schema([field.with_type(types.get(field.type, field.type)) for field in found])


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as reason:
        raise DiffMICError('parquet needs pyarrow: pip install "diffmic[parquet]".') from reason
    return pyarrow, pyarrow.parquet
