"""Rows of Parquet, a block at a time, and written. The first block decides columns and types."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from glore.errors import DataError, printable
from glore.formats.file_row import FileRow, row_of

__all__ = ["read_parquet", "write_parquet"]

BLOCK = 1000
"""Rows in memory."""
MAX_DEPTH = 64


def read_parquet(path: Path) -> Iterator[FileRow]:
    """The rows of a file. Raises DataError if it can't be read (further)."""
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=BLOCK):
                for row in batch.to_pylist():
                    number += 1
                    # Pandas writes a missing value as NaN.
                    fields = {k: v for k, v in row.items() if v == v}
                    yield row_of(f"{path}, row {number}", fields)
    except (OSError, ValueError, pa.ArrowException) as error:
        said = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(f"can't read {path} after row {number}: {printable(said)}") from error


def write_parquet(stream: IO[bytes], rows: Iterable[Mapping[str, object]]) -> None:
    """Write rows as one table. Raises DataError for none, and for rows that don't fit one table."""
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
    if not _is_shallow(values, MAX_DEPTH):
        raise DataError(
            f"after row {before}: the column {name} holds lists or objects {MAX_DEPTH} deep; write "
            "JSON lines (*.jsonl)"
        )
    try:
        found = pa.array(values, kind)
        is_same = _is_same(values, found.to_pylist())
    except (pa.ArrowException, TypeError, ValueError):
        is_same = False
    if not is_same:
        raise DataError(
            f"after row {before}: the column {name} holds values of several types, such as hard "
            "and soft labels; write JSON lines (*.jsonl)"
        )
    return found


def _is_shallow(value: object, depth: int) -> bool:
    """Are lists and objects nested less than `depth`? (Arrow crashes on very deep ones.)"""
    inner = value if isinstance(value, list) else value.values() if isinstance(value, dict) else ()
    return depth > 0 and all(_is_shallow(item, depth - 1) for item in inner)


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
