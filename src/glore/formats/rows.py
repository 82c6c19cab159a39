"""Rows of a file, one at a time: JSON lines, one JSON array, or Parquet; and the same written.

Memory is bounded by one row, or by a block of `BLOCK` rows in Parquet. JSON may be compressed
(`.gz`, `.bz2`, `.xz`). A broken line of JSON lines is a row with its reason, so that a reader may
go on behind it; a broken array can't be read further.
"""

from __future__ import annotations

import codecs
import contextlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, NamedTuple, cast

import pyarrow as pa
import pyarrow.parquet as pq

from glore.errors import DataError, printable, shown
from glore.files import replacing
from glore.formats.fields import FieldError, Fields
from glore.tasks.data.readers import UNREADABLE, json_decoder, json_reason, opened

__all__ = ["MAX_ROW_BYTES", "FileRow", "is_columnar", "read_rows", "write_rows"]

MAX_ROW_BYTES = 2**24
BLOCK = 1000
CHUNK_BYTES = 2**16
SUFFIXES = (".jsonl", ".ndjson", ".json", ".parquet")


class FileRow(NamedTuple):
    """A row and its place; `fields` is none for a row that can't be read."""

    where: str
    fields: Fields | None
    fault: FieldError | None = None


def read_rows(path: Path) -> Iterator[FileRow]:
    """The rows of a file, in order. Raises DataError for a file that can't be read (further)."""
    head = _head(path)
    for mark, why in UNREADABLE.items():
        if head.startswith(mark):
            raise DataError(f"{path} {why}")
    if head.startswith(b"PAR1"):
        return _parquet_rows(path)
    return _json_rows(path)


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
            _write_parquet(stream, rows)
        elif path.suffix.lower() == ".json":
            _write_array(stream, rows)
        else:
            for row in rows:
                stream.write(_json(row) + b"\n")


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(32)
    except OSError as error:
        raise DataError(f"can't read {path}: {error.strerror or error}; check the path") from error


def _json_rows(path: Path) -> Iterator[FileRow]:
    with opened(path) as stream:
        first = _first_sign(stream)
    if first == b"[":
        yield from _array_items(path)
    else:
        yield from _json_lines(path)


def _first_sign(stream: IO[bytes]) -> bytes:
    """The first byte that is no white space, after a byte order mark."""
    head = stream.read(CHUNK_BYTES).removeprefix(codecs.BOM_UTF8).lstrip(b" \t\r\n")
    return head[:1]


def _json_lines(path: Path) -> Iterator[FileRow]:
    decoder = json_decoder(exact=False)
    with opened(path) as stream:
        for number in itertools.count(1):
            line = stream.readline(MAX_ROW_BYTES + 1)
            if not line:
                return
            where = f"{path}, line {number}"
            if len(line) > MAX_ROW_BYTES:
                raise DataError(
                    f"{where}: longer than {MAX_ROW_BYTES // 2**20} MiB; check the line breaks "
                    "(one row is one line)"
                )
            if line.strip(b" \t\r\n"):
                yield _decoded(line, where, decoder, first=number == 1)


def _decoded(line: bytes, where: str, decoder: json.JSONDecoder, first: bool) -> FileRow:
    try:
        text = line.decode("utf-8-sig" if first else "utf-8")
    except UnicodeDecodeError as error:
        rule = f"byte {error.start + 1} is not UTF-8; save the file as UTF-8"
        return FileRow(where, None, FieldError("the line", rule))
    try:
        return _object(where, decoder.decode(text.strip(" \t\r\n")))
    except (ValueError, RecursionError) as error:
        return FileRow(where, None, FieldError("the line", json_reason(error)))


def _object(where: str, value: object) -> FileRow:
    if isinstance(value, dict):
        return FileRow(where, cast(Fields, value))
    rule = f"must be a JSON object with named fields, got {shown(value)}"
    return FileRow(where, None, FieldError("the row", rule))


def _array_items(path: Path) -> Iterator[FileRow]:
    """The items of one JSON array. The text is decoded piece by piece."""
    decoder = json_decoder(exact=False)
    with opened(path) as stream:
        text = _Text(path, stream)
        text.skip_blanks()
        text.take("[")
        for number in itertools.count(1):
            text.skip_blanks()
            if text.ahead() == "]" and number == 1:
                break
            where = f"{path}, item {number}"
            yield _object(where, text.value(where, decoder))
            text.skip_blanks()
            if text.ahead() != ",":
                break
            text.take(",")
        text.take("]")
        text.skip_blanks()
        if text.ahead():
            raise DataError(f"{path}: there is text after the JSON array; correct the file")


class _Text:
    """The text of a stream, of which only what is not yet read is kept."""

    def __init__(self, path: Path, stream: IO[bytes]) -> None:
        self._path = path
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._buffer = ""
        self._at = 0
        self._ended = False

    def ahead(self) -> str:
        """The next character; empty at the end."""
        while self._at >= len(self._buffer) and self._more():
            pass
        return self._buffer[self._at : self._at + 1]

    def skip_blanks(self) -> None:
        while self.ahead() and self.ahead() in " \t\r\n":
            self._at += 1

    def take(self, sign: str) -> None:
        if self.ahead() != sign:
            raise DataError(
                f"{self._path}: the JSON array is cut off or lacks a {sign!r}, got "
                f"{shown(self._buffer[self._at : self._at + 40])}; check that the file is complete"
            )
        self._at += 1

    def value(self, where: str, decoder: json.JSONDecoder) -> object:
        """The next JSON value. Raises DataError if there is none."""
        self.ahead()
        size = CHUNK_BYTES
        while True:
            try:
                value, end = decoder.raw_decode(self._buffer, self._at)
            except (ValueError, RecursionError) as error:
                # It may only be cut off. Each try has twice as much text as the one before.
                while len(self._buffer) - self._at < size and self._more():
                    pass
                if len(self._buffer) - self._at < size or size > MAX_ROW_BYTES:
                    if self._ended and self._complete_try(decoder):
                        continue
                    raise DataError(f"{where}: {json_reason(error)}") from error
                size *= 2
                continue
            is_closed = isinstance(value, dict | list | str)
            if not is_closed and end == len(self._buffer) and self._more():
                continue  # a number may go on
            self._at = end
            return cast(object, value)

    def _complete_try(self, decoder: json.JSONDecoder) -> bool:
        """Does the value decode now that all text is here?"""
        try:
            decoder.raw_decode(self._buffer, self._at)
        except (ValueError, RecursionError):
            return False
        return True

    def _more(self) -> bool:
        """Read on; false at the end."""
        if self._ended:
            return False
        block = self._stream.read(CHUNK_BYTES)
        self._ended = not block
        try:
            text = self._decoder.decode(block, final=self._ended)
        except UnicodeDecodeError as error:
            raise DataError(f"{self._path} is not UTF-8; save it as UTF-8") from error
        self._buffer = self._buffer[self._at :] + text
        self._at = 0
        return not self._ended


def _parquet_rows(path: Path) -> Iterator[FileRow]:
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=BLOCK):
                for row in batch.to_pylist():
                    number += 1
                    # Pandas writes a missing value as NaN.
                    fields = {k: v for k, v in row.items() if v == v}
                    yield _object(f"{path}, row {number}", fields)
    except (OSError, ValueError, pa.ArrowException) as error:
        said = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(f"can't read {path} after row {number}: {printable(said)}") from error


def _json(row: Mapping[str, object]) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, TypeError) as error:
        raise DataError(f"can't be written as JSON ({error}): {shown(dict(row))}") from error


def _write_array(stream: IO[bytes], rows: Iterable[Mapping[str, object]]) -> None:
    stream.write(b"[")
    for i, row in enumerate(rows):
        stream.write(b",\n" if i else b"\n")
        stream.write(_json(row))
    stream.write(b"\n]\n")


def _write_parquet(stream: IO[bytes], rows: Iterable[Mapping[str, object]]) -> None:
    """The first block of rows decides the columns and their types."""
    with contextlib.ExitStack() as stack:
        writer: pq.ParquetWriter | None = None
        written = 0
        for block in _blocks(rows):
            schema = writer.schema if writer else _schema(block)
            table = _table(block, schema, written)
            if writer is None:
                writer = stack.enter_context(pq.ParquetWriter(stream, schema, compression="zstd"))
            writer.write_table(table)
            written += len(block)
        if writer is None:
            raise DataError("no solution to write; Parquet needs at least one row")


def _blocks(rows: Iterable[Mapping[str, object]]) -> Iterator[list[Mapping[str, object]]]:
    iterator = iter(rows)
    while block := list(itertools.islice(iterator, BLOCK)):
        yield block


def _schema(block: list[Mapping[str, object]]) -> pa.Schema:
    names = dict.fromkeys(name for row in block for name in row)
    return pa.schema([(name, _without_null(_column(block, name, None, 0).type)) for name in names])


def _table(block: list[Mapping[str, object]], schema: pa.Schema, before: int) -> pa.Table:
    known = set(schema.names)
    for i, row in enumerate(block):
        if not known.issuperset(row):
            new = sorted(set(row) - known)
            raise DataError(
                f"row {before + i + 1} has fields that no earlier row has: {', '.join(new)}; write "
                "JSON lines (*.jsonl)"
            )
    columns = [_column(block, field.name, field.type, before) for field in schema]
    return pa.table(columns, schema=schema)


def _column(
    block: list[Mapping[str, object]], name: str, kind: pa.DataType | None, before: int
) -> pa.Array:
    """The values of a column. Raises DataError if one of them would change its type."""
    values = [row.get(name) for row in block]
    try:
        found = pa.array(values, kind)
    except (pa.ArrowException, TypeError, ValueError):
        found = None
    if found is None or not _is_same(values, found.to_pylist()):
        raise DataError(
            f"after row {before}: the column {name} holds values of several types, such as hard "
            "and soft labels; write JSON lines (*.jsonl)"
        )
    return found


def _is_same(before: object, after: object) -> bool:
    """Did a value keep its type? (Arrow turns true among fractions into 1.0.) Of an object, names
    that other rows have are added as none.
    """
    if isinstance(before, dict) and isinstance(after, dict):
        return all(_is_same(before.get(name), after[name]) for name in after)
    if isinstance(before, list) and isinstance(after, list):
        return len(before) == len(after) and all(map(_is_same, before, after))
    return type(before) is type(after) and before == after


def _without_null(kind: pa.DataType) -> pa.DataType:
    """A type in which what was always null is a text, so that later rows can have one."""
    if pa.types.is_null(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(_without_null(kind.value_type))
    if pa.types.is_struct(kind):
        inner = [pa.field(f.name, _without_null(f.type)) for f in kind]
        # Parquet can't store a struct without fields.
        return pa.struct(inner) if inner else pa.string()
    return kind
