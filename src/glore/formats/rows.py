"""Rows of a file, one at a time: JSON lines, one JSON array, or Parquet; and the same written.

The first bytes tell how a file is read, and its suffix how it is written. Memory is bounded by one
row, or by one block of Parquet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from glore.errors import DataError
from glore.files import replacing
from glore.formats.file_row import FileRow
from glore.formats.json_rows import read_json, write_array, write_lines
from glore.formats.parquet_rows import read_parquet, write_parquet
from glore.tasks.data.readers import UNREADABLE

__all__ = ["is_columnar", "read_rows", "write_rows"]

SUFFIXES = (".jsonl", ".ndjson", ".json", ".parquet")


def read_rows(path: Path) -> Iterator[FileRow]:
    """The rows of a file, in order. Raises DataError for a file that can't be read (further)."""
    head = _head(path)
    for mark, why in UNREADABLE.items():
        if head.startswith(mark):
            raise DataError(f"{path} {why}")
    if head.startswith(b"PAR1"):
        return read_parquet(path)
    return read_json(path)


def is_columnar(path: Path) -> bool:
    """Will the file be Parquet? Raises DataError for a suffix that nothing is written under."""
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(
            f"can't tell what to write from the suffix of {path}; name it *.jsonl, *.json or "
            "*.parquet"
        )
    return path.suffix.lower() == ".parquet"


def write_rows(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Write rows as JSON lines, one JSON array or Parquet, by the suffix; whole or not at all.

    Raises DataError for an unknown suffix and for rows that don't fit one table, RunError when the
    disk refuses.
    """
    columnar = is_columnar(path)
    with replacing(path) as stream:
        if columnar:
            write_parquet(stream, rows)
        elif path.suffix.lower() == ".json":
            write_array(stream, rows)
        else:
            write_lines(stream, rows)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(32)
    except OSError as error:
        raise DataError(f"can't read {path}: {error.strerror or error}; check the path") from error
