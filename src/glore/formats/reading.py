"""A file in any layout → solutions with labels, one at a time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from glore.errors import DataError
from glore.formats.fields import FieldError
from glore.formats.file_row import FileRow
from glore.formats.labelled import LabelledSolution
from glore.formats.layout import PLACEHOLDER, Layout, ReadOptions
from glore.formats.registry import detect_layout, find_layout
from glore.formats.rows import read_rows

__all__ = ["Reading", "RowReading", "open_file", "read_solutions"]


MAX_UNREADABLE = 100
"""As many broken lines may stand before the one that tells the layout."""


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
    path: Path,
    layout: str | None = None,
    *,
    placeholder: str = PLACEHOLDER,
    on_fault: Callable[[str], None] | None = None,
) -> Iterator[LabelledSolution]:
    """The solutions of a file with their labels, in order; memory is bounded by one row.

    `layout`: a name of `LAYOUTS`; none tells it from the fields of the first row. `placeholder`:
    what ends a step in the layout `openrlhf`. `on_fault` is called with place, field and rule of
    each faulty row, which is then left out; without it, the first one raises DataError. So does a
    file without rows, without a layout or with several that fit.
    """
    for row in open_file(path, layout, placeholder=placeholder).rows:
        if row.fault is not None and on_fault is None:
            raise DataError(f"{row.where}: {row.fault}")
        if row.fault is not None and on_fault is not None:
            on_fault(f"{row.where}: {row.fault}")
        yield from row.solutions


def open_file(path: Path, layout: str | None = None, *, placeholder: str = PLACEHOLDER) -> Reading:
    """The layout of a file and its rows, of which faulty ones come with their fault. Raises
    DataError as `read_solutions`, but for faults of rows.
    """
    found = None if layout is None else find_layout(layout)
    rows = read_rows(Path(path))
    first = list(_up_to_readable(rows))
    if not first:
        raise DataError(f"{path} has no rows; give a file with at least one solution")
    if found is None:
        readable = first[-1]
        if readable.fields is None:
            raise DataError(f"{first[0].where}: {first[0].fault}")
        found = detect_layout(readable.fields, readable.where)
    options = ReadOptions(placeholder)
    return Reading(found, (_solutions(r, found, options) for r in itertools.chain(first, rows)))


def _up_to_readable(rows: Iterator[FileRow]) -> Iterator[FileRow]:
    """The first rows, up to one that can be read."""
    for row in itertools.islice(rows, MAX_UNREADABLE):
        yield row
        if row.fields is not None:
            return


def _solutions(row: FileRow, layout: Layout, options: ReadOptions) -> RowReading:
    if row.fields is None:
        return RowReading(row.where, (), row.fault)
    try:
        return RowReading(row.where, tuple(layout.read(row.fields, options)), None)
    except FieldError as fault:
        return RowReading(row.where, (), fault)
