"""The numbers of a study as records: one for each cell of a table or point of a chart.

A stage computes them once, with their intervals, and writes them. Tables, charts and sentences are
views of them, so the report computes nothing again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from glore.pipeline.integrity import recorded_files
from glore.records import read_records
from glore.report.charts import DotChart, Dots, Line, LineChart, Point
from glore.report.views import Cell, TableView, percent, points
from glore.statistics import Difference, Estimate, Kept, KeptDifference, never_certain

__all__ = [
    "Measured",
    "Observed",
    "cell_of",
    "difference",
    "difference_in",
    "dot_chart",
    "estimate_of",
    "find",
    "line_chart",
    "number",
    "percent_of",
    "pivot",
    "points_of",
    "read_measured",
    "share",
]


@dataclasses.dataclass(frozen=True, slots=True)
class Measured:
    """One number."""

    table: str
    """The table or chart that it belongs to."""
    row: tuple[str, ...]
    """Its row: a text for each leading column. A line of a chart is named by them all."""
    column: str
    kind: str
    """`share` (with an interval), `difference` of two shares, or `number`, which has no interval.
    """
    value: float | None
    low: float | None
    high: float | None
    n: int
    """Observations; 0 for a plain number."""
    x: float | None
    """Its place on a chart's x axis."""
    gained: int
    lost: int
    p: float | None
    """Of a difference, as in `statistics.Difference`."""


@dataclasses.dataclass(frozen=True, slots=True)
class Observed(Measured):
    """A number as a stage computed it, with what pooling over several runs needs. Only the fields
    of `Measured` are written.
    """

    kept: Kept | None
    """The observations behind a share or a difference; none: nothing was measured."""
    total: bool
    """A count that is added up over runs; the mean is taken of any other plain number."""


def share(
    table: str,
    row: str | tuple[str, ...],
    column: str,
    found: Estimate | None,
    x: float | None = None,
) -> Measured:
    """A share with its interval (`never_certain`). None: it can't be measured."""
    e = never_certain(found or Estimate(None, None, None, 0))
    row = (row,) if isinstance(row, str) else row
    numbers, kept = (e.value, e.low, e.high, e.n), e if isinstance(e, Kept) else None
    return Observed(table, row, column, "share", *numbers, x, 0, 0, None, kept, total=False)


def difference(
    table: str,
    row: str | tuple[str, ...],
    column: str,
    found: Difference | None,
    x: float | None = None,
) -> Measured:
    """A difference of two shares with its interval. None: there is nothing to compare."""
    d = found or Difference(None, None, None, 0, 0, 0, None)
    row = (row,) if isinstance(row, str) else row
    numbers, outcomes = (d.value, d.low, d.high, d.n), (d.gained, d.lost, d.p)
    kept = d.kept if isinstance(d, KeptDifference) else None
    return Observed(table, row, column, "difference", *numbers, x, *outcomes, kept, total=False)


def number(
    table: str,
    row: str | tuple[str, ...],
    column: str,
    value: float | None,
    x: float | None = None,
    *,
    total: bool = False,
) -> Measured:
    """A mean of tokens, a threshold, or (`total`) a count: no interval, not in percent."""
    row = (row,) if isinstance(row, str) else row
    numbers = (value, None, None, 0)
    return Observed(table, row, column, "number", *numbers, x, 0, 0, None, None, total)


def read_measured(folder: Path, stage: str, part: str = "part") -> list[Measured]:
    """The numbers that a stage of a study wrote. `folder`: holds the study's `stages/`."""
    return read_records(recorded_files(folder / "stages" / stage, part), Measured)


def find(
    found: Sequence[Measured], table: str, row: str | tuple[str, ...], column: str
) -> Measured:
    """The number in one cell. Raises KeyError where there is none."""
    row = (row,) if isinstance(row, str) else row
    for m in found:
        if (m.table, m.row, m.column) == (table, row, column):
            return m
    raise KeyError((table, row, column))


def estimate_of(measured: Measured) -> Estimate:
    """A share, or a difference as a value to draw."""
    return Estimate(measured.value, measured.low, measured.high, measured.n)


def difference_in(measured: Measured) -> Difference:
    """The difference that a number holds."""
    m = measured
    return Difference(m.value, m.low, m.high, m.n, m.gained, m.lost, m.p)


def percent_of(measured: Measured) -> str:
    """A share as text, in percent with its interval."""
    return percent(estimate_of(measured))


def points_of(measured: Measured) -> str:
    """A difference as text, in percentage points with its interval."""
    return points(difference_in(measured))


def pivot(
    found: Sequence[Measured],
    table: str,
    title: str,
    note: str,
    leading: str | tuple[str, ...],
    *,
    id: str = "",
    n_column: bool = False,
    units: Mapping[str, str] | None = None,
) -> TableView:
    """The numbers of a table, with one row for each `row` and one column for each `column`, both in
    the order in which they come. `leading`: names of the first columns. `n_column`: the largest n
    of the row stands last. `units`: column → its heading, where that is not its name.
    """
    mine = [m for m in found if m.table == table]
    columns, rows = dict.fromkeys(m.column for m in mine), dict.fromkeys(m.row for m in mine)
    cells = {(m.row, m.column): m for m in mine}
    leading = (leading,) if isinstance(leading, str) else leading
    kinds = {m.column: m.kind for m in mine}
    names = [(units or {}).get(c) or _heading(c, kinds[c]) for c in columns]
    body: list[tuple[Cell, ...]] = []
    for row in rows:
        n = max((m.n for m in mine if m.row == row), default=0)
        body.append(
            (
                *row,
                *(cell_of(cells.get((row, c))) for c in columns),
                *((n,) if n_column else ()),
            )
        )
    heads = (*leading, *names, *(("n",) if n_column else ()))
    return TableView(id or table, title, note, heads, tuple(body))


def line_chart(
    found: Sequence[Measured],
    table: str,
    title: str,
    caption: str,
    x_label: str,
    y_label: str,
    *,
    id: str = "",
    x_scale: Literal["linear", "log"] = "linear",
    diagonal: bool = False,
    column: str | None = None,
) -> LineChart:
    """The numbers of a table that have an x, as a line for each row. `column`: of that alone; else
    of all, and lines are named by row and column where there are several.
    """
    mine = [
        m
        for m in found
        if m.table == table and m.x is not None and (column is None or m.column == column)
    ]
    lines: dict[str, list[Point]] = {}
    for m in mine:
        lines.setdefault(" · ".join(m.row), []).append(Point(m.x or 0.0, estimate_of(m)))
    return LineChart(
        id or f"{table}-chart",
        title,
        caption,
        x_label,
        y_label,
        tuple(Line(name, tuple(points)) for name, points in lines.items()),
        x_scale,
        diagonal,
    )


def dot_chart(
    found: Sequence[Measured],
    table: str,
    title: str,
    caption: str,
    x_label: str,
    *,
    id: str = "",
    columns: Sequence[str] | None = None,
    by_row: bool = True,
) -> DotChart:
    """The shares of a table: a category for each row and a method for each column, or (`by_row`
    false) the other way round. `columns`: of these alone.
    """
    mine = [
        m
        for m in found
        if m.table == table and m.kind == "share" and (columns is None or m.column in columns)
    ]
    rows: dict[str, list[tuple[str, Estimate]]] = {}
    for m in mine:
        names = (" · ".join(m.row), m.column)
        category, method = names if by_row else names[::-1]
        rows.setdefault(category, []).append((method, estimate_of(m)))
    return DotChart(
        id or f"{table}-chart",
        title,
        caption,
        x_label,
        tuple(Dots(category, tuple(values)) for category, values in rows.items()),
    )


def _heading(column: str, kind: str) -> str:
    unit = {"share": ", % [95 %]", "difference": ", points [95 %]", "number": ""}[kind]
    return f"{column}{unit}"


def cell_of(measured: Measured | None) -> Cell:
    """A number as a cell of a table; none: there is none."""
    if measured is None:
        return None
    m = measured
    if m.kind == "share":
        return estimate_of(m)
    if m.kind == "difference":
        return difference_in(m)
    if m.value is None:
        return None
    return f"{m.value:,.0f}" if float(m.value).is_integer() else f"{m.value:.3g}"
