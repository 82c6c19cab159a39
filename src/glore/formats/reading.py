"""A file in any layout → solutions with labels, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from glore.errors import DataError
from glore.formats.fields import FieldError
from glore.formats.labelled import LabelledSolution
from glore.formats.layout import PLACEHOLDER, Layout, ReadOptions
from glore.formats.registry import detect_layout, find_layout
from glore.formats.rows import FileRow, read_rows

__all__ = ["Reading", "RowReading", "open_file", "read_solutions"]


class RowReading(NamedTuple):
    """What one row gives: its solutions, or its fault."""

    where: str
    solutions: tuple[LabelledSolution, ...]
    fault: FieldError | None


class Reading(NamedTuple):
    """The layout of a file, and its rows, read as they are asked for."""

    layout: Layout
    rows: Iterator[RowReading]


def read_solutions(
    path: Path, layout: str | None = None, *, placeholder: str = PLACEHOLDER
) -> Iterator[LabelledSolution]:
    """The solutions of a file with their labels, in order; memory is bounded by one row.

    `layout`: a name of `LAYOUTS`; none tells it from the fields of the first row. `placeholder`:
    what ends a step in the layout `openrlhf`. Raises DataError naming line and field of the first
    fault, and for a file without rows, without a layout or with several that fit.
    """
    for row in open_file(path, layout, placeholder=placeholder).rows:
        if row.fault is not None:
            raise DataError(f"{row.where}: {row.fault}")
        yield from row.solutions


def open_file(path: Path, layout: str | None = None, *, placeholder: str = PLACEHOLDER) -> Reading:
    """The layout of a file and its rows, of which faulty ones come with their fault. Raises
    DataError as `read_solutions`, but for faults of rows.
    """
    rows = read_rows(Path(path))
    first = next(rows, None)
    if first is None:
        raise DataError(f"{path} has no rows; give a file with at least one solution")
    if layout is not None:
        found = find_layout(layout)
    elif first.fields is None:
        raise DataError(f"{first.where}: {first.fault}")
    else:
        found = detect_layout(first.fields, first.where)
    return Reading(found, _read(first, rows, found, ReadOptions(placeholder)))


def _read(
    first: FileRow, rows: Iterator[FileRow], layout: Layout, options: ReadOptions
) -> Iterator[RowReading]:
    yield _solutions(first, layout, options)
    for row in rows:
        yield _solutions(row, layout, options)


def _solutions(row: FileRow, layout: Layout, options: ReadOptions) -> RowReading:
    if row.fields is None:
        return RowReading(row.where, (), row.fault)
    try:
        return RowReading(row.where, tuple(layout.read(row.fields, options)), None)
    except FieldError as fault:
        return RowReading(row.where, (), fault)
