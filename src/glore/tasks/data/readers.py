"""Rows of one data file: JSON lines, JSON or CSV, perhaps compressed with gzip, bzip2 or xz; or
Parquet or Arrow (`columnar`).

Files come from strangers: their size is bounded before decoding, UTF-8 is the only encoding,
duplicate names in an object are refused, and JSON numbers are read as exact decimals. A file's type
follows from its first bytes, then from its name. Only a line feed ends a line of JSON lines.
"""

from __future__ import annotations

import bz2
import contextlib
import csv
import gzip
import itertools
import json
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import IO, cast

from glore.errors import DataError, shown
from glore.tasks.data.columnar import MAX_LINE_BYTES, check_names, is_columnar, read_columns
from glore.tasks.data.row import Row

__all__ = [
    "DATA_SUFFIXES",
    "MAX_LINE_BYTES",
    "UNREADABLE",
    "data_suffix",
    "json_decoder",
    "json_reason",
    "opened",
    "read_rows",
]

DATA_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow")
"""Suffixes of data files in a folder. One of `_COMPRESSED` may follow the first five."""
MAX_FILE_BYTES = 2**28
"""Limit for JSON that is not one object per line, since it is read at once."""
MAX_DECOMPRESSED_BYTES = 2**32
MAX_ROWS = 10_000_000
_COMPRESSED: dict[str, tuple[bytes, Callable[[IO[bytes]], object]]] = {
    ".gz": (b"\x1f\x8b", gzip.open),
    ".bz2": (b"BZh", bz2.open),
    ".xz": (b"\xfd7zXZ\0", lzma.open),
}
UNREADABLE = {
    b"version https://git-lfs": (
        "is a pointer of Git LFS, not the data itself; run git lfs pull in that clone"
    ),
    b"PK\x03\x04": "is a zip archive; unpack it and give its folder or file",
    b"\x28\xb5\x2f\xfd": "is compressed with zstd; decompress it, or use gzip",
}
"""First bytes of files that are no data → what they are."""
_SPACE = " \t\r\n"
"""White space in JSON; str.strip would also remove U+2028 and U+0085."""


def data_suffix(name: str) -> str | None:
    """The suffix in `DATA_SUFFIXES` that a file name has, compressed or not; none for other
    files.
    """
    path = Path(name.lower())
    suffix = Path(path.stem).suffix if path.suffix in _COMPRESSED else path.suffix
    return suffix if suffix in DATA_SUFFIXES else None


def read_rows(path: Path) -> list[Row]:
    """All rows of a file. Raises DataError naming file, line (or row) and fix."""
    try:
        with path.open("rb") as stream:
            head = stream.read(32)
    except OSError as error:
        raise DataError(f"can't read {path}: {error.strerror or error}; check task.path") from error
    for mark, why in UNREADABLE.items():
        if head.startswith(mark):
            raise DataError(f"{path} {why}")
    rows = read_columns(path) if is_columnar(head) else _text_rows(path)
    found = list(itertools.islice(rows, MAX_ROWS + 1))
    if len(found) > MAX_ROWS:
        raise DataError(f"{path} has more than {MAX_ROWS:,} rows; use a part of it")
    if not found:
        raise DataError(
            f"{path} has no problems; it needs one JSON object per line, or rows of Parquet, "
            "Arrow or CSV"
        )
    return found


def _text_rows(path: Path) -> Iterator[Row]:
    suffix = data_suffix(path.name)
    if suffix in (".parquet", ".arrow"):
        raise DataError(
            f"{path} is no {suffix[1:]} file, or damaged; write it again, or correct its suffix"
        )
    if suffix in (".csv", ".tsv"):
        return _csv_rows(path, "," if suffix == ".csv" else "\t")
    return _json_values(path) if suffix == ".json" else _json_lines(path)


def _json_lines(path: Path) -> Iterator[Row]:
    decoder = json_decoder()
    for number, line in enumerate(_lines(path), start=1):
        where = f"{path}, line {number}"
        text = _decoded(line, where, first=number == 1)
        if text.strip(_SPACE):
            try:
                value = decoder.decode(text)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{where}: {json_reason(error)}") from error
            yield Row(where, _object(value, where))


def _json_values(path: Path) -> Iterator[Row]:
    """One JSON array of objects, or several objects, with any line breaks."""
    with opened(path) as stream:
        data = stream.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise DataError(
            f"{path} is larger than {MAX_FILE_BYTES // 2**20} MiB; convert it to JSON lines "
            "(.jsonl)"
        )
    text = _decoded(data, str(path), first=True)
    decoder = json_decoder()
    at, line, seen = _skip(text, 0), 1, 0
    in_array = text[at : at + 1] == "["
    if not in_array and text[at : at + 1] != "{":
        raise DataError(
            f"{path} must be one JSON array of problems, or one object per line, got "
            f"{shown(text[at : at + 40])}"
        )
    at = _skip(text, at + 1) if in_array else at
    while at < len(text) and not (in_array and text[at] == "]"):
        line, seen = line + text.count("\n", seen, at), at
        where = f"{path}, line {line}"
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: {json_reason(error)}") from error
        yield Row(where, _object(value, where))
        at = _skip(text, end)
        if in_array and text[at : at + 1] == ",":
            at = _skip(text, at + 1)
        elif in_array and text[at : at + 1] != "]":
            break
    if in_array and (text[at : at + 1] != "]" or text[at + 1 :].strip(_SPACE)):
        where = f"{path}, line {1 + text.count(chr(10), 0, at)}"
        raise DataError(
            f"{where}: the JSON array is cut off, lacks a comma, or has text after it; check that "
            "the file is complete"
        )


def _csv_rows(path: Path, delimiter: str) -> Iterator[Row]:
    """Rows below a header, each a mapping from its names."""
    texts = (
        _decoded(line, f"{path}, line {number}", first=number == 1)
        for number, line in enumerate(_lines(path), start=1)
    )
    reader = csv.reader(texts, delimiter=delimiter, strict=True)
    header: list[str] = []
    while True:
        where = f"{path}, line {reader.line_num + 1}"
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise DataError(f"{where}: not valid CSV ({error}); check its quotes") from error
        if fields is None:
            return
        if not fields:
            continue
        if not header:
            header = [name.strip() for name in fields]
            check_names(header, where)
        elif len(fields) != len(header):
            raise DataError(
                f"{where}: {len(fields)} fields, but the first line names {len(header)}; put "
                "quotes around texts with commas"
            )
        else:
            yield Row(where, dict(zip(header, fields, strict=True)))


@contextlib.contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The file's bytes, decompressed. Raises DataError, then or later, if the file can't be read or
    is damaged.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(6)
            decompress = next(
                (opener for mark, opener in _COMPRESSED.values() if head.startswith(mark)), None
            )
            stream.seek(0)
            if decompress is None:
                yield stream
            else:
                with cast("IO[bytes]", decompress(stream)) as plain:
                    yield plain
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise DataError(
            f"{path}: the compressed file is damaged or cut off ({error}); copy or compress it "
            "again"
        ) from error
    except OSError as error:
        if error.errno is None:  # how bzip2 reports wrong data
            raise DataError(
                f"{path}: the compressed file is damaged ({error}); copy or compress it again"
            ) from error
        raise DataError(f"can't read {path}: {error.strerror or error}; check the path") from error


def _lines(path: Path) -> Iterator[bytes]:
    number, size = 0, 0
    with opened(path) as stream:
        while line := stream.readline(MAX_LINE_BYTES + 1):
            number, size = number + 1, size + len(line)
            if len(line) > MAX_LINE_BYTES:
                limit = f"{MAX_LINE_BYTES // 1024} KiB"
                raise DataError(
                    f"{path}, line {number}: longer than {limit}; check the line breaks (one "
                    "problem is one line)"
                )
            if size > MAX_DECOMPRESSED_BYTES:
                raise DataError(
                    f"{path}: larger than {MAX_DECOMPRESSED_BYTES // 2**30} GiB after "
                    "decompression; split it or use a part of it"
                )
            yield line


def _decoded(data: bytes, where: str, first: bool) -> str:
    try:
        return data.decode("utf-8-sig" if first else "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: byte {error.start + 1} is not UTF-8; save the file as UTF-8"
        ) from error


def json_decoder(exact: bool = True) -> json.JSONDecoder:
    """A decoder that refuses NaN, infinities and names that are there twice. `exact`: numbers with
    a fraction are decimals.
    """

    def refuse(name: str) -> object:
        raise ValueError(f"{name} is not a number of JSON")

    def distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
        fields = dict(pairs)
        if len(fields) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"the field {twice} is there twice")
        return fields

    return json.JSONDecoder(
        parse_float=Decimal if exact else None,
        parse_constant=refuse,
        object_pairs_hook=distinct,
    )


def json_reason(error: Exception) -> str:
    """Why JSON can't be read, and what to do."""
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON ({error.msg} at column {error.colno}); correct the line"
    why = "nested too deeply" if isinstance(error, RecursionError) else shown(str(error))
    return f"not usable JSON ({why}); correct the line"


def _object(value: object, where: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise DataError(
            f"{where}: a problem is a JSON object with named fields, got {shown(value)}"
        )
    return cast("Mapping[str, object]", value)


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at
