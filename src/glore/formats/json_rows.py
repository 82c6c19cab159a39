"""Rows of JSON, one at a time: one object per line, or the objects of one array; and written.

A broken line is a row with its reason, so that a reader may go on behind it. A broken array can't
be read further. Files may be compressed.
"""

from __future__ import annotations

import codecs
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, cast

from glore.errors import DataError, shown
from glore.formats.fields import FieldError
from glore.formats.file_row import FileRow, row_of
from glore.tasks.data.readers import json_decoder, json_reason, opened

__all__ = ["MAX_ROW_BYTES", "read_json", "write_array", "write_lines"]

MAX_ROW_BYTES = 2**24
CHUNK_BYTES = 2**16


def read_json(path: Path) -> Iterator[FileRow]:
    """The rows of a file of JSON. Raises DataError if it can't be read (further)."""
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
        return row_of(where, decoder.decode(text.strip(" \t\r\n")))
    except (ValueError, RecursionError) as error:
        return FileRow(where, None, FieldError("the line", json_reason(error)))


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
            yield row_of(where, text.value(where, decoder))
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
        size = CHUNK_BYTES
        while True:
            while len(self._buffer) - self._at < size and self._more():
                pass
            is_all = self._ended
            try:
                value, end = decoder.raw_decode(self._buffer, self._at)
            except (ValueError, RecursionError) as error:
                if is_all or size > MAX_ROW_BYTES:
                    raise DataError(f"{where}: {json_reason(error)}") from error
            else:
                # A number at the end of what was read may go on.
                if isinstance(value, dict | list | str) or is_all or end < len(self._buffer):
                    self._at = end
                    return cast(object, value)
            size *= 2  # it may only be cut off

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


def write_lines(stream: IO[bytes], rows: Iterable[Mapping[str, object]]) -> None:
    """Write one JSON object per line. Raises DataError for a value that JSON has no form for."""
    for row in rows:
        stream.write(_json(row) + b"\n")


def write_array(stream: IO[bytes], rows: Iterable[Mapping[str, object]]) -> None:
    """Write one JSON array, a row on each line. Raises DataError."""
    stream.write(b"[")
    for i, row in enumerate(rows):
        stream.write(b",\n" if i else b"\n")
        stream.write(_json(row))
    stream.write(b"\n]\n")


def _json(row: Mapping[str, object]) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(f"can't be written as JSON ({error}): {shown(list(row))}") from error
