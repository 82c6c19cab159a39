"""Rows of Parquet files, and of Arrow's stream and file formats as `datasets` writes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from glore.errors import DataError, shown
from glore.tasks.data.row import Row

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["MAX_LINE_BYTES", "check_names", "is_columnar", "read_columns"]

MAX_LINE_BYTES = 2**20
"""Limit of a line of a text file, and of a text in a column."""
_PARQUET, _ARROW_FILE, _ARROW_STREAM = b"PAR1", b"ARROW1", b"\xff\xff\xff\xff"
_ROWS_AT_ONCE = 1024


def is_columnar(head: bytes) -> bool:
    """Whether a file that begins with these bytes is Parquet or Arrow."""
    return head.startswith((_PARQUET, _ARROW_FILE, _ARROW_STREAM))


def read_columns(path: Path) -> Iterator[Row]:
    """The rows of a file one by one. Raises DataError naming the file and the row."""
    import pyarrow as pa

    number = 0
    try:
        # Not a memory map: a wrong length in the file would crash the process.
        with pa.OSFile(str(path)) as source:
            for names, batch in _batches(source):
                check_names(names, str(path))
                # Arrow doesn't check offsets by itself, and wrong ones would crash the process.
                batch.validate(full=True)
                for start in range(0, batch.num_rows, _ROWS_AT_ONCE):
                    for fields in batch.slice(start, _ROWS_AT_ONCE).to_pylist():
                        number += 1
                        yield _bounded(Row(f"{path}, row {number}", fields))
    except (pa.ArrowException, OSError, ValueError, ArithmeticError) as error:
        reason = shown(" ".join(str(error).split()), 120)
        raise DataError(
            f"{path}: damaged after row {number}, or of an unsupported type ({reason}); write it "
            "again"
        ) from error


def _batches(source: pa.NativeFile) -> Iterator[tuple[list[str], pa.RecordBatch]]:
    """Pairs of the columns' names and a record batch."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    head = source.read(8)
    source.seek(0)
    if head.startswith(_PARQUET):
        file = pq.ParquetFile(source)
        yield from ((file.schema_arrow.names, batch) for batch in file.iter_batches(_ROWS_AT_ONCE))
    elif head.startswith(_ARROW_STREAM):
        stream = pa.ipc.open_stream(source)
        yield from ((stream.schema.names, batch) for batch in stream)
    else:
        reader = pa.ipc.open_file(source)
        yield from (
            (reader.schema.names, reader.get_batch(i)) for i in range(reader.num_record_batches)
        )


def check_names(names: Iterable[str], where: str) -> None:
    """Raises DataError if two columns have the same name."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DataError(f"{where}: two columns are called {shown(name)}; rename or remove one")
        seen.add(name)


def _bounded(row: Row) -> Row:
    for name, value in row.fields.items():
        if isinstance(value, str) and len(value) > MAX_LINE_BYTES:
            raise DataError(
                f"{row.where}: the field {shown(name)} is longer than {MAX_LINE_BYTES // 1024} "
                "KiB; remove it"
            )
    return row
