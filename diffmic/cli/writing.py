"""Writers of predictions, one row at a time: CSV, JSON lines, parquet."""

import csv
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from ..errors import DiffMICError, InputError
from ..named_files import utf8

Row = Mapping[str, Any]
Write = Callable[[Sequence[Row]], None]  # writes some rows
FORMATS = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}


def format_of(out: Path | None, asked: str | None) -> str:
    """Format that was asked for, or else that of the file's suffix; CSV on standard output."""
    if asked is not None and asked not in FORMATS.values():
        raise InputError(f"--format is {asked!r}; give csv, jsonl or parquet.")
    found = asked or ("csv" if out is None else FORMATS.get(out.suffix.lower()))
    if found is None:
        raise InputError(
            f"The format of {str(out)!r} is unknown: end it in {', '.join(FORMATS)}, or give "
            "--format."
        )
    if found == "parquet":
        if out is None:
            raise InputError("parquet is written to a file alone: give --out predictions.parquet.")
        _pyarrow()
    return found


@contextmanager
def writer(out: Path | None, kind: str, columns: Sequence[str]) -> Iterator[Write]:
    """Function that writes rows to a file, or to standard output.

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
            with _parquet(file, columns) as write:
                yield write
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


def _text(stream: TextIO, kind: str, columns: Sequence[str]) -> Write:
    """Writes JSON lines, or CSV, in which several labels of an image are joined by semicolons."""
    table = csv.writer(stream, lineterminator="\n")
    if kind == "csv":
        table.writerow(columns)

    def write(rows: Sequence[Row]) -> None:
        for row in rows:
            if kind == "csv":
                table.writerow(";".join(c) if isinstance(c, list) else c for c in row.values())
            else:
                stream.write(json.dumps(row) + "\n")
        stream.flush()

    return write


@contextmanager
def _parquet(file: Path, columns: Sequence[str]) -> Iterator[Write]:
    """Writes parquet, a row group for each batch; without any row it has columns of nothing."""
    pa, pq = _pyarrow()
    made: Any = None

    def write(rows: Sequence[Row]) -> None:
        nonlocal made
        if not rows:
            return
        # Names that are no UTF-8 cannot be kept in parquet: their bytes are written out.
        table = pa.Table.from_pylist([{**row, "file": utf8(str(row["file"]))} for row in rows])
        if made is None:
            made = pq.ParquetWriter(str(file), _schema(pa, table.schema))
        made.write_table(table.cast(made.schema))

    try:
        yield write
    finally:
        if made is None:
            empty = pa.table({name: pa.array([], pa.null()) for name in columns})
            pq.write_table(empty, str(file))
        else:
            with suppress(OSError):
                made.close()


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
